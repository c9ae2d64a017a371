"""Images that enter the package: the contract, batches, files and filters."""

from __future__ import annotations

from typing import TYPE_CHECKING

from vlmreward.utils.lazy import lazy_names

if TYPE_CHECKING:
    from vlmreward.images.batch import ImageBatch
    from vlmreward.images.channels import gray_to_rgb, rgba_to_rgb
    from vlmreward.images.filters import smooth
    from vlmreward.images.find import find_images
    from vlmreward.images.io import ImageFile, ImageFileError, load_image
    from vlmreward.images.validation import Images, check_images

__all__ = [
    "ImageBatch",
    "ImageFile",
    "ImageFileError",
    "Images",
    "check_images",
    "find_images",
    "gray_to_rgb",
    "load_image",
    "rgba_to_rgb",
    "smooth",
]

__getattr__ = lazy_names(
    __name__,
    {
        "ImageBatch": "batch",
        "ImageFile": "io",
        "ImageFileError": "io",
        "Images": "validation",
        "check_images": "validation",
        "find_images": "find",
        "gray_to_rgb": "channels",
        "load_image": "io",
        "rgba_to_rgb": "channels",
        "smooth": "filters",
    },
)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
