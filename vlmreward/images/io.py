"""Loading of image files as tensors of the contract; every conversion is reported."""

from __future__ import annotations

import os
import warnings
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageOps

from vlmreward.images.channels import gray_to_rgb, rgba_to_rgb
from vlmreward.images.validation import check_images
from vlmreward.utils.arguments import number
from vlmreward.utils.errors import first_line

__all__ = ["ImageFile", "ImageFileError", "load_image"]

_ORIENTATION = 0x0112  # of EXIF


class ImageFileError(ValueError):
    """Error: a file is no image, or cannot be converted to RGB without guessing."""


@dataclass(frozen=True)
class ImageFile:
    """An image that was read from a file.

    Attributes:
        path: the file.
        image: float32 RGB ``(3, H, W)`` in [0, 1].
        conversions: conversions that were made besides the division by the largest level, in words.
    """

    path: Path
    image: torch.Tensor
    conversions: tuple[str, ...]


def load_image(path: str | os.PathLike[str], *, background: float = 1.0) -> ImageFile:
    """Read an image file of any kind that Pillow knows.

    Gray, palette, CMYK and transparent images become RGB; 16-bit gray keeps its precision, 16-bit
    colors are reduced to 8 bits; the orientation in the EXIF data is applied; of an animation the
    first frame is read. ``conversions`` lists what was done.

    Args:
        path: the file.
        background: gray level in [0, 1] under what is transparent; white, as in HF's processors.

    Raises:
        TypeError: not a path, or a background that is no number.
        ValueError: a background outside [0, 1].
        ImageFileError: missing, not an image, damaged, of an unknown range, or longer and thinner
            than the contract allows (see ``vlmreward.images.validation``).
    """
    if not isinstance(path, (str, os.PathLike)):
        raise TypeError(f"path is {path!r}; expected the path of an image file")
    number("background", background, least=0, most=1)
    path = Path(path)
    if path.is_fifo():  # where opening would wait for somebody to write
        raise ImageFileError(f"cannot read {path}: a pipe; expected an image file")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            with Image.open(path) as opened:
                image, conversions = _rgb(opened, background)
        check_images([image])
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError, Warning) as error:
        reason = first_line(error) or type(error).__name__
        if isinstance(error, FileNotFoundError):
            reason = "no such file"
        elif isinstance(error, IsADirectoryError):
            reason = "a folder"
        elif isinstance(error, Image.UnidentifiedImageError):
            reason = "not an image, or of a format that Pillow does not read"
        elif "images[0]" in reason:
            reason = reason.replace("images[0]", "the image")
        if "expected" not in reason:
            reason += "; expected a whole image file that Pillow reads"
        raise ImageFileError(f"cannot read {path}: {reason}") from error
    return ImageFile(path, image, tuple(conversions))


def _rgb(opened: Image.Image, background: float) -> tuple[torch.Tensor, list[str]]:
    """The image as ``(3, H, W)`` in [0, 1], and the conversions that were made."""
    done = []
    # Pillow has 8 bits for every channel of colors; the file's own layout is told until it is read
    if any("RGB" in str(tile[3]) and ";16" in str(tile[3]) for tile in getattr(opened, "tile", ())):
        done.append("16-bit colors to 8 bits")
    frames = getattr(opened, "n_frames", 1)
    if frames > 1:
        done.append(f"first of {frames} frames")
    image: Image.Image = opened
    if opened.getexif().get(_ORIENTATION, 1) != 1:
        image = ImageOps.exif_transpose(opened)
        done.append("turned as its EXIF orientation says")
    mode = image.mode
    if mode.startswith("I;16"):
        levels = np.asarray(image).astype(np.float32) / 65535
        return gray_to_rgb(torch.from_numpy(levels)[None]).contiguous(), [
            *done,
            "16-bit gray to RGB",
        ]
    if mode in ("I", "F"):
        raise ValueError(
            f"its pixels are {'32-bit integers' if mode == 'I' else 'floats'} of an unknown range; "
            "expected 8 or 16 bits a channel: save it as such"
        )
    if mode == "RGB" and "transparency" not in image.info:
        return _unit(image), done
    names = {"1": "black and white", "L": "gray", "P": "palette", "LA": "gray with transparency"}
    names |= {"PA": "palette", "RGBA": "RGBA", "RGB": "RGB with a transparent color"}
    done.append(f"{names.get(mode, mode)} to RGB")
    if mode in ("RGBA", "LA", "PA") or "transparency" in image.info:
        done.append(f"transparency over {'white' if background == 1 else background}")
        return rgba_to_rgb(_unit(image.convert("RGBA")), background), done
    return _unit(image.convert("RGB")), done


def _unit(image: Image.Image) -> torch.Tensor:
    """8-bit channels as floats, ``(C, H, W)``."""
    return torch.from_numpy(np.array(image)).permute(2, 0, 1).contiguous() / 255
