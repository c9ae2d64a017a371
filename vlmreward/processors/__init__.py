"""Differentiable image processors that read their constants from Hugging Face's."""

from __future__ import annotations

from typing import TYPE_CHECKING

from vlmreward.processors.base import GRADIENTS, PIXEL_MODES, ImageProcessor, Nested
from vlmreward.processors.clip import CLIPProcessor
from vlmreward.processors.fallback import FallbackProcessor
from vlmreward.processors.fixed_size import FixedSizeProcessor
from vlmreward.processors.glm4v import Glm4vProcessor
from vlmreward.processors.idefics2 import Idefics2Processor
from vlmreward.processors.idefics3 import Idefics3Processor
from vlmreward.processors.llava import LlavaProcessor
from vlmreward.processors.pan_and_scan import PanAndScanProcessor
from vlmreward.processors.qwen2_vl import Qwen2VLProcessor
from vlmreward.processors.qwen_video import Qwen2VLVideoProcessor, Qwen3VLVideoProcessor
from vlmreward.processors.siglip2 import Siglip2Processor

if TYPE_CHECKING:
    from transformers import ProcessorMixin
    from transformers.image_processing_utils import BaseImageProcessor

__all__ = [
    "COUNTERPARTS",
    "GRADIENTS",
    "PIXEL_MODES",
    "FallbackProcessor",
    "ImageProcessor",
    "Nested",
    "from_hf",
]

COUNTERPARTS: tuple[type[ImageProcessor], ...] = (
    CLIPProcessor,
    FixedSizeProcessor,
    Glm4vProcessor,
    Idefics2Processor,
    Idefics3Processor,
    LlavaProcessor,
    PanAndScanProcessor,
    Qwen2VLProcessor,
    Qwen2VLVideoProcessor,
    Qwen3VLVideoProcessor,
    Siglip2Processor,
)
"""Counterparts of HF's processors; each names the classes that it stands for."""


def from_hf(
    hf_image_processor: BaseImageProcessor | ProcessorMixin,
    pixel_mode: str = "float",
    *,
    backend: str | None = None,
) -> ImageProcessor:
    """The differentiable counterpart of an HF image or video processor.

    Args:
        hf_image_processor: an image processor of transformers (either backend), a video processor
            of Qwen's, or a processor that has an image processor. All constants are read from it,
            at this moment.
        pixel_mode: degree to which the forward pass follows HF's 8-bit path, one of
            ``PIXEL_MODES``: ``"float"``, ``"clamp"`` or ``"uint8"``.
        backend: backend of HF that ``"uint8"`` is identical to, ``"torchvision"`` or ``"pil"``;
            by default that of ``hf_image_processor``.

    Returns:
        A callable from images in [0, 1] to the same dict of tensors as HF's; see
        ``ImageProcessor.__call__``. For a class without a counterpart here, with a warning, HF's
        own torchvision backend behind the same contract; see ``FallbackProcessor``.

    Raises:
        TypeError: not an image processor, or one that no gradient comes through.
        ValueError: an unknown ``pixel_mode`` or ``backend``, or a resampling filter that is not
            available.
    """
    hf = getattr(hf_image_processor, "image_processor", hf_image_processor)
    chosen: str = getattr(hf, "backend", "torchvision") if backend is None else backend
    # the exact class: a subclass may do something else
    name = type(hf).__name__.removesuffix("Pil").removesuffix("Fast")
    for family in COUNTERPARTS:
        if name in family.hf_classes:
            return family(hf, pixel_mode=pixel_mode, backend=chosen)
    return FallbackProcessor(hf, pixel_mode=pixel_mode, backend=chosen)
