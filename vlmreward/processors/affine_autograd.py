"""Affine maps of a batch, computed a few images at a time so that intermediates stay in cache."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch

from vlmreward.utils.autograd_context import Context

__all__ = ["AffineMap", "Map", "apply_in_chunks"]

Map = Callable[..., torch.Tensor]
"""A map of batches, image by image, with an argument ``out``: the tensor to write to, or None."""

# Values at a time on a CPU, by measurement: a few megabytes
_CHUNK = 2**20


@dataclass(frozen=True)
class AffineMap:
    """A map of batches, image by image, with its derivative; autograd records none of its steps.

    Attributes:
        shape: shape of an image's result.
        forward: the map.
        linear: its linear part (for a straight-through forward: that of the map it replaces).
        adjoint: the transpose of ``linear``.
    """

    shape: tuple[int, ...]
    forward: Map
    linear: Map
    adjoint: Map


class _Chunked(torch.autograd.Function):
    @staticmethod
    def forward(x: torch.Tensor, affine: AffineMap, chunks: int) -> torch.Tensor:
        if chunks == 1:
            return affine.forward(x)
        out = x.new_empty(len(x), *affine.shape)
        for part, rows in zip(x.tensor_split(chunks), out.tensor_split(chunks)):
            affine.forward(part, out=rows)
        return out

    @staticmethod
    def setup_context(
        ctx: Context, inputs: tuple[torch.Tensor, AffineMap, int], output: torch.Tensor
    ) -> None:
        x, ctx.affine, ctx.chunks = inputs
        ctx.shape = tuple(x.shape[1:])

    @staticmethod
    def vmap(
        info: object,
        in_dims: tuple[int, None, None],
        x: torch.Tensor,
        affine: AffineMap,
        chunks: int,
    ) -> tuple[torch.Tensor, int]:
        batches = x.movedim(in_dims[0], 0)
        out = _Chunked.apply(batches.flatten(0, 1), affine, chunks * len(batches))
        return out.unflatten(0, batches.shape[:2]), 0

    @staticmethod
    def jvp(ctx: Context, tangent: torch.Tensor, *_: object) -> torch.Tensor:
        affine = ctx.affine
        linear = AffineMap(affine.shape, affine.linear, affine.linear, affine.adjoint)
        return _Chunked.apply(tangent, linear, ctx.chunks)

    @staticmethod
    def backward(ctx: Context, grad: torch.Tensor) -> tuple[torch.Tensor, None, None]:
        affine = ctx.affine
        transposed = AffineMap(ctx.shape, affine.adjoint, affine.adjoint, affine.linear)
        return _Chunked.apply(grad, transposed, ctx.chunks), None, None


def apply_in_chunks(x: torch.Tensor, affine: AffineMap, values: int) -> torch.Tensor:
    """``affine.forward(x)`` for a batch ``x``, with the given derivative.

    Differentiable to ``x`` any number of times. On a GPU the whole batch is one chunk.

    Args:
        x: ``(B, ...)``.
        affine: the map and its derivative.
        values: number of values of one image, the larger of input and output; sets the chunk size.
    """
    chunks = 1 if x.device.type != "cpu" else min(len(x), -(-len(x) * values // _CHUNK))
    return _Chunked.apply(x, affine, chunks)
