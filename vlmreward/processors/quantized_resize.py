"""Resizing of 8-bit images, with rounding and saturation, computed on float tensors."""

from __future__ import annotations

import functools
import importlib.metadata
from dataclasses import dataclass
from typing import Any

import torch

from vlmreward.processors._banded_operator import (
    BandedOperator,
    apply_operator,
    banded_operator,
    plane_by_plane,
)
from vlmreward.processors._resize_weights import dense, filter_weights
from vlmreward.processors.resize import ResizeFunction, check_resize, resize_adjoint
from vlmreward.utils.autograd_context import Context
from vlmreward.utils.lasting import lasting

__all__ = ["BACKENDS", "resize_uint8"]

BACKENDS = ("torchvision", "pil")
"""Libraries whose resize of 8-bit images can be reproduced."""


_LOW_BYTE = 256
"""Upper bound (exclusive) of the low part of an integer weight."""


@dataclass(frozen=True)
class _QuantizedOperator:
    """Integer weights of an 8-bit kernel, with sums that are exact in any order.

    float32 holds the sums of integers below 2**24. Where those of ``weights`` grow larger, they are
    ``256 * high + low`` of two operators in float32, or else one operator is in float64.
    """

    high: BandedOperator
    low: BandedOperator | None
    bits: int

    def apply(self, levels: torch.Tensor, axis: int) -> torch.Tensor:
        """Whole levels -> the rounded, saturated sums over one axis, in float32 or float64."""
        total = apply_operator(levels.to(self.high.dtype), self.high, axis)
        unit = 2.0**self.bits
        if self.low is not None:
            # floor((256 h + l + half) / unit) with nothing but exact steps
            total += (
                apply_operator(levels.to(self.low.dtype), self.low, axis)
                .mul_(1 / _LOW_BYTE)
                .floor_()
            )
            unit /= _LOW_BYTE
        return total.add_(unit / 2).mul_(1 / unit).floor_().clamp_(0.0, 255.0)


def _largest_sum(weights: torch.Tensor) -> float:
    return 255 * weights.abs().sum(dim=1).max().item()


@functools.lru_cache(maxsize=64)
def _quantized_operator(
    n_in: int, n_out: int, filter: str, device: torch.device, backend: str
) -> _QuantizedOperator:
    with lasting():
        weights, inputs = filter_weights(n_in, n_out, filter)
        bits = 22  # PIL's
        if backend == "torchvision":  # as many as let the largest weight fit into int16
            bits = 0
            while bits < 22 and int(0.5 + weights.max().item() * 2 ** (bits + 1)) < 2**15:
                bits += 1
        whole = weights.sign() * (weights.abs() * 2**bits + 0.5).floor()
        whole = dense(whole, inputs, n_in)
        if _largest_sum(whole) + 2 ** (bits - 1) < 2**24:
            return _QuantizedOperator(banded_operator(whole, torch.float32, device), None, bits)
        high = (whole / _LOW_BYTE).round()
        low = whole - _LOW_BYTE * high
        if max(_largest_sum(high), _largest_sum(low)) >= 2**23:
            return _QuantizedOperator(banded_operator(whole, torch.float64, device), None, bits)
        return _QuantizedOperator(
            banded_operator(high, torch.float32, device),
            banded_operator(low, torch.float32, device),
            bits,
        )


def _levels(x: torch.Tensor, out: torch.Tensor | None = None) -> torch.Tensor:
    return torch.mul(x, 255.0, out=out).round_().clamp_(0.0, 255.0)


@functools.cache
def _pillow() -> int:
    """Major version of the Pillow that is installed, of the newest known one where none is."""
    try:
        return int(importlib.metadata.version("pillow").split(".")[0])
    except importlib.metadata.PackageNotFoundError:
        return 13


def _height_first(before: tuple[int, int], size: tuple[int, int], backend: str) -> bool:
    """True if an 8-bit resize begins with the height: from Pillow 13 on, where that saves more."""
    saved = before[0] - size[0]
    return backend == "pil" and _pillow() >= 13 and saved > max(0, 2 * (before[1] - size[1]))


@torch.library.custom_op("vlmreward::resize_uint8", mutates_args=())
def _resize_uint8(
    x: torch.Tensor, height: int, width: int, filter: str, backend: str
) -> torch.Tensor:
    """8-bit forward; its backward is that of the float resize (straight-through)."""
    size, before = (height, width), (x.shape[-2], x.shape[-1])
    order = (-2, -1) if _height_first(before, size, backend) else (-1, -2)

    operators = {
        axis: _quantized_operator(before[axis], size[axis], filter, x.device, backend)
        for axis in order
        if before[axis] != size[axis]
    }

    def passes(planes: torch.Tensor, result: torch.Tensor) -> None:
        levels = _levels(planes, out=None if operators else result)
        for axis, operator in operators.items():
            levels = operator.apply(levels, axis)
        torch.div(levels.to(result.dtype), 255.0, out=result)

    return plane_by_plane(x, size, passes, None)


@_resize_uint8.register_fake
def _(x: torch.Tensor, height: int, width: int, filter: str, backend: str) -> torch.Tensor:
    return x.new_empty(*x.shape[:-2], height, width)


def _setup_context(ctx: Context, inputs: tuple[Any, ...], output: torch.Tensor) -> None:
    ctx.size, ctx.filter = inputs[0].shape[-2:], inputs[3]


def _straight_through(ctx: Context, grad: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
    return resize_adjoint(grad, ctx.size, ctx.filter), None, None, None, None


_resize_uint8.register_autograd(_straight_through, setup_context=_setup_context)


def resize_uint8(
    x: torch.Tensor,
    size: tuple[int, int],
    filter: str = "bicubic",
    *,
    backend: str = "torchvision",
) -> torch.Tensor:
    """Resize as uint8 images are resized, on float tensors of their values.

    Follows the fixed-point arithmetic of torch's CPU kernel or of the installed PIL: integer
    weights (of a precision chosen per size, or of 22 bits), the width first (in Pillow 13 sometimes
    the height), an 8-bit intermediate image, then the other side. On other devices too, where torch
    itself rounds a float result once.

    Args:
        x: float32 or float64 ``(..., H, W)`` in [0, 1]; taken to the nearest of 256 levels, and
            anything outside to the nearest end.
        size: ``(height, width)`` of the result.
        filter: one of ``FILTERS``.
        backend: one of ``BACKENDS``.

    Returns:
        ``(..., height, width)``, multiples of 1/255. The gradient to ``x`` is straight-through:
        that of the float ``resize``, without rounding or saturation.

    Raises:
        TypeError, ValueError: as ``resize``, or an unknown ``backend``.
    """
    check_resize(x, size, filter)
    if backend not in BACKENDS:
        raise ValueError(f"backend is {backend!r}; expected one of {BACKENDS}")
    if torch.compiler.is_compiling():
        return _resize_uint8(x, *size, filter, backend)
    return ResizeFunction.apply(
        x, size, filter, False, lambda images: _resize_uint8(images, *size, filter, backend)
    )
