"""Normalisation and the cut into patches, in one pass over memory each way."""

from __future__ import annotations

import functools
from typing import Any

import torch

__all__ = ["to_patches"]

_Layout = tuple[int, int, int]  # patch, merge, frames


def _split(image: torch.Tensor, layout: _Layout) -> torch.Tensor:
    """View of an image ``(B, C, H, W)`` as ``(B, C, gh/m, m, P, gw/m, m, P)``."""
    patch, merge, _ = layout
    batch, channels, height, width = image.shape
    unit = patch * merge
    return image.view(batch, channels, height // unit, merge, patch, width // unit, merge, patch)


@functools.lru_cache(maxsize=64)
def _per_channel(
    values: tuple[float, ...], dtype: torch.dtype, device: torch.device
) -> torch.Tensor:
    # Kept, so that a GPU is not waited for at every call; and kept out of inference_mode, because
    # what is made there can never take part in autograd
    with torch.inference_mode(False):
        return torch.tensor(values, dtype=dtype, device=device)


class _ToPatches(torch.autograd.Function):
    """``image * scale + bias`` per channel, written straight into the patch layout."""

    @staticmethod
    def forward(
        ctx: Any, image: torch.Tensor, scale: torch.Tensor, bias: torch.Tensor, layout: _Layout
    ) -> torch.Tensor:
        ctx.save_for_backward(scale)
        ctx.layout, ctx.shape = layout, image.shape
        patch, _, frames = layout
        blocks = _split(image.contiguous(), layout).permute(0, 2, 5, 3, 6, 1, 4, 7)
        blocks = blocks.unsqueeze(6).expand(-1, -1, -1, -1, -1, -1, frames, -1, -1)
        out = image.new_empty(blocks.shape)
        torch.addcmul(bias.view(-1, 1, 1, 1), blocks, scale.view(-1, 1, 1, 1), out=out)
        return out.view(len(image), -1, image.shape[1] * frames * patch * patch)

    @staticmethod
    def backward(ctx: Any, grad: torch.Tensor) -> tuple[torch.Tensor, None, None, None]:
        (scale,) = ctx.saved_tensors
        return _FromPatches.apply(grad, scale, ctx.layout, ctx.shape), None, None, None


class _FromPatches(torch.autograd.Function):
    """The adjoint of ``_ToPatches``: the repeated frame is summed."""

    @staticmethod
    def forward(
        ctx: Any, grad: torch.Tensor, scale: torch.Tensor, layout: _Layout, shape: torch.Size
    ) -> torch.Tensor:
        ctx.save_for_backward(scale)
        ctx.layout = layout
        patch, merge, frames = layout
        batch, channels, height, width = shape
        unit = patch * merge
        blocks = grad.reshape(
            batch, height // unit, width // unit, merge, merge, channels, frames, patch, patch
        ).sum(dim=6)
        image = grad.new_empty(shape)
        torch.mul(
            blocks.permute(0, 5, 1, 3, 6, 2, 4, 7),
            scale.view(1, -1, 1, 1, 1, 1, 1, 1),
            out=_split(image, layout),
        )
        return image

    @staticmethod
    def backward(ctx: Any, grad: torch.Tensor) -> tuple[torch.Tensor, None, None, None]:
        (scale,) = ctx.saved_tensors
        return _ToPatches.apply(grad, scale, torch.zeros_like(scale), ctx.layout), None, None, None


def to_patches(
    image: torch.Tensor,
    *,
    scale: tuple[float, ...],
    bias: tuple[float, ...],
    patch: int,
    merge: int,
    frames: int,
) -> torch.Tensor:
    """Normalise a batch and flatten it into patches, as Qwen's vision towers read them.

    Patches of one merged token (``merge x merge``) are neighbours; inside a patch the order is
    channel, frame, row, column; a still image fills every frame.

    Args:
        image: floating ``(B, C, H, W)`` with H and W multiples of ``patch * merge``.
        scale: C factors, applied first.
        bias: C summands.
        patch: side of a patch in pixels.
        merge: side of a merged token in patches.
        frames: length of a patch in time.

    Returns:
        ``(B, H/patch * W/patch, C * frames * patch * patch)``. Differentiable to ``image``.
    """
    return _ToPatches.apply(
        image,
        _per_channel(scale, image.dtype, image.device),
        _per_channel(bias, image.dtype, image.device),
        (patch, merge, frames),
    )
