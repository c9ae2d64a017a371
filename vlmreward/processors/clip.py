"""CLIP and LLaVA-1.5: the shorter side to a given length, then a crop from the center."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch.nn.functional as F

from vlmreward.processors.base import OutputTransform
from vlmreward.processors.fixed_size import FixedSizeProcessor
from vlmreward.utils.arguments import whole

if TYPE_CHECKING:
    from transformers.image_processing_utils import BaseImageProcessor

__all__ = ["CLIPProcessor"]


class CLIPProcessor(FixedSizeProcessor):
    """Output: ``pixel_values`` ``(B, 3, crop_height, crop_width)``."""

    hf_classes = frozenset({"CLIPImageProcessor"})
    other_models = "CLIP"
    summary = "shorter side, then a crop from the center"

    def __init__(
        self, hf: BaseImageProcessor, *, pixel_mode: str = "float", backend: str = "torchvision"
    ) -> None:
        super().__init__(hf, pixel_mode=pixel_mode, backend=backend)
        self.crop_size: tuple[int, int] | None = None
        if hf.do_center_crop:
            self.crop_size = (
                whole("crop_size.height", hf.crop_size.height),
                whole("crop_size.width", hf.crop_size.width),
            )

    def output_size(self, height: int, width: int) -> tuple[int, int]:
        """Height and width after resizing, before the crop."""
        short = self.size.shortest_edge
        if not self.constants.do_resize or not short or self.size.longest_edge:
            return super().output_size(height, width)
        longer = int(short * max(height, width) / min(height, width))
        return (short, longer) if height <= width else (longer, short)

    def layout(self, size: tuple[int, int]) -> OutputTransform:
        """Output transform: crop, with zeros around images that are too small, then normalize."""
        crop = self.crop_size or size
        normal = self.normalization(crop)
        down, across = (wanted - n for wanted, n in zip(crop, size))
        pil = self.backend == "pil"  # of an odd border it puts the larger half first
        top, left = (-(-n // 2) if pil else int(n / 2) for n in (down, across))
        put = (left, across - left, top, down - top)
        return OutputTransform(
            normal.shape,
            affine=lambda x, out=None: normal.affine(F.pad(x, put), out=out),
            linear=lambda x, out=None: normal.linear(F.pad(x, put), out=out),
            adjoint=lambda g: F.pad(g, tuple(-n for n in put)),
        )
