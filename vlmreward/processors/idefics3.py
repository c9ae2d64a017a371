"""Idefics3 and SmolVLM: enlarged by Lanczos, cut into tiles row by row, the whole image last."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import torch

from vlmreward.images.layout import to_compute_dtype
from vlmreward.processors.base import ImageProcessor, Nested, Outputs
from vlmreward.processors.padding import as_samples, avoid_all_zero_images, pad_samples

if TYPE_CHECKING:
    from transformers.image_processing_utils import BaseImageProcessor

__all__ = ["Idefics3Processor"]

_LONGEST = 4096  # pixels; HF enlarges no further


class Idefics3Processor(ImageProcessor):
    """Output: ``pixel_values`` ``(B, N, 3, tile, tile)``; with ``do_pad`` ``pixel_attention_mask``
    ``(B, N, tile, tile)``; and with ``return_row_col_info`` ``rows`` and ``cols``: for every sample
    a list of the tiles of its images, 0 where an image was not cut.

    Takes nested images; see ``ImageProcessor.__call__``.
    """

    hf_classes = frozenset({"Idefics3ImageProcessor", "SmolVLMImageProcessor"})
    nested = True
    summary = "Lanczos, tiles row by row, the whole last; `rows`, `cols` with `return_row_col_info`"

    def __init__(
        self, hf: BaseImageProcessor, *, pixel_mode: str = "float", backend: str = "torchvision"
    ) -> None:
        super().__init__(hf, pixel_mode=pixel_mode, backend=backend)
        self.size = hf.size
        self.tile = int(hf.max_image_size["longest_edge"])
        self.split = bool(hf.do_image_splitting)
        self.pad = bool(hf.do_pad)
        self.tells_grids = bool(hf.return_row_col_info)

    def sizes(self, height: int, width: int) -> list[tuple[int, int]]:
        """Heights and widths of the resizes that follow each other, before the cut into tiles."""
        steps = []
        if self.constants.do_resize:
            height, width = self._enlarged(height, width)
            steps.append((height, width))
        if not self.split:
            return [*steps, (self.tile, self.tile)]
        ratio = width / height
        if width >= height:
            width = self._whole_tiles(width)
            height = self._whole_tiles(int(width / ratio))
        else:
            height = self._whole_tiles(height)
            width = self._whole_tiles(int(height * ratio))
        return [*steps, (height, width)]

    def _whole_tiles(self, length: int) -> int:
        return math.ceil(length / self.tile) * self.tile

    def _enlarged(self, height: int, width: int) -> tuple[int, int]:
        """The longer side becomes `longest_edge`, the shorter one even, no side above 4096."""
        if not self.size.longest_edge:
            return self.size.height, self.size.width
        for longest, even in ((self.size.longest_edge, True), (_LONGEST, False)):
            if not even and max(height, width) <= longest:
                break
            ratio = width / height
            shorter = int(longest / ratio if width >= height else longest * ratio)
            shorter = max(shorter + (shorter % 2 if even else 0), 1)
            height, width = (shorter, longest) if width >= height else (longest, shorter)
        return height, width

    def grid(self, height: int, width: int) -> tuple[int, int]:
        """Rows and columns of tiles of an image of this size, (0, 0) where it is not cut."""
        height, width = self.sizes(height, width)[-1]
        if not self.split or max(height, width) <= self.tile:
            return 0, 0
        return height // self.tile, width // self.tile

    def _batch(self, images: torch.Tensor) -> torch.Tensor:
        """``(B, 3, H, W)`` of one size -> ``(B, tiles, 3, tile, tile)``."""
        rows, columns = self.grid(*images.shape[-2:])
        x = to_compute_dtype(images)
        for size in self.sizes(*images.shape[-2:]):
            x = self.resample(x, size)
        normal, tile = self.normalization((self.tile, self.tile)), self.tile
        if not rows:
            return avoid_all_zero_images(normal.affine(x))[:, None]
        tiles = x.view(len(x), 3, rows, tile, columns, tile).permute(0, 2, 4, 1, 3, 5)
        whole = self.resample(x, (tile, tile))
        out = torch.cat([tiles.flatten(1, 2), whole[:, None]], dim=1)
        return avoid_all_zero_images(normal.affine(out).flatten(0, 1)).view_as(out)

    def process(self, images: Nested) -> Outputs:
        """See ``ImageProcessor``."""
        samples = as_samples(images)
        done = iter(self.by_size([i for sample in samples for i in sample], self._batch))
        out: Outputs = {}
        out |= pad_samples(
            [[t for _ in sample for t in next(done)] for sample in samples], pad=self.pad
        )
        if self.tells_grids:
            grids = [[self.grid(*image.shape[-2:]) for image in sample] for sample in samples]
            out["rows"] = [[rows for rows, _ in sample] for sample in grids]
            out["cols"] = [[columns for _, columns in sample] for sample in grids]
        return out
