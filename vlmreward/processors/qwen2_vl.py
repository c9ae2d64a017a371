"""Qwen2-VL, Qwen2.5-VL and every model whose images go through ``Qwen2VLImageProcessor``."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch

from vlmreward.processors.base import ImageProcessor, OutputTransform
from vlmreward.processors.patches import from_patches, to_patches

if TYPE_CHECKING:
    from transformers.image_processing_utils import BaseImageProcessor

__all__ = ["Qwen2VLProcessor", "enlarged", "smart_resize"]


def smart_resize(
    height: int,
    width: int,
    *,
    factor: int,
    min_pixels: int,
    max_pixels: int,
    frames: int = 1,
    frames_factor: int = 1,
) -> tuple[int, int]:
    """Size to which Qwen resizes an image: multiples of ``factor``, a bounded number of pixels.

    Each side is rounded to the nearest multiple (halves to even). If there are then too many
    pixels, both sides are scaled down by the same ratio and rounded down; if too few, up.

    Args:
        height: height of the image.
        width: width of the image.
        factor: divisor of both sides of the result.
        min_pixels: bound of the number of pixels of all frames.
        max_pixels: bound of the number of pixels of all frames.
        frames: number of frames; 1 for an image, and for a video with bounds per frame.
        frames_factor: ``frames`` is rounded to a multiple of it before pixels are counted.

    Examples:
        >>> smart_resize(256, 256, factor=28, min_pixels=3136, max_pixels=1003520)
        (252, 252)
    """
    fitted = round(height / factor) * factor, round(width / factor) * factor
    count = round(frames / frames_factor) * frames_factor * fitted[0] * fitted[1]
    if count > max_pixels:
        ratio = math.sqrt(frames * height * width / max_pixels)
        return (
            max(factor, math.floor(height / ratio / factor) * factor),
            max(factor, math.floor(width / ratio / factor) * factor),
        )
    if count < min_pixels:
        ratio = math.sqrt(min_pixels / (frames * height * width))
        return (
            math.ceil(height * ratio / factor) * factor,
            math.ceil(width * ratio / factor) * factor,
        )
    return fitted


def enlarged(height: int, width: int, factor: int) -> tuple[int, int]:
    """Size of an image of which no side is shorter than ``factor``, at the same aspect ratio."""
    if min(height, width) >= factor:
        return height, width
    scale = max(factor / height, factor / width)
    return int(height * scale), int(width * scale)


class Qwen2VLProcessor(ImageProcessor):
    """Smart resize, normalization, and patches in the order of the merged grid.

    Output: ``pixel_values`` ``(sum of grid_h * grid_w, 3 * T * P * P)`` and ``image_grid_thw``
    ``(B, 3)`` with rows ``(1, grid_h, grid_w)``, int64, on the CPU like HF's.
    """

    hf_classes = frozenset({"Qwen2VLImageProcessor"})
    summary = "smart resize, patches in merged order, `image_grid_thw`"

    def __init__(
        self, hf: BaseImageProcessor, *, pixel_mode: str = "float", backend: str = "torchvision"
    ) -> None:
        super().__init__(hf, pixel_mode=pixel_mode, backend=backend)
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
        size = self.output_size(*images.shape[-2:])
        scale, bias = self.constants.scale, self.constants.bias
        patch, frames = self.patch_size, self.temporal_patch_size
        cut = {"patch": patch, "merge": self.merge_size, "frames": frames}
        layout = OutputTransform(
            (size[0] * size[1] // patch**2, len(scale) * frames * patch**2),
            affine=lambda x, out=None: to_patches(x, scale=scale, bias=bias, out=out, **cut),
            linear=lambda x, out=None: to_patches(
                x, scale=scale, bias=(0.0,) * len(bias), out=out, **cut
            ),
            adjoint=lambda g: from_patches(g, (3, *size), **cut),
        )
        return self.resize_and_transform(images, size, layout)

    def process(self, images: torch.Tensor | Sequence[torch.Tensor]) -> dict[str, torch.Tensor]:
        """See ``ImageProcessor``."""
        if isinstance(images, torch.Tensor):
            grids = [self._grid(*images.shape[-2:])] * len(images)
            values = self._batch(images).flatten(0, 1)
        else:
            grids = [self._grid(*image.shape[-2:]) for image in images]
            values = torch.cat(self.by_size(images, self._batch))
        return {"pixel_values": values, "image_grid_thw": torch.tensor(grids)}
