"""Gemma 3: one size, and optionally crops of long images beside the whole (pan and scan)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch

from vlmreward.processors.fixed_size import FixedSizeProcessor

if TYPE_CHECKING:
    from transformers.image_processing_utils import BaseImageProcessor

__all__ = ["PanAndScanProcessor"]


class PanAndScanProcessor(FixedSizeProcessor):
    """Output: ``pixel_values`` ``(N, 3, height, width)`` and ``num_crops`` ``(B,)``.

    N counts every whole image and, behind it, its crops.
    """

    hf_classes = frozenset({"Gemma3ImageProcessor"})
    other_models = ""
    summary = "one size, and crops of long images (pan and scan)"

    def __init__(
        self, hf: BaseImageProcessor, *, pixel_mode: str = "float", backend: str = "torchvision"
    ) -> None:
        super().__init__(hf, pixel_mode=pixel_mode, backend=backend)
        self.pan_and_scan = bool(hf.do_pan_and_scan)
        self.min_crop_size = hf.pan_and_scan_min_crop_size
        self.max_crops = hf.pan_and_scan_max_num_crops
        self.min_ratio = hf.pan_and_scan_min_ratio_to_activate

    def crops(self, height: int, width: int) -> list[tuple[slice, slice]]:
        """Rows and columns of the crops of an image of this size; none unless it is long."""
        longer, shorter = max(height, width), min(height, width)
        if not self.pan_and_scan or longer / shorter < self.min_ratio:
            return []
        n = min(math.floor(longer / self.min_crop_size), math.floor(longer / shorter + 0.5))
        n = min(self.max_crops, max(2, n))
        length = math.ceil(longer / n)
        if min(length, shorter) < self.min_crop_size:
            return []
        parts = [slice(i * length, (i + 1) * length) for i in range(n)]
        whole = slice(None)
        return [(whole, p) if width >= height else (p, whole) for p in parts]

    def process(self, images: torch.Tensor | Sequence[torch.Tensor]) -> dict[str, torch.Tensor]:
        """See ``ImageProcessor``."""
        pieces: list[torch.Tensor] = []
        counts = []
        for image in images:
            cut = self.crops(*image.shape[-2:])
            pieces += [image, *(image[:, rows, columns] for rows, columns in cut)]
            counts.append(len(cut))
        alone = isinstance(images, torch.Tensor) and not any(counts)
        values = super().process(images if alone else pieces)["pixel_values"]
        return {"pixel_values": values, "num_crops": torch.tensor(counts)}
