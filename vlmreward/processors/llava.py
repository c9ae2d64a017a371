"""LLaVA's own processor: CLIP's, optionally after padding images to squares."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from vlmreward.images.layout import to_compute_dtype
from vlmreward.processors.base import per_channel
from vlmreward.processors.clip import CLIPProcessor

if TYPE_CHECKING:
    from transformers.image_processing_utils import BaseImageProcessor

__all__ = ["LlavaProcessor"]


class LlavaProcessor(CLIPProcessor):
    """CLIP's processor, with ``do_pad`` after a border of the mean color, rounded down as by HF."""

    hf_classes = frozenset({"LlavaImageProcessor"})
    other_models = "LLaVA's own"
    summary = "like CLIP's, after a square border"

    def __init__(
        self, hf: BaseImageProcessor, *, pixel_mode: str = "float", backend: str = "torchvision"
    ) -> None:
        super().__init__(hf, pixel_mode=pixel_mode, backend=backend)
        self.border = tuple(int(m * 255) / 255 for m in hf.image_mean) if hf.do_pad else None

    def batch(self, images: torch.Tensor) -> torch.Tensor:
        """``(B, 3, H, W)`` of one size -> ``(B, 3, crop_height, crop_width)``."""
        height, width = images.shape[-2:]
        if self.border and height != width:
            images = to_compute_dtype(images)
            side = max(height, width)
            top, left = (side - height) // 2, (side - width) // 2
            color = per_channel(self.border, images.dtype, images.device)
            square = color.expand(len(images), -1, side, side).clone()
            square[..., top : top + height, left : left + width] = images
            images = square
        return super().batch(images)
