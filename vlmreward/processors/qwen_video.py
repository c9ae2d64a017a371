"""Qwen's video processors: frames of one size, two to a patch, an odd last one repeated."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch

from vlmreward.processors.base import ImageProcessor
from vlmreward.processors.qwen2_vl import enlarged, smart_resize

if TYPE_CHECKING:
    from transformers.image_processing_utils import BaseImageProcessor

__all__ = ["Qwen2VLVideoProcessor", "Qwen3VLVideoProcessor"]


class Qwen2VLVideoProcessor(ImageProcessor):
    """Takes ``(B, T, 3, H, W)``, or a list of ``(T, 3, H, W)``; every frame given is used.

    Output: ``pixel_values_videos`` ``(sum of grid_t * grid_h * grid_w, 3 * frames * P * P)`` and
    ``video_grid_thw`` ``(B, 3)``, int64, on the CPU like HF's.
    """

    hf_classes = frozenset({"Qwen2VLVideoProcessor"})
    other_models = "videos of Qwen2-VL and Qwen2.5-VL"
    summary = "two frames a patch, an odd last one repeated"
    nested = True

    def __init__(
        self, hf: BaseImageProcessor, *, pixel_mode: str = "float", backend: str = "torchvision"
    ) -> None:
        super().__init__(hf, pixel_mode=pixel_mode, backend=backend)
        self.patch_size = int(hf.patch_size)
        self.merge_size = int(hf.merge_size)
        self.temporal_patch_size = int(hf.temporal_patch_size)
        self.min_pixels = int(hf.size["shortest_edge"])
        self.max_pixels = int(hf.size["longest_edge"])
        self.cap = bool(hf.cap_pixels_per_frame)
        self.max_tokens = int(hf.max_video_tokens)

    @property
    def factor(self) -> int:
        """Divisor of both sides of a resized frame, in pixels."""
        return self.patch_size * self.merge_size

    def output_size(self, frames: int, height: int, width: int) -> tuple[int, int]:
        """Height and width of the resized frames of a video of this length and size."""
        most = self.max_pixels
        if self.cap:
            budget = int(self.max_tokens * self.factor**2 * 0.9)
            share = budget * self.temporal_patch_size // frames
            most = max(min(most, share), int(self.min_pixels * 1.05))
        return smart_resize(
            height, width, factor=self.factor, min_pixels=self.min_pixels, max_pixels=most
        )

    def _batch(self, videos: torch.Tensor) -> torch.Tensor:
        """``(B, T, 3, H, W)`` of one size -> ``(B, grid_t * grid_h * grid_w, 3 * T_p * P * P)``."""
        n, length = videos.shape[:2]
        per_patch, patch, merge = self.temporal_patch_size, self.patch_size, self.merge_size
        size = (videos.shape[-2], videos.shape[-1])
        if self.constants.do_resize:
            size = self.output_size(length, *size)
        elif size[0] % self.factor or size[1] % self.factor:
            raise ValueError(
                f"frames are {size[0]}x{size[1]} and this processor has do_resize=False; expected "
                f"multiples of {self.factor}: resize the video or set do_resize=True"
            )
        frames = self.resize_and_transform(videos.flatten(0, 1), size, self.normalization(size))
        frames = frames.view(n, length, *frames.shape[1:])
        if missing := -length % per_patch:
            last = frames[:, -1:].expand(-1, missing, -1, -1, -1)
            frames = torch.cat([frames, last], dim=1)
        rows, columns = size[0] // self.factor, size[1] // self.factor
        cut = frames.view(n, -1, per_patch, 3, rows, merge, patch, columns, merge, patch)
        cut = cut.permute(0, 1, 4, 7, 5, 8, 3, 2, 6, 9)
        return cut.reshape(n, -1, 3 * per_patch * patch * patch)

    def _grid(self, video: torch.Tensor) -> list[int]:
        size = tuple(video.shape[-2:])
        if self.constants.do_resize:
            size = self.output_size(len(video), *size)
        steps = math.ceil(len(video) / self.temporal_patch_size)
        return [steps, size[0] // self.patch_size, size[1] // self.patch_size]

    def process(self, images: torch.Tensor | Sequence[torch.Tensor]) -> dict[str, torch.Tensor]:
        """See ``ImageProcessor``."""
        if isinstance(images, torch.Tensor) and images.ndim == 4:
            images = images[None]
        if isinstance(images, torch.Tensor):
            values = self._batch(images).flatten(0, 1)
        else:
            images = [v if isinstance(v, torch.Tensor) else torch.stack(list(v)) for v in images]
            values = torch.cat(self.by_size(images, self._batch))
        grids = torch.tensor([self._grid(video) for video in images])
        return {"pixel_values_videos": values, "video_grid_thw": grids}


class Qwen3VLVideoProcessor(Qwen2VLVideoProcessor):
    """Qwen3-VL's video processor: Qwen2-VL's, with bounds on the pixels of all frames together."""

    hf_classes = frozenset({"Qwen3VLVideoProcessor"})
    other_models = "videos of Qwen3-VL"
    summary = "the same, and a pixel budget for the whole video"

    def output_size(self, frames: int, height: int, width: int) -> tuple[int, int]:
        """Height and width of the resized frames of a video of this length and size."""
        if frames < self.temporal_patch_size:
            raise ValueError(
                f"a video has {frames} frames; expected at least {self.temporal_patch_size}: "
                "repeat the frame"
            )
        most = self.max_pixels
        if self.cap:
            each = min(self.max_tokens * self.factor**2, most // frames)
            most = max(each, int(self.min_pixels * 1.05)) * frames
        height, width = enlarged(height, width, self.factor)
        return smart_resize(
            height,
            width,
            factor=self.factor,
            min_pixels=self.min_pixels,
            max_pixels=most,
            frames=frames,
            frames_factor=self.temporal_patch_size,
        )
