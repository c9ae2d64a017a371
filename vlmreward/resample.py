"""Antialiased image resizing as an exact linear map, by PIL's definition of the filters.

Resizing an image is two matrix products, ``A_h @ x @ A_w.T``. The weights are computed in float64
and stored as a few dense bands (each band: some neighbouring outputs and the inputs that they see),
so that the work stays linear in the size of the image, the backward pass is the same code with the
transposed bands, and nothing is accumulated with atomics: gradients are bitwise repeatable.
"""

from __future__ import annotations

import contextlib
import functools
import importlib.metadata
import math
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch

from vlmreward.lasting import lasting

__all__ = [
    "FILTERS",
    "REFERENCES",
    "resize",
    "resize_adjoint",
    "resize_into",
    "resize_uint8",
    "weight_matrix",
]


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

REFERENCES = ("torchvision", "pil")
"""Whose resize of 8-bit images is followed."""


def _weights(n_in: int, n_out: int, filter: str) -> tuple[torch.Tensor, torch.Tensor]:
    """Weights ``(n_out, K)`` and the inputs that they belong to; 0 where there are fewer than K."""
    if filter not in FILTERS:
        raise ValueError(f"filter is {filter!r}; expected one of {sorted(FILTERS)}")
    if n_in < 1 or n_out < 1:
        raise ValueError(f"cannot resize {n_in} to {n_out} pixels; expected at least 1 of each")
    kernel, half_width = FILTERS[filter]
    scale = n_in / n_out
    stretch = max(scale, 1.0)  # when reducing, the filter widens: this is the antialiasing
    support = half_width * stretch
    centre = (torch.arange(n_out, dtype=torch.float64)[:, None] + 0.5) * scale
    first = (centre - support + 0.5).to(torch.int64).clamp(min=0)
    last = (centre + support + 0.5).to(torch.int64).clamp(max=n_in)
    inputs = first + torch.arange(int((last - first).max()))
    weights = kernel((inputs - centre + 0.5) * (1.0 / stretch))
    weights = torch.where(inputs < last, weights, 0.0)
    return weights / weights.sum(dim=1, keepdim=True), inputs.clamp(max=n_in - 1)


def _dense(weights: torch.Tensor, inputs: torch.Tensor, n_in: int) -> torch.Tensor:
    return weights.new_zeros(len(weights), n_in).scatter_add_(1, inputs, weights)


def weight_matrix(n_in: int, n_out: int, filter: str = "bicubic") -> torch.Tensor:
    """Weights of PIL's antialiased resize of one axis (``precompute_coeffs`` in PIL's Resample.c).

    Args:
        n_in: length of the axis before resizing.
        n_out: length after resizing.
        filter: one of ``FILTERS``.

    Returns:
        float64 ``(n_out, n_in)`` on the CPU; every row sums to 1.

    Examples:
        >>> weight_matrix(4, 2, "bilinear")
        tensor([[0.4286, 0.4286, 0.1429, 0.0000],
                [0.0000, 0.1429, 0.4286, 0.4286]], dtype=torch.float64)
    """
    return _dense(*_weights(n_in, n_out, filter), n_in)


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
    def dtype(self) -> torch.dtype:
        return self.bands[0].matrix.dtype

    @property
    def adjoint(self) -> _Operator:
        return _Operator(self.n_out, self.n_in, self.adjoint_bands, self.bands)


def _band_length(n_in: int, n_out: int, device: torch.device) -> int:
    """Outputs per band, by measurement: short bands do less useless work, long ones fewer calls.

    An output more widens a band by ``n_in / n_out`` inputs. A GPU does the arithmetic in no time
    and pays for every call.
    """
    if device.type != "cpu":
        return 512
    usual = 32 if max(n_in, n_out) <= 512 else 64
    return max(16, round(usual * math.sqrt(n_out / n_in) / 16) * 16)


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
    weights = weights.to(dtype)

    def moved(matrix: torch.Tensor) -> tuple[_Band, ...]:
        length = _band_length(matrix.shape[1], matrix.shape[0], device)
        return tuple(
            _Band(b.out_from, b.out_to, b.in_from, b.in_to, b.matrix.to(device))
            for b in _bands(matrix, length)
        )

    return _Operator(weights.shape[1], weights.shape[0], moved(weights), moved(weights.T))


@functools.lru_cache(maxsize=64)
def _float_operator(
    n_in: int, n_out: int, filter: str, dtype: torch.dtype, device: torch.device
) -> _Operator:
    with lasting():
        return _operator(weight_matrix(n_in, n_out, filter), dtype, device)


_LOW = 256
"""What the low part of an integer weight is less than."""


@dataclass(frozen=True)
class _Fixed:
    """Integer weights of an 8-bit kernel, with sums that are exact in any order.

    float32 holds the sums of integers below 2**24. Where those of ``weights`` grow larger, they are
    ``256 * high + low`` of two operators in float32, or else one operator is in float64.
    """

    high: _Operator
    low: _Operator | None
    bits: int

    def apply(self, levels: torch.Tensor, axis: int) -> torch.Tensor:
        """Whole levels -> the rounded, saturated sums over one axis, in float32 or float64."""
        total = _apply(levels.to(self.high.dtype), self.high, axis)
        unit = 2.0**self.bits
        if self.low is not None:
            # floor((256 h + l + half) / unit) with nothing but exact steps
            total += _apply(levels.to(self.low.dtype), self.low, axis).mul_(1 / _LOW).floor_()
            unit /= _LOW
        return total.add_(unit / 2).mul_(1 / unit).floor_().clamp_(0.0, 255.0)


def _largest_sum(weights: torch.Tensor) -> float:
    return 255 * weights.abs().sum(dim=1).max().item()


@functools.lru_cache(maxsize=64)
def _fixed(n_in: int, n_out: int, filter: str, device: torch.device, reference: str) -> _Fixed:
    with lasting():
        weights, inputs = _weights(n_in, n_out, filter)
        bits = 22  # PIL's
        if reference == "torchvision":  # as many as let the largest weight fit into int16
            bits = 0
            while bits < 22 and int(0.5 + weights.max().item() * 2 ** (bits + 1)) < 2**15:
                bits += 1
        whole = weights.sign() * (weights.abs() * 2**bits + 0.5).floor()
        whole = _dense(whole, inputs, n_in)
        if _largest_sum(whole) + 2 ** (bits - 1) < 2**24:
            return _Fixed(_operator(whole, torch.float32, device), None, bits)
        high = (whole / _LOW).round()
        low = whole - _LOW * high
        if max(_largest_sum(high), _largest_sum(low)) >= 2**23:
            return _Fixed(_operator(whole, torch.float64, device), None, bits)
        return _Fixed(
            _operator(high, torch.float32, device), _operator(low, torch.float32, device), bits
        )


class _Shortcuts:
    """TF32 or bfloat16 in products of float32, which is one setting of a process, and off within.

    Several threads may be within: the first one switches it off and the last one on again.

    Args:
        settings: of the products of a kind of device, with ``fp32_precision``.
    """

    def __init__(self, settings: Any) -> None:
        self.settings = settings
        self.lock = threading.Lock()
        self.within = 0
        self.chosen = ""

    @contextlib.contextmanager
    def off(self) -> Iterator[None]:
        with self.lock:
            counted = self.within > 0 or self.settings.fp32_precision not in ("none", "ieee")
            if counted and not self.within:
                self.chosen, self.settings.fp32_precision = self.settings.fp32_precision, "ieee"
            self.within += counted
        try:
            yield
        finally:
            with self.lock:
                self.within -= counted
                if counted and not self.within:
                    self.settings.fp32_precision = self.chosen


_BACKENDS: Any = torch.backends
_OF_CUDA, _OF_OTHERS = _Shortcuts(_BACKENDS.cuda.matmul), _Shortcuts(_BACKENDS.mkldnn.matmul)


@contextlib.contextmanager
def _full_precision(device: torch.device) -> Iterator[None]:
    """Keep autocast and TF32 or bfloat16 shortcuts out of the resampling products."""
    shortcuts = _OF_CUDA if device.type == "cuda" else _OF_OTHERS
    with shortcuts.off(), torch.autocast(device.type, enabled=False):
        yield


def _apply(
    x: torch.Tensor, operator: _Operator, axis: int, out: torch.Tensor | None = None
) -> torch.Tensor:
    """The operator along the last (-1) or next to last (-2) axis of planes ``(N, H, W)``."""
    if out is None:
        shape = list(x.shape)
        shape[axis] = operator.n_out
        out = x.new_empty(shape)
    with _full_precision(x.device):
        for b in operator.bands:
            if axis == -1:
                seen = x.reshape(-1, operator.n_in)[:, b.in_from : b.in_to]
                rows = out.view(-1, operator.n_out)[:, b.out_from : b.out_to]
                torch.mm(seen, b.matrix.T, out=rows)
            elif len(x) == 1:
                torch.mm(b.matrix, x[0, b.in_from : b.in_to], out=out[0, b.out_from : b.out_to])
            else:  # bmm is slow with an `out` that is not in one piece
                matrix = b.matrix.expand(len(x), -1, -1)
                out[:, b.out_from : b.out_to] = torch.bmm(matrix, x[:, b.in_from : b.in_to])
    return out


# Values at a time on a CPU, by measurement: what is between the two passes stays in the cache, and
# a large image needs little memory beside its result
_PART = 2**20

Passes = Callable[[torch.Tensor, torch.Tensor], Any]
"""Both passes of a resize, from planes into planes that are there."""


def _plane_by_plane(
    x: torch.Tensor, size: tuple[int, int], passes: Passes, out: torch.Tensor | None
) -> torch.Tensor:
    """``passes`` for some planes of ``(..., H, W)`` at a time; a GPU gets all at once."""
    if out is None:
        out = x.new_empty(*x.shape[:-2], *size)
    planes, results = x.reshape(-1, *x.shape[-2:]), out.view(-1, *size)
    largest = max(x.shape[-2] * x.shape[-1], size[0] * size[1])
    step = max(1, _PART // largest) if x.device.type == "cpu" else len(planes)
    for part, result in zip(planes.split(step), results.split(step)):
        passes(part, result)
    return out


def resize_into(
    x: torch.Tensor,
    size: tuple[int, int],
    filter: str,
    *,
    adjoint: bool = False,
    out: torch.Tensor | None = None,
) -> torch.Tensor:
    """``resize`` or, with ``adjoint``, ``resize_adjoint`` without autograd.

    Args:
        x: float32 or float64 ``(..., H, W)``.
        size: ``(height, width)`` of the result.
        filter: one of ``FILTERS``.
        adjoint: apply the transpose of the map from ``size`` to ``(H, W)``.
        out: contiguous ``(..., height, width)`` to write to.

    Returns:
        ``out``, or a new tensor; ``x`` itself where there is nothing to do and no ``out``.
    """
    before = (x.shape[-2], x.shape[-1])
    # first the pass that leaves fewer pixels; none where the weights would be the identity
    order = (-1, -2) if size[1] * before[0] <= size[0] * before[1] else (-2, -1)
    axes = [axis for axis in order if before[axis] != size[axis]]
    if not axes:
        return x if out is None else out.copy_(x)
    operators = []
    for axis in axes:
        n_in, n_out = (size, before) if adjoint else (before, size)
        operator = _float_operator(n_in[axis], n_out[axis], filter, x.dtype, x.device)
        operators.append(operator.adjoint if adjoint else operator)

    def passes(planes: torch.Tensor, result: torch.Tensor) -> None:
        if len(axes) == 2:
            planes = _apply(planes, operators[0], axes[0])
        _apply(planes, operators[-1], axes[-1], result)

    return _plane_by_plane(x, size, passes, out)


# An operator of torch's own kind, because torch.compile takes those into its graph as they are
@torch.library.custom_op("vlmreward::resize", mutates_args=())
def _resize(x: torch.Tensor, height: int, width: int, filter: str, adjoint: bool) -> torch.Tensor:
    """``resize_into``, for autograd and compilers; never where there is nothing to do."""
    return resize_into(x, (height, width), filter, adjoint=adjoint)


@_resize.register_fake
def _(x: torch.Tensor, height: int, width: int, filter: str, adjoint: bool) -> torch.Tensor:
    return x.new_empty(*x.shape[:-2], height, width)


def _keep(ctx: Any, inputs: tuple[Any, ...], output: torch.Tensor) -> None:
    ctx.size = inputs[0].shape[-2:]
    ctx.filter, ctx.adjoint = inputs[3:]


def _transposed(ctx: Any, grad: torch.Tensor) -> tuple[Any, ...]:
    return _resize(grad, *ctx.size, ctx.filter, not ctx.adjoint), None, None, None, None


_resize.register_autograd(_transposed, setup_context=_keep)


class _Derived(torch.autograd.Function):
    """A resize with the derivatives of the float one, in both modes of differentiation.

    An operator's own derivative serves compilers, and is neither seen by the transforms of
    ``torch.func`` nor, which nobody would notice, by forward mode: its tangents would be zeros.
    """

    @staticmethod
    def forward(
        x: torch.Tensor,
        size: tuple[int, int],
        filter: str,
        adjoint: bool,
        reference: str | None,
    ) -> torch.Tensor:
        if reference is None:
            return _resize(x, *size, filter, adjoint)
        return _resize_uint8(x, *size, filter, reference)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: torch.Tensor) -> None:
        x, ctx.size, ctx.filter, ctx.adjoint, _ = inputs
        ctx.before = (x.shape[-2], x.shape[-1])

    @staticmethod
    def vmap(
        info: Any, in_dims: tuple[Any, ...], x: torch.Tensor, *options: Any
    ) -> tuple[torch.Tensor, int]:
        return _Derived.apply(x.movedim(in_dims[0], 0), *options), 0

    @staticmethod
    def jvp(ctx: Any, tangent: torch.Tensor, *_: Any) -> torch.Tensor:
        return _unless_there(tangent, ctx.size, ctx.filter, ctx.adjoint)

    @staticmethod
    def backward(ctx: Any, grad: torch.Tensor) -> tuple[Any, ...]:
        grad = _unless_there(grad, ctx.before, ctx.filter, not ctx.adjoint)
        return grad, None, None, None, None


def _unless_there(
    x: torch.Tensor, size: tuple[int, int], filter: str, adjoint: bool
) -> torch.Tensor:
    if tuple(x.shape[-2:]) == tuple(size):
        return x
    if torch.compiler.is_compiling():
        return _resize(x, *size, filter, adjoint)
    return _Derived.apply(x, size, filter, adjoint, None)


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

    Raises:
        TypeError: another dtype, or a size that is not two whole numbers.
        ValueError: a side below 1, or an unknown filter.
    """
    _check(x, size, filter)
    height, width = size
    if clamp:
        between = (x.shape[-2], width)
        x = _unless_there(x.clamp(0.0, 1.0), between, filter, False).clamp(0.0, 1.0)
        return _unless_there(x, (height, width), filter, False).clamp(0.0, 1.0)
    return _unless_there(x, (height, width), filter, False)


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
    return _unless_there(grad, size, filter, True)


def _check(x: Any, size: Any, filter: str) -> None:
    """Refuse what the kernels would take for something else."""
    if torch.compiler.is_compiling():
        return
    if not isinstance(x, torch.Tensor) or x.dtype not in (torch.float32, torch.float64):
        raise TypeError(
            f"images to resize are {x.dtype if isinstance(x, torch.Tensor) else type(x).__name__}; "
            "expected a tensor of float32 or float64"
        )
    if len(size) != 2 or not all(isinstance(side, (int, torch.SymInt)) for side in size):
        raise TypeError(f"size is {tuple(size)}; expected two whole numbers (height, width)")
    if min(size) < 1 or min(x.shape[-2:]) < 1:
        raise ValueError(
            f"cannot resize {tuple(x.shape[-2:])} to {tuple(size)} pixels; expected at least 1 of "
            "each"
        )
    if filter not in FILTERS:
        raise ValueError(f"filter is {filter!r}; expected one of {sorted(FILTERS)}")


def _levels(x: torch.Tensor, out: torch.Tensor | None = None) -> torch.Tensor:
    return torch.mul(x, 255.0, out=out).round_().clamp_(0.0, 255.0)


@functools.cache
def _pillow() -> int:
    """Major version of the Pillow that is installed, of the newest known one where none is."""
    try:
        return int(importlib.metadata.version("pillow").split(".")[0])
    except importlib.metadata.PackageNotFoundError:
        return 13


def _height_first(before: tuple[int, int], size: tuple[int, int], reference: str) -> bool:
    """Whether an 8-bit resize begins with the height: from Pillow 13 on, where that saves more."""
    saved = before[0] - size[0]
    return reference == "pil" and _pillow() >= 13 and saved > max(0, 2 * (before[1] - size[1]))


@torch.library.custom_op("vlmreward::resize_uint8", mutates_args=())
def _resize_uint8(
    x: torch.Tensor, height: int, width: int, filter: str, reference: str
) -> torch.Tensor:
    """8-bit forward; its backward is that of the float resize (straight-through)."""
    size, before = (height, width), (x.shape[-2], x.shape[-1])
    order = (-2, -1) if _height_first(before, size, reference) else (-1, -2)

    operators = {
        axis: _fixed(before[axis], size[axis], filter, x.device, reference)
        for axis in order
        if before[axis] != size[axis]
    }

    def passes(planes: torch.Tensor, result: torch.Tensor) -> None:
        levels = _levels(planes, out=None if operators else result)
        for axis, operator in operators.items():
            levels = operator.apply(levels, axis)
        torch.div(levels.to(result.dtype), 255.0, out=result)

    return _plane_by_plane(x, size, passes, None)


@_resize_uint8.register_fake
def _(x: torch.Tensor, height: int, width: int, filter: str, reference: str) -> torch.Tensor:
    return x.new_empty(*x.shape[:-2], height, width)


def _keep_size(ctx: Any, inputs: tuple[Any, ...], output: torch.Tensor) -> None:
    ctx.size, ctx.filter = inputs[0].shape[-2:], inputs[3]


def _straight_through(ctx: Any, grad: torch.Tensor) -> tuple[Any, ...]:
    return resize_adjoint(grad, ctx.size, ctx.filter), None, None, None, None


_resize_uint8.register_autograd(_straight_through, setup_context=_keep_size)


def resize_uint8(
    x: torch.Tensor,
    size: tuple[int, int],
    filter: str = "bicubic",
    *,
    reference: str = "torchvision",
) -> torch.Tensor:
    """Resize as uint8 images are resized, on floats that stand for them.

    Follows the fixed-point arithmetic of torch's CPU kernel or of the installed PIL: integer
    weights (of a precision chosen per size, or of 22 bits), the width first (in Pillow 13 sometimes
    the height), an 8-bit intermediate image, then the other side. On other devices too, where torch
    itself rounds a float result once.

    Args:
        x: float32 or float64 ``(..., H, W)`` in [0, 1]; taken to the nearest of 256 levels, and
            anything outside to the nearest end.
        size: ``(height, width)`` of the result.
        filter: one of ``FILTERS``.
        reference: one of ``REFERENCES``.

    Returns:
        ``(..., height, width)``, multiples of 1/255. The gradient to ``x`` is straight-through:
        that of the float ``resize``, without rounding or saturation.

    Raises:
        TypeError, ValueError: as ``resize``, or an unknown ``reference``.
    """
    _check(x, size, filter)
    if reference not in REFERENCES:
        raise ValueError(f"reference is {reference!r}; expected one of {REFERENCES}")
    if torch.compiler.is_compiling():
        return _resize_uint8(x, *size, filter, reference)
    return _Derived.apply(x, size, filter, False, reference)
