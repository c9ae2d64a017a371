"""Work through a batch a few images at a time, so that what is between stays in the cache."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch

__all__ = ["AffineMap", "apply_in_chunks"]

_Map = Callable[[torch.Tensor], torch.Tensor]

# Values at a time on a CPU, by measurement: a few megabytes
_CHUNK = 2**20


@dataclass(frozen=True)
class AffineMap:
    """A map of batches, image by image, with its derivative.

    Attributes:
        forward: the map.
        linear: its linear part (for a straight-through forward: that of what it stands for).
        adjoint: the transpose of ``linear``.
    """

    forward: _Map
    linear: _Map
    adjoint: _Map


class _Chunked(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: torch.Tensor, affine: AffineMap, chunks: int) -> torch.Tensor:
        ctx.affine, ctx.chunks = affine, chunks
        parts = x.tensor_split(chunks)
        first = affine.forward(parts[0])
        if len(parts) == 1:
            return first
        out = first.new_empty(len(x), *first.shape[1:])
        rows = out.tensor_split(chunks)
        rows[0].copy_(first)
        for part, row in zip(parts[1:], rows[1:]):
            row.copy_(affine.forward(part))
        return out

    @staticmethod
    def backward(ctx: Any, grad: torch.Tensor) -> tuple[torch.Tensor, None, None]:
        affine = ctx.affine
        transposed = AffineMap(affine.adjoint, affine.adjoint, affine.linear)
        return _Chunked.apply(grad, transposed, ctx.chunks), None, None


def apply_in_chunks(x: torch.Tensor, affine: AffineMap) -> torch.Tensor:
    """``affine.forward(x)`` for a batch ``x``, with the given derivative.

    Differentiable to ``x`` any number of times. A GPU, which has no use for it, gets all at once.
    """
    chunks = 1 if x.device.type != "cpu" else min(len(x), -(-x.numel() // _CHUNK))
    return _Chunked.apply(x, affine, chunks)
