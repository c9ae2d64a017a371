"""Differentiable image processors that read their constants from Hugging Face's."""

from __future__ import annotations

from typing import Any

from vlmreward.processors import qwen2_vl
from vlmreward.processors.base import PIXELS, ImageProcessor

__all__ = ["PIXELS", "ImageProcessor", "from_hf"]


def from_hf(hf_image_processor: Any, pixels: str = "float") -> ImageProcessor:
    """The differentiable counterpart of an HF image processor.

    Args:
        hf_image_processor: an image processor of transformers (either backend), or a processor
            that has one. All constants are read from it, at this moment.
        pixels: ``"float"``, ``"clamp"`` or ``"uint8"``: how far the forward pass follows HF's
            8-bit path; see ``PIXELS``.

    Returns:
        A callable from images in [0, 1] to the same dict of tensors as HF's; see
        ``ImageProcessor.__call__``.

    Raises:
        TypeError: there is no counterpart of this class.
        ValueError: an unknown ``pixels``, or a resampling filter that is not available.
    """
    hf = getattr(hf_image_processor, "image_processor", hf_image_processor)
    name = type(hf).__name__  # the exact class: a subclass may do something else
    if name in qwen2_vl.HF_CLASSES:
        return qwen2_vl.Qwen2VLProcessor(hf, pixels=pixels)
    raise TypeError(
        f"no differentiable counterpart of {name}; expected one of {sorted(qwen2_vl.HF_CLASSES)}: "
        "pass the image processor of a supported model"
    )
