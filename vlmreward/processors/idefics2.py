"""Idefics2: resize to bounded sides, optional split into quarters, padding with a mask."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from vlmreward.processors.base import ImageProcessor, Nested
from vlmreward.processors.padding import as_samples, avoid_all_zero_images, pad_samples

if TYPE_CHECKING:
    from transformers.image_processing_utils import BaseImageProcessor

__all__ = ["Idefics2Processor"]


class Idefics2Processor(ImageProcessor):
    """Output: ``pixel_values`` ``(B, N, 3, H, W)`` and ``pixel_attention_mask`` ``(B, N, H, W)``.

    The mask is there with ``do_pad`` only.

    Takes nested images; see ``ImageProcessor.__call__``.
    """

    hf_classes = frozenset({"Idefics2ImageProcessor"})
    nested = True
    summary = "bounded sides, padding and mask, optionally four quarters"

    def __init__(
        self, hf: BaseImageProcessor, *, pixel_mode: str = "float", backend: str = "torchvision"
    ) -> None:
        super().__init__(hf, pixel_mode=pixel_mode, backend=backend)
        self.size = hf.size
        self.split = bool(hf.do_image_splitting)
        self.pad = bool(hf.do_pad)

    def output_size(self, height: int, width: int) -> tuple[int, int]:
        """Height and width after resizing, for an image of this size."""
        if not self.constants.do_resize:
            return height, width
        if not (self.size.shortest_edge and self.size.longest_edge):
            return self.size.height, self.size.width
        low, high = self.size.shortest_edge, self.size.longest_edge
        ratio = width / height
        if width >= height and width > high:
            width, height = high, int(high / ratio)
        elif height > width and height > high:
            width, height = int(high * ratio), high
        return max(height, low), max(width, low)

    def pieces(self, image: torch.Tensor) -> list[torch.Tensor]:
        """The image, or its quarters row by row and then the whole."""
        if not self.split:
            return [image]
        h, w = image.shape[-2] // 2, image.shape[-1] // 2
        top, bottom = image[..., :h, :], image[..., h:, :]
        return [top[..., :w], top[..., w:], bottom[..., :w], bottom[..., w:], image]

    def _batch(self, images: torch.Tensor) -> torch.Tensor:
        size = self.output_size(*images.shape[-2:])
        return avoid_all_zero_images(
            self.resize_and_transform(images, size, self.normalization(size))
        )

    def process(self, images: Nested) -> dict[str, torch.Tensor]:
        """See ``ImageProcessor``."""
        samples = [[p for i in sample for p in self.pieces(i)] for sample in as_samples(images)]
        done = iter(self.by_size([p for sample in samples for p in sample], self._batch))
        return pad_samples([[next(done) for _ in sample] for sample in samples], pad=self.pad)
