"""What the image processors of all families share: constants, the dial, grouping by size."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from vlmreward.pixels import check_images
from vlmreward.resample import resize, resize_uint8

__all__ = ["PIXELS", "Constants", "ImageProcessor", "read_constants"]

PIXELS = ("float", "clamp", "uint8")
"""How far the forward pass follows Hugging Face's 8-bit path.

- ``"float"``: not at all; exactly affine in the pixels, so bicubic overshoot stays.
- ``"clamp"``: saturates to [0, 1] where 8-bit images do; zero gradient at what was cut off.
- ``"uint8"``: also rounds as they do, identical to HF on the 8-bit image; the gradient is
  straight-through, that of "float".
"""

_FILTERS = {1: "lanczos", 2: "bilinear", 3: "bicubic"}  # PIL's numbers


@dataclass(frozen=True)
class Constants:
    """Numbers of an HF image processor, for input in [0, 1]: ``x * scale + bias`` per channel."""

    scale: tuple[float, ...]
    bias: tuple[float, ...]
    filter: str
    do_resize: bool


def read_constants(hf: Any) -> Constants:
    """Constants from an HF image processor; nothing is assumed that it can tell.

    Raises:
        ValueError: it resizes by a filter that is not available here.
    """
    if hf.do_resize and int(hf.resample) not in _FILTERS:
        raise ValueError(
            f"the image processor resizes with PIL filter {int(hf.resample)}; expected one of "
            f"{_FILTERS}: set its `resample`"
        )
    # HF counts in 8-bit levels before its rescale_factor; the contract here is [0, 1]
    rescale = 255.0 * hf.rescale_factor if hf.do_rescale else 1.0
    mean = tuple(hf.image_mean) if hf.do_normalize else (0.0,) * 3
    std = tuple(hf.image_std) if hf.do_normalize else (1.0,) * 3
    return Constants(
        scale=tuple(rescale / s for s in std),
        bias=tuple(-m / s for m, s in zip(mean, std)),
        filter=_FILTERS[int(hf.resample)] if hf.do_resize else "bicubic",
        do_resize=bool(hf.do_resize),
    )


class ImageProcessor(ABC):
    """Differentiable counterpart of one HF image processor.

    Call it with images in [0, 1]; see ``__call__``. Families implement ``process``.
    """

    def __init__(self, constants: Constants, *, pixels: str = "float") -> None:
        if pixels not in PIXELS:
            raise ValueError(f"pixels is {pixels!r}; expected one of {PIXELS}")
        self.constants = constants
        self.pixels = pixels

    def __repr__(self) -> str:
        return f"{type(self).__name__}(pixels={self.pixels!r}, {self.constants})"

    def __call__(
        self, images: torch.Tensor | Sequence[torch.Tensor], *, validate: bool = True
    ) -> dict[str, torch.Tensor]:
        """Images -> the inputs of the vision tower, with HF's keys, shapes and order.

        Args:
            images: floating ``(B, 3, H, W)``, RGB in [0, 1], or a list of ``(3, H, W)`` of
                different sizes. Any floating dtype; never changed in place.
            validate: look at the values too (range, NaN). Costs one pass, and one synchronisation
                on a GPU; shapes and dtypes are checked in any case.

        Returns:
            A dict of tensors. Pixel values are float64 for float64 images and float32 otherwise,
            on the images' device, and differentiable to the images: in ``"float"`` mode exactly
            affine, in the others as said at ``PIXELS``.

        Raises:
            TypeError: not a floating tensor.
            ValueError: shape, channels, emptiness, range, NaN or aspect ratio.
        """
        check_images(images, values=validate)
        return self.process(images)

    @abstractmethod
    def process(self, images: torch.Tensor | Sequence[torch.Tensor]) -> dict[str, torch.Tensor]:
        """``__call__`` without the checks."""

    @staticmethod
    def working(images: torch.Tensor) -> torch.Tensor:
        """In the dtype that is computed in: half precision in float32, which is what HF returns."""
        return images if images.dtype == torch.float64 else images.float()

    def resample(self, images: torch.Tensor, size: tuple[int, int]) -> torch.Tensor:
        """Resize ``(..., H, W)`` by the family's filter, as far as ``pixels`` says like 8 bits."""
        if self.pixels == "uint8":
            return resize_uint8(images, size, self.constants.filter)
        return resize(images, size, self.constants.filter, clamp=self.pixels == "clamp")

    def by_size(
        self,
        images: Sequence[torch.Tensor],
        batch: Callable[[torch.Tensor], torch.Tensor],
    ) -> list[torch.Tensor]:
        """Apply ``batch`` once to all images of a size; the results in the order of the images."""
        sizes: dict[tuple[int, int], list[int]] = {}
        for i, image in enumerate(images):
            sizes.setdefault((image.shape[-2], image.shape[-1]), []).append(i)
        out: dict[int, torch.Tensor] = {}
        for members in sizes.values():
            results = batch(torch.stack([images[i] for i in members]))
            out.update(zip(members, results))
        return [out[i] for i in range(len(images))]
