"""GLM-4V: Qwen2-VL's operations, with bounds on the pixels of all frames of a still image."""

from __future__ import annotations

from vlmreward.processors.qwen2_vl import Qwen2VLProcessor, enlarged, smart_resize

__all__ = ["Glm4vProcessor"]


class Glm4vProcessor(Qwen2VLProcessor):
    """GLM-4V's image processor. Output: as of ``Qwen2VLProcessor``."""

    hf_classes = frozenset({"Glm4vImageProcessor", "Glm46VImageProcessor"})
    summary = (
        "like Qwen2-VL's; bounds count both frames of a patch, small images are enlarged first"
    )

    def output_size(self, height: int, width: int) -> tuple[int, int]:
        """Height and width after resizing, for an image of this size."""
        if not self.constants.do_resize:
            return super().output_size(height, width)
        factor, frames = self.patch_size * self.merge_size, self.temporal_patch_size
        height, width = enlarged(height, width, factor)
        return smart_resize(
            height,
            width,
            factor=factor,
            min_pixels=self.min_pixels,
            max_pixels=self.max_pixels,
            frames=frames,
            frames_factor=frames,
        )
