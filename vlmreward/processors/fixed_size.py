"""Families that resize every image to one size: SigLIP (PaliGemma 1 and 2), IDEFICS-1."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch

from vlmreward.processors.base import ImageProcessor, OutputTransform

if TYPE_CHECKING:
    from transformers.image_processing_utils import BaseImageProcessor

__all__ = ["FixedSizeProcessor"]


class FixedSizeProcessor(ImageProcessor):
    """Resize and normalize. Output: ``pixel_values`` ``(B, 3, height, width)``."""

    hf_classes = frozenset({"SiglipImageProcessor", "IdeficsImageProcessor"})
    other_models = "SigLIP"
    summary = "one size"

    def __init__(
        self, hf: BaseImageProcessor, *, pixel_mode: str = "float", backend: str = "torchvision"
    ) -> None:
        super().__init__(hf, pixel_mode=pixel_mode, backend=backend)
        self.size = hf.size

    def output_size(self, height: int, width: int) -> tuple[int, int]:
        """Height and width after resizing, for an image of this size."""
        if not self.constants.do_resize:
            return height, width
        if not (self.size.height and self.size.width):
            raise ValueError(
                f"the image processor's size is {self.size}; expected a height and a width"
            )
        return self.size.height, self.size.width

    def layout(self, size: tuple[int, int]) -> OutputTransform:
        """The map of images that were resized to ``size``."""
        return self.normalization(size)

    def batch(self, images: torch.Tensor) -> torch.Tensor:
        """``(B, 3, H, W)`` of one size -> ``(B, 3, height, width)``."""
        size = self.output_size(*images.shape[-2:])
        return self.resize_and_transform(images, size, self.layout(size))

    def process(self, images: torch.Tensor | Sequence[torch.Tensor]) -> dict[str, torch.Tensor]:
        """See ``ImageProcessor``."""
        if isinstance(images, torch.Tensor):
            return {"pixel_values": self.batch(images)}
        values = self.by_size(images, self.batch)
        if len({v.shape for v in values}) > 1:
            raise ValueError(
                f"images become {sorted({tuple(v.shape[1:]) for v in values})}, which make no "
                "batch; expected one size: use a processor with do_resize=True, or pass one size"
            )
        return {"pixel_values": torch.stack(values)}
