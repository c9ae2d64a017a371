"""Antialiased image resizing as an exact linear map, by PIL's definition of the filters.

Resizing an image is two matrix products, ``A_h @ x @ A_w.T``. The weights are computed in float64
and stored as a few dense bands (each band: some neighboring outputs and the inputs that they use).
The work is linear in the size of the image, the backward pass is the same code with the transposed
bands, and no sum uses atomic operations, so that gradients are bitwise repeatable.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any

import torch

from vlmreward.processors._banded_operator import (
    BandedOperator,
    apply_operator,
    banded_operator,
    plane_by_plane,
)
from vlmreward.processors._resize_weights import FILTERS, weight_matrix
from vlmreward.utils.autograd_context import Context
from vlmreward.utils.lasting import lasting

__all__ = ["resize", "resize_adjoint", "resize_into"]


@functools.lru_cache(maxsize=64)
def _float_operator(
    n_in: int, n_out: int, filter: str, dtype: torch.dtype, device: torch.device
) -> BandedOperator:
    with lasting():
        return banded_operator(weight_matrix(n_in, n_out, filter), dtype, device)


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
            planes = apply_operator(planes, operators[0], axes[0])
        apply_operator(planes, operators[-1], axes[-1], result)

    return plane_by_plane(x, size, passes, out)


# An operator of torch's own kind, because torch.compile takes those into its graph as they are
@torch.library.custom_op("vlmreward::resize", mutates_args=())
def _resize(x: torch.Tensor, height: int, width: int, filter: str, adjoint: bool) -> torch.Tensor:
    """``resize_into``, for autograd and compilers; never where there is nothing to do."""
    return resize_into(x, (height, width), filter, adjoint=adjoint)


@_resize.register_fake
def _(x: torch.Tensor, height: int, width: int, filter: str, adjoint: bool) -> torch.Tensor:
    return x.new_empty(*x.shape[:-2], height, width)


def _setup_context(ctx: Context, inputs: tuple[Any, ...], output: torch.Tensor) -> None:
    ctx.size = inputs[0].shape[-2:]
    ctx.filter, ctx.adjoint = inputs[3:]


def _transposed(ctx: Context, grad: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
    return _resize(grad, *ctx.size, ctx.filter, not ctx.adjoint), None, None, None, None


_resize.register_autograd(_transposed, setup_context=_setup_context)


class ResizeFunction(torch.autograd.Function):
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
        instead: Callable[[torch.Tensor], torch.Tensor] | None,
    ) -> torch.Tensor:
        return _resize(x, *size, filter, adjoint) if instead is None else instead(x)

    @staticmethod
    def setup_context(ctx: Context, inputs: tuple[Any, ...], output: torch.Tensor) -> None:
        x, ctx.size, ctx.filter, ctx.adjoint, _ = inputs
        ctx.before = (x.shape[-2], x.shape[-1])

    @staticmethod
    def vmap(
        info: object, in_dims: tuple[int, ...], x: torch.Tensor, *options: object
    ) -> tuple[torch.Tensor, int]:
        return ResizeFunction.apply(x.movedim(in_dims[0], 0), *options), 0

    @staticmethod
    def jvp(ctx: Context, tangent: torch.Tensor, *_: object) -> torch.Tensor:
        return _resize_or_identity(tangent, ctx.size, ctx.filter, adjoint=ctx.adjoint)

    @staticmethod
    def backward(ctx: Context, grad: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        grad = _resize_or_identity(grad, ctx.before, ctx.filter, adjoint=not ctx.adjoint)
        return grad, None, None, None, None


def _resize_or_identity(
    x: torch.Tensor, size: tuple[int, int], filter: str, *, adjoint: bool = False
) -> torch.Tensor:
    if tuple(x.shape[-2:]) == tuple(size):
        return x
    if torch.compiler.is_compiling():
        return _resize(x, *size, filter, adjoint)
    return ResizeFunction.apply(x, size, filter, adjoint, None)


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
    check_resize(x, size, filter)
    height, width = size
    if clamp:
        between = (x.shape[-2], width)
        x = _resize_or_identity(x.clamp(0.0, 1.0), between, filter).clamp(0.0, 1.0)
        return _resize_or_identity(x, (height, width), filter).clamp(0.0, 1.0)
    return _resize_or_identity(x, (height, width), filter)


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
    return _resize_or_identity(grad, size, filter, adjoint=True)


def check_resize(x: torch.Tensor, size: Sequence[int], filter: str) -> None:
    """Refuse images, sizes and filters that the kernels do not support."""
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
