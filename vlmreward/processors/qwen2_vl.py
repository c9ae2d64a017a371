"""Qwen2-VL, Qwen2.5-VL and every model whose images go through ``Qwen2VLImageProcessor``."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch

from vlmreward.processors.base import ImageProcessor, read_constants
from vlmreward.processors.chunks import AffineMap, apply_in_chunks
from vlmreward.processors.patches import from_patches, to_patches
from vlmreward.resample import resize, resize_adjoint

__all__ = ["HF_CLASSES", "Qwen2VLProcessor", "smart_resize"]

HF_CLASSES = frozenset(
    {"Qwen2VLImageProcessor", "Qwen2VLImageProcessorFast", "Qwen2VLImageProcessorPil"}
)


def smart_resize(
    height: int, width: int, *, factor: int, min_pixels: int, max_pixels: int
) -> tuple[int, int]:
    """Size to which Qwen resizes an image: multiples of ``factor``, a bounded number of pixels.

    Each side is rounded to the nearest multiple (halves to even). If the area is then too large,
    both sides are scaled down by the same ratio and rounded down; if too small, up.

    >>> smart_resize(256, 256, factor=28, min_pixels=3136, max_pixels=1003520)
    (252, 252)
    """
    fitted = round(height / factor) * factor, round(width / factor) * factor
    area = fitted[0] * fitted[1]
    if area > max_pixels:
        ratio = math.sqrt(height * width / max_pixels)
        return (
            max(factor, math.floor(height / ratio / factor) * factor),
            max(factor, math.floor(width / ratio / factor) * factor),
        )
    if area < min_pixels:
        ratio = math.sqrt(min_pixels / (height * width))
        return (
            math.ceil(height * ratio / factor) * factor,
            math.ceil(width * ratio / factor) * factor,
        )
    return fitted


class Qwen2VLProcessor(ImageProcessor):
    """Smart resize, normalisation, and patches in the order of the merged grid.

    Output: ``pixel_values`` ``(sum of grid_h * grid_w, 3 * T * P * P)`` and ``image_grid_thw``
    ``(B, 3)`` with rows ``(1, grid_h, grid_w)``, int64, on the CPU like HF's.
    """

    def __init__(self, hf: Any, *, pixels: str = "float") -> None:
        super().__init__(read_constants(hf), pixels=pixels)
        self.patch_size = int(hf.patch_size)
        self.merge_size = int(hf.merge_size)
        self.temporal_patch_size = int(hf.temporal_patch_size)
        self.min_pixels = int(hf.size["shortest_edge"])
        self.max_pixels = int(hf.size["longest_edge"])

    def output_size(self, height: int, width: int) -> tuple[int, int]:
        """Height and width after resizing, for an image of this size."""
        factor = self.patch_size * self.merge_size
        if self.constants.do_resize:
            return smart_resize(
                height,
                width,
                factor=factor,
                min_pixels=self.min_pixels,
                max_pixels=self.max_pixels,
            )
        if height % factor or width % factor:
            raise ValueError(
                f"image is {height}x{width} and this processor has do_resize=False; expected "
                f"multiples of {factor}: resize the image or set do_resize=True"
            )
        return height, width

    def _grid(self, height: int, width: int) -> tuple[int, int, int]:
        height, width = self.output_size(height, width)
        return 1, height // self.patch_size, width // self.patch_size

    def _batch(self, images: torch.Tensor) -> torch.Tensor:
        """``(B, 3, H, W)`` of one size -> ``(B, grid_h * grid_w, 3 * T * P * P)``."""
        images = self.working(images)
        before = (images.shape[-2], images.shape[-1])
        size = self.output_size(*before)
        scale, bias, filter = self.constants.scale, self.constants.bias, self.constants.filter
        layout = {
            "patch": self.patch_size,
            "merge": self.merge_size,
            "frames": self.temporal_patch_size,
        }

        def forward(x: torch.Tensor) -> torch.Tensor:
            return to_patches(self.resample(x, size), scale=scale, bias=bias, **layout)

        if self.pixels == "clamp":  # the only one whose derivative depends on the image
            return forward(images)

        def linear(x: torch.Tensor) -> torch.Tensor:
            none = (0.0,) * len(bias)
            return to_patches(resize(x, size, filter), scale=scale, bias=none, **layout)

        def adjoint(grad: torch.Tensor) -> torch.Tensor:
            image = from_patches(grad, (3, *size), scale=scale, **layout)
            return resize_adjoint(image, before, filter)

        return apply_in_chunks(images, AffineMap(forward, linear, adjoint))

    def process(self, images: torch.Tensor | Sequence[torch.Tensor]) -> dict[str, torch.Tensor]:
        """See ``ImageProcessor``."""
        if isinstance(images, torch.Tensor):
            grids = [self._grid(*images.shape[-2:])] * len(images)
            values = self._batch(images).flatten(0, 1)
        else:
            grids = [self._grid(*image.shape[-2:]) for image in images]
            values = torch.cat(self.by_size(images, self._batch))
        return {"pixel_values": values, "image_grid_thw": torch.tensor(grids)}
