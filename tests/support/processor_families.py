"""Every family of image processors, beside both of Hugging Face's backends."""

from __future__ import annotations

import importlib
from dataclasses import dataclass, field
from typing import Any

import torch
import transformers


@dataclass(frozen=True)
class VLMFamily:
    """A processor of HF with some options; small ones, where only `tiny` is set, for gradcheck."""

    name: str
    options: dict[str, Any] = field(default_factory=dict)
    tiny: dict[str, Any] = field(default_factory=dict)
    nested: bool = False
    lanczos: bool = False

    def hf(self, backend: str = "torchvision", **options: Any) -> Any:
        options = {**self.options, **options}
        kind = getattr(transformers, self.name)
        if backend == "pil":
            module = kind.__module__.replace(".image_processing_", ".image_processing_pil_")
            kind = getattr(importlib.import_module(module), f"{self.name}Pil")
        return kind(**options)

    def __str__(self) -> str:
        return "-".join([self.name.removesuffix("ImageProcessor"), *map(str, self.options)])


SMALL_TILES = {"size": {"longest_edge": 96}, "max_image_size": {"longest_edge": 32}}
WHOLE = {
    "do_image_splitting": False,
    "size": {"longest_edge": 224},
    "max_image_size": {"longest_edge": 112},
}
PAN = {
    "do_pan_and_scan": True,
    "pan_and_scan_min_crop_size": 20,
    "pan_and_scan_max_num_crops": 4,
    "pan_and_scan_min_ratio_to_activate": 1.2,
}
SQUARE = {"size": {"height": 5, "width": 6}}
CROP = {"size": {"shortest_edge": 6}, "crop_size": {"height": 5, "width": 8}}
TILES = {"size": {"longest_edge": 12}, "max_image_size": {"longest_edge": 4}}
QWEN = {"patch_size": 2, "min_pixels": 16, "max_pixels": 144}
GLM = {"patch_size": 2, "size": {"shortest_edge": 16, "longest_edge": 144}}
IDEFICS3 = {"nested": True, "lanczos": True}
TOLD = {"return_row_col_info": True}

FAMILIES = [
    VLMFamily("Qwen2VLImageProcessor", tiny=QWEN),
    VLMFamily(  # Qwen3-VL's
        "Qwen2VLImageProcessor",
        {"patch_size": 16, "min_pixels": 65536, "image_mean": [0.5] * 3, "image_std": [0.5] * 3},
        tiny=QWEN,
    ),
    VLMFamily("Glm4vImageProcessor", tiny=GLM),
    VLMFamily("Glm46VImageProcessor", {"size": {"shortest_edge": 112, "longest_edge": 90000}}, GLM),
    VLMFamily("SiglipImageProcessor", tiny=SQUARE),
    VLMFamily("SiglipImageProcessor", {"size": {"height": 448, "width": 448}}, SQUARE),
    VLMFamily("IdeficsImageProcessor", tiny={"image_size": 5}),
    VLMFamily("CLIPImageProcessor", tiny=CROP),
    VLMFamily("CLIPImageProcessor", {"size": {"shortest_edge": 180}}, CROP),
    VLMFamily("CLIPImageProcessor", {"do_center_crop": False, **SQUARE}),
    VLMFamily("LlavaImageProcessor", {"do_pad": True}, CROP),
    VLMFamily("Gemma3ImageProcessor", tiny=SQUARE),
    VLMFamily("Gemma3ImageProcessor", PAN, {**SQUARE, "pan_and_scan_min_crop_size": 2}),
    VLMFamily("Siglip2ImageProcessor", tiny={"patch_size": 2, "max_num_patches": 7}),
    VLMFamily(
        "Idefics2ImageProcessor",
        tiny={"size": {"shortest_edge": 5, "longest_edge": 7}},
        nested=True,
    ),
    VLMFamily(
        "Idefics2ImageProcessor",
        {"do_image_splitting": True, "size": {"shortest_edge": 50, "longest_edge": 90}},
        {"size": {"shortest_edge": 5, "longest_edge": 7}},
        nested=True,
    ),
    VLMFamily("Idefics3ImageProcessor", {**SMALL_TILES, **TOLD}, TILES, **IDEFICS3),
    VLMFamily("Idefics3ImageProcessor", WHOLE, TILES, **IDEFICS3),
    VLMFamily("SmolVLMImageProcessor", {**SMALL_TILES, **TOLD}, TILES, **IDEFICS3),
]


def theirs(hf: Any, images: list[torch.Tensor], **options: Any) -> dict[str, Any]:
    """HF's answer to images of any dtype, counted in levels from 0 to 255."""
    if getattr(hf, "backend", None) == "pil":
        images = [image.numpy() for image in images]
    out = hf(images, return_tensors="pt", **options)
    return {"pixel_values": out} if torch.is_tensor(out) else dict(out)
