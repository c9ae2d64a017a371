"""SigLIP 2 (NaFlex): as many patches as allowed at the image's own aspect ratio, then padding."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F

from vlmreward.processors.base import ImageProcessor, OutputTransform

if TYPE_CHECKING:
    from transformers.image_processing_utils import BaseImageProcessor

__all__ = ["Siglip2Processor"]

_EPS = 1e-5  # of the search for the scale, as in HF


class Siglip2Processor(ImageProcessor):
    """SigLIP 2's image processor: patches as rows of values in the order row, column, channel.

    Output: ``pixel_values`` ``(B, max_num_patches, P * P * 3)``, ``pixel_attention_mask``
    ``(B, max_num_patches)`` int32, and ``spatial_shapes`` ``(B, 2)`` int64, in patches.
    """

    hf_classes = frozenset({"Siglip2ImageProcessor"})
    other_models = "SigLIP 2"
    summary = "as many patches as allowed, mask and `spatial_shapes`"

    def __init__(
        self, hf: BaseImageProcessor, *, pixel_mode: str = "float", backend: str = "torchvision"
    ) -> None:
        super().__init__(hf, pixel_mode=pixel_mode, backend=backend)
        self.patch_size = int(hf.patch_size)
        self.max_num_patches = int(hf.max_num_patches)

    def output_size(self, height: int, width: int) -> tuple[int, int]:
        """Height and width after resizing: the largest whole patches that are few enough."""
        patch = self.patch_size
        if not self.constants.do_resize:
            if height % patch or width % patch:
                raise ValueError(
                    f"image is {height}x{width} and this processor has do_resize=False; expected "
                    f"multiples of {patch}: resize the image or set do_resize=True"
                )
            return height, width

        def scaled(scale: float) -> tuple[int, int]:
            def side(n: int) -> int:
                return max(1, math.ceil(n * scale / patch)) * patch

            return side(height), side(width)

        low, high = _EPS / 10, 100.0
        while high - low >= _EPS:
            middle = (low + high) / 2
            h, w = scaled(middle)
            low, high = (
                (middle, high) if h * w <= self.max_num_patches * patch**2 else (low, middle)
            )
        return scaled(low)

    def _batch(self, images: torch.Tensor) -> torch.Tensor:
        """``(B, 3, H, W)`` of one size -> ``(B, max_num_patches, P * P * 3)``."""
        height, width = size = self.output_size(*images.shape[-2:])
        patch, normal = self.patch_size, self.normalization(size)
        rows, columns = height // patch, width // patch
        used = rows * columns
        rest = (0, 0, 0, self.max_num_patches - used)

        def cut(x: torch.Tensor, out: torch.Tensor | None) -> torch.Tensor:
            blocks = x.view(len(x), 3, rows, patch, columns, patch).permute(0, 2, 4, 3, 5, 1)
            if out is None:
                return F.pad(blocks.reshape(len(x), used, -1), rest)
            out[:, used:] = 0
            out[:, :used].view_as(blocks).copy_(blocks)
            return out

        def joined(g: torch.Tensor) -> torch.Tensor:
            g = g[:, :used].reshape(len(g), rows, columns, patch, patch, 3)
            return g.permute(0, 5, 1, 3, 2, 4).reshape(len(g), 3, *size)

        layout = OutputTransform(
            (self.max_num_patches, 3 * patch * patch),
            affine=lambda x, out=None: cut(normal.affine(x), out),
            linear=lambda x, out=None: cut(normal.linear(x), out),
            adjoint=joined,
        )
        return self.resize_and_transform(images, size, layout)

    def process(self, images: torch.Tensor | Sequence[torch.Tensor]) -> dict[str, torch.Tensor]:
        """See ``ImageProcessor``."""
        if isinstance(images, torch.Tensor):
            values = self._batch(images)
        else:
            values = torch.stack(self.by_size(images, self._batch))
        sizes = [self.output_size(*image.shape[-2:]) for image in images]
        grids = torch.tensor([[h // self.patch_size, w // self.patch_size] for h, w in sizes])
        used = torch.arange(self.max_num_patches) < grids.prod(1, keepdim=True)
        return {
            "pixel_values": values,
            "pixel_attention_mask": used.int(),
            "spatial_shapes": grids,
        }
