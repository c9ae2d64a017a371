"""Normalization and the cut into patches, with a backward pass as cheap as the forward."""

from __future__ import annotations

import functools

import torch

from vlmreward.processors.base import per_channel

__all__ = ["from_patches", "to_patches"]


def _split(image: torch.Tensor, patch: int, merge: int) -> torch.Tensor:
    """View of an image ``(B, C, H, W)`` as ``(B, C, H/mP, m, P, W/mP, m, P)``."""
    batch, channels, height, width = image.shape
    unit = patch * merge
    return image.view(batch, channels, height // unit, merge, patch, width // unit, merge, patch)


def to_patches(
    image: torch.Tensor,
    *,
    scale: tuple[float, ...],
    bias: tuple[float, ...],
    patch: int,
    merge: int,
    frames: int,
    out: torch.Tensor | None = None,
) -> torch.Tensor:
    """Normalize a batch and flatten it into patches, as Qwen's vision towers read them.

    Patches of one merged token (``merge x merge``) are neighbors; inside a patch the order is
    channel, frame, row, column; a still image fills every frame.

    Args:
        image: floating ``(B, C, H, W)`` with H and W multiples of ``patch * merge``.
        scale: C factors, applied first.
        bias: C summands.
        patch: side of a patch in pixels.
        merge: side of a merged token in patches.
        frames: length of a patch in time.
        out: contiguous tensor that the result is written to, without autograd; None for a new
            tensor.

    Returns:
        ``(B, H/patch * W/patch, C * frames * patch * patch)``. Differentiable to ``image``.
    """
    factor = per_channel(scale, image.dtype, image.device)
    summand = per_channel(bias, image.dtype, image.device)
    # The arithmetic first, on whole rows; in the strided copy it would be three times slower
    normal = torch.addcmul(summand, image.contiguous(), factor)
    blocks = _split(normal, patch, merge).permute(0, 2, 5, 3, 6, 1, 4, 7).unsqueeze(6)
    blocks = blocks.expand(-1, -1, -1, -1, -1, -1, frames, -1, -1)
    if out is not None:
        out.view(blocks.shape).copy_(blocks)
        return out
    return blocks.reshape(len(image), -1, blocks.shape[5:].numel())


def from_patches(
    grad: torch.Tensor,
    shape: tuple[int, int, int],
    *,
    patch: int,
    merge: int,
    frames: int,
) -> torch.Tensor:
    """The transpose of the cut of ``to_patches``: the frames of a patch are summed.

    Args:
        grad: ``(B, H/patch * W/patch, C * frames * patch * patch)``.
        shape: ``(C, H, W)``.
        patch: side of a patch in pixels.
        merge: side of a merged token in patches.
        frames: length of a patch in time.

    Returns:
        ``(B, C, H, W)``; a new tensor.
    """
    channels, height, width = shape
    unit = patch * merge
    grid = (-1, height // unit, width // unit, merge, merge, channels)
    # patches in one piece while they are added: it is twice as fast
    parts = grad.reshape(*grid, frames, patch * patch).unbind(6)
    blocks = functools.reduce(torch.add, parts).view(*grid, patch, patch)
    image = grad.new_empty(len(grad), *shape)
    _split(image, patch, merge).copy_(blocks.permute(0, 5, 1, 3, 6, 2, 4, 7))
    return image
