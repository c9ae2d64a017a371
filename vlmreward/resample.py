"""Antialiased image resizing as an exact linear map, by PIL's definition of the filters.

Resizing an image is two matrix products, ``A_h @ x @ A_w.T``. The weights are computed in float64
and stored as a few dense bands (each band: some neighbouring outputs and the inputs that they see),
so that the work stays linear in the size of the image, the backward pass is the same code with the
transposed bands, and nothing is accumulated with atomics: gradients are bitwise repeatable.
"""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch

__all__ = ["FILTERS", "resize", "resize_adjoint", "resize_uint8", "weight_matrix"]


def _triangle(x: torch.Tensor) -> torch.Tensor:
    return (1.0 - x.abs()).clamp(min=0.0)


def _cubic(x: torch.Tensor, a: float = -0.5) -> torch.Tensor:
    x = x.abs()
    near = ((a + 2.0) * x - (a + 3.0)) * x * x + 1.0
    far = ((a * x - 5.0 * a) * x + 8.0 * a) * x - 4.0 * a
    return torch.where(x < 1.0, near, torch.where(x < 2.0, far, 0.0))


def _lanczos(x: torch.Tensor) -> torch.Tensor:
    return torch.where(x.abs() < 3.0, torch.sinc(x) * torch.sinc(x / 3.0), 0.0)


FILTERS: dict[str, tuple[Callable[[torch.Tensor], torch.Tensor], float]] = {
    "bilinear": (_triangle, 1.0),
    "bicubic": (_cubic, 2.0),
    "lanczos": (_lanczos, 3.0),
}
"""Filter kernel and its half width at scale 1, by name."""


def weight_matrix(n_in: int, n_out: int, filter: str = "bicubic") -> torch.Tensor:
    """Weights of PIL's antialiased resize of one axis (``precompute_coeffs`` in PIL's Resample.c).

    Args:
        n_in: length of the axis before resizing.
        n_out: length after resizing.
        filter: one of ``FILTERS``.

    Returns:
        float64 ``(n_out, n_in)`` on the CPU; every row sums to 1.

    >>> weight_matrix(4, 2, "bilinear")
    tensor([[0.4286, 0.4286, 0.1429, 0.0000],
            [0.0000, 0.1429, 0.4286, 0.4286]], dtype=torch.float64)
    """
    if filter not in FILTERS:
        raise ValueError(f"filter is {filter!r}; expected one of {sorted(FILTERS)}")
    if n_in < 1 or n_out < 1:
        raise ValueError(f"cannot resize {n_in} to {n_out} pixels; both must be at least 1")
    kernel, half_width = FILTERS[filter]
    scale = n_in / n_out
    stretch = max(scale, 1.0)  # when reducing, the filter widens: this is the antialiasing
    support = half_width * stretch
    centre = (torch.arange(n_out, dtype=torch.float64)[:, None] + 0.5) * scale
    first = (centre - support + 0.5).to(torch.int64).clamp(min=0)
    last = (centre + support + 0.5).to(torch.int64).clamp(max=n_in)
    j = torch.arange(n_in)[None, :]
    weights = kernel((j - centre + 0.5) * (1.0 / stretch))
    weights = torch.where((j >= first) & (j < last), weights, 0.0)
    return weights / weights.sum(dim=1, keepdim=True)


@dataclass(frozen=True)
class _Band:
    """Outputs ``[out_from, out_to)`` are ``matrix @ inputs[in_from:in_to]``."""

    out_from: int
    out_to: int
    in_from: int
    in_to: int
    matrix: torch.Tensor


@dataclass(frozen=True)
class _Operator:
    """A banded matrix and its transpose; immutable, shared between calls."""

    n_in: int
    n_out: int
    bands: tuple[_Band, ...]
    adjoint_bands: tuple[_Band, ...]

    @property
    def adjoint(self) -> _Operator:
        return _Operator(self.n_out, self.n_in, self.adjoint_bands, self.bands)


# Outputs per band, by measurement: short bands do less useless arithmetic, long ones fewer calls.
# A GPU does the arithmetic in no time and pays for every call.
_BAND_CPU = 32
_BAND_ACCELERATOR = 512


def _bands(weights: torch.Tensor, length: int) -> tuple[_Band, ...]:
    bands = []
    if weights.shape[0] <= 2 * length:
        length = weights.shape[0]
    for start in range(0, weights.shape[0], length):
        rows = weights[start : start + length]
        used = rows.ne(0).any(dim=0).nonzero()
        lo, hi = (int(used[0]), int(used[-1]) + 1) if len(used) else (0, 1)
        matrix = rows[:, lo:hi].contiguous()
        bands.append(_Band(start, start + rows.shape[0], lo, hi, matrix))
    return tuple(bands)


def _operator(weights: torch.Tensor, dtype: torch.dtype, device: torch.device) -> _Operator:
    length = _BAND_CPU if device.type == "cpu" else _BAND_ACCELERATOR
    weights = weights.to(dtype)

    def moved(matrix: torch.Tensor) -> tuple[_Band, ...]:
        return tuple(
            _Band(b.out_from, b.out_to, b.in_from, b.in_to, b.matrix.to(device))
            for b in _bands(matrix, length)
        )

    return _Operator(weights.shape[1], weights.shape[0], moved(weights), moved(weights.T))


@functools.lru_cache(maxsize=64)
def _float_operator(
    n_in: int, n_out: int, filter: str, dtype: torch.dtype, device: torch.device
) -> _Operator:
    # A tensor made under inference_mode can never take part in autograd again, and this one is kept
    with torch.inference_mode(False):
        return _operator(weight_matrix(n_in, n_out, filter), dtype, device)


@functools.lru_cache(maxsize=64)
def _uint8_operator(n_in: int, n_out: int, filter: str, device: torch.device) -> _Operator:
    """Integer weights of torch's 8-bit kernel, divided by their power of two (both exact)."""
    with torch.inference_mode(False):
        weights = weight_matrix(n_in, n_out, filter)
        bits = 0  # as many as let the largest weight fit into int16, at most 22
        while bits < 22 and int(0.5 + weights.max().item() * 2 ** (bits + 1)) < 2**15:
            bits += 1
        whole = weights.sign() * (weights.abs() * 2**bits + 0.5).floor()
        # Sums of integers below 2**24 are exact in float32, in any order; otherwise take float64
        exact = 255 * whole.abs().sum(dim=1).max().item() < 2**24
        return _operator(whole / 2**bits, torch.float32 if exact else torch.float64, device)


@contextlib.contextmanager
def _full_precision(device: torch.device) -> Iterator[None]:
    """Keep autocast and TF32 or bfloat16 shortcuts out of the resampling products."""
    backends: Any = torch.backends
    settings = backends.cuda.matmul if device.type == "cuda" else backends.mkldnn.matmul
    chosen = settings.fp32_precision
    settings.fp32_precision = "ieee"
    try:
        with torch.autocast(device.type, enabled=False):
            yield
    finally:
        settings.fp32_precision = chosen


def _apply(x: torch.Tensor, operator: _Operator, axis: int) -> torch.Tensor:
    """The operator along the last (-1) or next to last (-2) axis of ``x``."""
    bands = operator.bands
    with _full_precision(x.device):
        if axis == -1:
            rows = x.reshape(-1, operator.n_in)
            out = rows.new_empty(rows.shape[0], operator.n_out)
            for b in bands:
                torch.mm(
                    rows[:, b.in_from : b.in_to], b.matrix.T, out=out[:, b.out_from : b.out_to]
                )
            return out.view(*x.shape[:-1], operator.n_out)
        planes = x.reshape(-1, operator.n_in, x.shape[-1])
        parts = [
            torch.bmm(b.matrix.expand(len(planes), -1, -1), planes[:, b.in_from : b.in_to])
            for b in bands
        ]
        out = parts[0] if len(parts) == 1 else torch.cat(parts, dim=1)
        return out.view(*x.shape[:-2], operator.n_out, x.shape[-1])


class _LinearMap(torch.autograd.Function):
    """``_apply`` with its adjoint as the backward pass; differentiable any number of times."""

    @staticmethod
    def forward(ctx: Any, x: torch.Tensor, operator: _Operator, axis: int) -> torch.Tensor:
        ctx.operator, ctx.axis = operator, axis
        return _apply(x, operator, axis)

    @staticmethod
    def backward(ctx: Any, grad: torch.Tensor) -> tuple[torch.Tensor, None, None]:
        return _LinearMap.apply(grad, ctx.operator.adjoint, ctx.axis), None, None


def _along(x: torch.Tensor, n_out: int, axis: int, filter: str) -> torch.Tensor:
    if x.shape[axis] == n_out:  # the weights would be the identity
        return x
    operator = _float_operator(x.shape[axis], n_out, filter, x.dtype, x.device)
    return _LinearMap.apply(x, operator, axis)


def resize(
    x: torch.Tensor, size: tuple[int, int], filter: str = "bicubic", *, clamp: bool = False
) -> torch.Tensor:
    """Antialiased resize of the last two axes, equal to PIL's in mode "F".

    Args:
        x: float32 or float64 ``(..., H, W)``, any range; never changed in place.
        size: ``(height, width)`` of the result.
        filter: one of ``FILTERS``.
        clamp: saturate to [0, 1] after each of the two passes, where an 8-bit resize does; the
            gradient is zero where a value was cut off.

    Returns:
        ``(..., height, width)``, same dtype and device. Differentiable to ``x``, twice too, and
        exactly linear in it unless ``clamp``.
    """
    height, width = size
    if clamp:
        x = _along(x.clamp(0.0, 1.0), width, -1, filter).clamp(0.0, 1.0)
        return _along(x, height, -2, filter).clamp(0.0, 1.0)
    if width * x.shape[-2] <= height * x.shape[-1]:  # first the pass that leaves fewer pixels
        return _along(_along(x, width, -1, filter), height, -2, filter)
    return _along(_along(x, height, -2, filter), width, -1, filter)


def resize_adjoint(
    grad: torch.Tensor, size: tuple[int, int], filter: str = "bicubic"
) -> torch.Tensor:
    """The transpose of ``resize``: what its backward pass does.

    Args:
        grad: float32 or float64 ``(..., height, width)``, of the shape of a resized image.
        size: ``(H, W)`` of the image before resizing.
        filter: one of ``FILTERS``.

    Returns:
        ``(..., H, W)`` with ``<resize(x), grad> == <x, resize_adjoint(grad)>`` for every ``x``.
        Differentiable to ``grad``.
    """
    for axis, n_in in zip((-2, -1), size):
        if (n_out := grad.shape[axis]) != n_in:
            operator = _float_operator(n_in, n_out, filter, grad.dtype, grad.device)
            grad = _LinearMap.apply(grad, operator.adjoint, axis)
    return grad


def _pass_uint8(levels: torch.Tensor, n_out: int, axis: int, filter: str) -> torch.Tensor:
    if levels.shape[axis] == n_out:
        return levels
    operator = _uint8_operator(levels.shape[axis], n_out, filter, levels.device)
    total = _apply(levels.to(operator.bands[0].matrix.dtype), operator, axis)
    return total.add_(0.5).floor_().clamp_(0.0, 255.0)


class _ResizeUint8(torch.autograd.Function):
    """8-bit forward, float backward (straight-through)."""

    @staticmethod
    def forward(ctx: Any, x: torch.Tensor, size: tuple[int, int], filter: str) -> torch.Tensor:
        ctx.filter, ctx.size = filter, x.shape[-2:]
        levels = (x * 255.0).round_().clamp_(0.0, 255.0)
        levels = _pass_uint8(levels, size[1], -1, filter)
        levels = _pass_uint8(levels, size[0], -2, filter)
        return levels.to(x.dtype) / 255.0

    @staticmethod
    def backward(ctx: Any, grad: torch.Tensor) -> tuple[torch.Tensor, None, None]:
        return resize_adjoint(grad, ctx.size, ctx.filter), None, None


def resize_uint8(x: torch.Tensor, size: tuple[int, int], filter: str = "bicubic") -> torch.Tensor:
    """Resize as torch's CPU kernel resizes uint8 images, on floats that stand for them.

    Follows its fixed-point arithmetic: integer weights of a precision chosen per size, the width
    first, an 8-bit intermediate image, then the height. On other devices too, where torch itself
    rounds a float result once.

    Args:
        x: float32 or float64 ``(..., H, W)`` in [0, 1]; taken to the nearest of 256 levels, and
            anything outside to the nearest end.
        size: ``(height, width)`` of the result.
        filter: one of ``FILTERS``.

    Returns:
        ``(..., height, width)``, multiples of 1/255. The gradient to ``x`` is straight-through:
        that of the float ``resize``, without rounding or saturation.
    """
    return _ResizeUint8.apply(x, size, filter)
