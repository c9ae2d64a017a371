"""Pictures of assets as a judge sees them."""

from __future__ import annotations

import functools
import hashlib
import io
import math
import os
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor
from torchvision.utils import make_grid

from tournament.layout import Asset, frame
from vlmreward.images.io import load_image
from vlmreward_3d.rendering.evaluation import image_bytes

SHOWN = {"rgb": ("rgb",), "normals": ("normal",), "both": ("rgb", "normal")}
"""Kinds of frames by the name of the choice."""
VIEWS = (1, 4, 9, 16)
"""Numbers of views, which fill a square."""
_GAP = 16


@dataclass(frozen=True)
class Showing:
    """Presentation of assets to a judge.

    Attributes:
        views: number of views, one of ``VIEWS``: every (frames // views)-th frame from 0 on, as in
            GPTEval3D, which takes frames 0, 30, 60 and 90 of 120 for four views.
        show: one of ``SHOWN``.
        size: height and width of a view in pixels.
    """

    views: int = 4
    show: str = "rgb"
    size: int = 256

    def files(self, asset: Asset) -> list[Path]:
        """The frames that are shown, those of normals behind the others.

        Raises:
            ValueError: there are too few.
        """
        total = _frames(asset.folder)
        if total < self.views:
            raise ValueError(
                f"{asset.folder} has {total} frames; expected rgb_0.png, rgb_1.png and so on, at "
                f"least {self.views}; or pass fewer --views"
            )
        numbers = [i * (total // self.views) for i in range(self.views)]
        found = [frame(asset.folder, kind, i) for kind in SHOWN[self.show] for i in numbers]
        for file in found:
            if not file.is_file():
                raise ValueError(f"there is no {file}; expected it for --show {self.show}")
        return found

    def digest(self, asset: Asset) -> str:
        """SHA-256 of the frames that are shown."""
        return _digest(tuple(self.files(asset)))

    def frames(self, asset: Asset, size: int | None = None) -> Tensor:
        """The frames (V, 3, size, size) in [0, 1] on white, in the order of ``files``."""
        size = size or self.size
        return torch.stack([_resized(load_image(file).image, size) for file in self.files(asset)])

    def grid(self, asset: Asset, size: int | None = None) -> Tensor:
        """One picture (3, H, W) in [0, 1]: views in a square, normals below the others."""
        kinds = self.frames(asset, size).split(self.views)
        side = math.isqrt(self.views)
        return torch.cat([make_grid(kind, nrow=side, padding=0) for kind in kinds], dim=1)

    def pair(self, left: Asset, right: Asset) -> Tensor:
        """One picture (3, H, W) in [0, 1] with one asset at the left and another at the right."""
        shown = self.grid(left), self.grid(right)
        between = torch.full((3, shown[0].shape[1], _GAP), 0.5)
        return torch.cat([shown[0], between, shown[1]], dim=2)


def png(image: Tensor) -> bytes:
    """A picture (3, H, W) in [0, 1] as a PNG file."""
    file = io.BytesIO()
    Image.fromarray(image_bytes(image.clamp(0, 1))).save(file, "PNG")
    return file.getvalue()


def save_png(path: Path, image: Tensor) -> None:
    """Write a picture (3, H, W) in [0, 1], whole or not at all.

    Without waiting for the disk: there are thousands, and each can be made again.
    """
    draft = path.with_name(f".{path.name}.partial")
    draft.write_bytes(png(image))
    os.replace(draft, path)


def _resized(image: Tensor, size: int) -> Tensor:
    if image.shape[1] != image.shape[2]:
        raise ValueError(
            f"a frame has {image.shape[2]} x {image.shape[1]} pixels; expected a square"
        )
    if image.shape[-1] == size:
        return image
    scaled = F.interpolate(
        image[None], size=(size, size), mode="bilinear", antialias=True, align_corners=False
    )
    return scaled[0].clamp(0, 1)


@functools.cache
def _frames(folder: Path) -> int:
    """Number of frames from 0 on without a gap."""
    total = 0
    while frame(folder, "rgb", total).is_file():
        total += 1
    return total


@functools.cache
def _digest(files: tuple[Path, ...]) -> str:
    total = hashlib.sha256()
    for file in files:
        total.update(hashlib.sha256(file.read_bytes()).digest())
    return total.hexdigest()
