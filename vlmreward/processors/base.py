"""The base of all image processors: constants, pixel modes, grouping by size."""

from __future__ import annotations

import functools
import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import torch

from vlmreward.images.layout import to_compute_dtype
from vlmreward.images.validation import check_images, flatten_views
from vlmreward.processors.affine_autograd import AffineMap, Map, apply_in_chunks
from vlmreward.processors.quantized_resize import BACKENDS, resize_uint8
from vlmreward.processors.resize import resize, resize_into
from vlmreward.utils.arguments import number
from vlmreward.utils.lasting import lasting

if TYPE_CHECKING:
    from transformers.image_processing_utils import BaseImageProcessor

__all__ = [
    "GRADIENTS",
    "PIXEL_MODES",
    "Constants",
    "ImageProcessor",
    "Nested",
    "OutputTransform",
    "Outputs",
    "per_channel",
    "read_constants",
]

Nested = torch.Tensor | Sequence[torch.Tensor] | Sequence[Sequence[torch.Tensor]]
"""Images, or samples of images."""

Outputs = dict[str, Any]
"""Tensors under HF's keys, and lists where HF returns them."""

PIXEL_MODES = ("float", "clamp", "uint8")
"""Degrees to which the forward pass follows Hugging Face's 8-bit path.

- ``"float"``: not at all; exactly affine in the pixels, so bicubic overshoot stays.
- ``"clamp"``: saturates to [0, 1] where 8-bit images do; zero gradient at what was cut off.
- ``"uint8"``: also rounds as they do, identical to HF on the 8-bit image; the gradient is
  straight-through, that of "float".
"""

GRADIENTS = {
    "float": "exact",
    "clamp": "exact, zero where a value was cut off",
    "uint8": 'straight-through: that of "float"',
}
"""The meaning of the gradient, for each of ``PIXEL_MODES``."""

_FILTERS = {1: "lanczos", 2: "bilinear", 3: "bicubic"}  # PIL's numbers


@dataclass(frozen=True)
class Constants:
    """Numbers of an HF image processor, for input in [0, 1]: ``x * scale + bias`` per channel."""

    scale: tuple[float, ...]
    bias: tuple[float, ...]
    filter: str
    do_resize: bool


def read_constants(hf: BaseImageProcessor) -> Constants:
    """Constants from an HF image processor; nothing is assumed that it can tell.

    Raises:
        ValueError: the processor has a filter that is not available here, or normalizes by anything
            but a finite mean and a positive deviation of three channels.
    """
    if hf.do_resize and int(hf.resample) not in _FILTERS:
        raise ValueError(
            f"the image processor resizes with PIL filter {int(hf.resample)}; expected one of "
            f"{_FILTERS}: set its `resample`"
        )
    # HF counts in 8-bit levels before its rescale_factor; the contract here is [0, 1]
    rescale = 255.0 * hf.rescale_factor if hf.do_rescale else 1.0
    mean = _of_channels(hf, "image_mean") if hf.do_normalize else (0.0,) * 3
    std = _of_channels(hf, "image_std", above=0) if hf.do_normalize else (1.0,) * 3
    return Constants(
        scale=tuple(rescale / s for s in std),
        bias=tuple(-m / s for m, s in zip(mean, std)),
        filter=_FILTERS[int(hf.resample)] if hf.do_resize else "bicubic",
        do_resize=bool(hf.do_resize),
    )


def _of_channels(hf: BaseImageProcessor, name: str, **bounds: float) -> tuple[float, ...]:
    """A setting of three numbers, one a channel."""
    values = getattr(hf, name)
    if not isinstance(values, (tuple, list)) or len(values) != 3:
        raise ValueError(
            f"the image processor has {name}={values!r}; expected three numbers, one a channel"
        )
    return tuple(number(f"{name}[{i}]", value, **bounds) for i, value in enumerate(values))


@functools.lru_cache(maxsize=64)
def _kept(values: tuple[float, ...], dtype: torch.dtype, device: torch.device) -> torch.Tensor:
    with lasting():
        return torch.tensor(values, dtype=dtype, device=device).view(-1, 1, 1)


def per_channel(
    values: tuple[float, ...], dtype: torch.dtype, device: torch.device
) -> torch.Tensor:
    """Tensor ``(C, 1, 1)`` of these values, cached to avoid a GPU synchronization at every call."""
    if torch.compiler.is_compiling():  # which keeps constants of its own
        return torch.tensor(values, dtype=dtype, device=device).view(-1, 1, 1)
    return _kept(values, dtype, device)


@dataclass(frozen=True)
class OutputTransform:
    """The map after the resize, of images ``(B, 3, H, W)``: an affine map, image by image.

    ``affine`` and ``linear`` take ``out=``, where to write the result, or None; only without it are
    they seen by autograd.

    Attributes:
        shape: shape of an image's result.
        affine: the map, from a batch to ``(B, *shape)``.
        linear: its linear part: each channel times its scale, then a rearrangement.
        adjoint: the transpose of the rearrangement alone; it may return a view.
    """

    shape: tuple[int, ...]
    affine: Map
    linear: Map
    adjoint: Map


class ImageProcessor(ABC):
    """Differentiable counterpart of one HF image processor.

    Call it with images in [0, 1]; see ``__call__``. Families implement ``process``.

    Attributes:
        hf_classes: names of the HF classes of which it is the counterpart.
        nested: True if images come in samples of several images each.
        other_models: models that use it beside those of ``models.families``, for tables in the
            documentation.
        summary: its operations and its output in words, for tables in the documentation.
        pixel_mode: one of ``PIXEL_MODES``.
        backend: library whose 8-bit arithmetic ``pixel_mode="uint8"`` follows, one of ``BACKENDS``.
    """

    hf_classes: ClassVar[frozenset[str]] = frozenset()
    nested: ClassVar[bool] = False
    other_models: ClassVar[str] = ""
    summary: ClassVar[str] = ""

    def __init__(
        self, hf: BaseImageProcessor, *, pixel_mode: str = "float", backend: str = "torchvision"
    ) -> None:
        if pixel_mode not in PIXEL_MODES:
            raise ValueError(f"pixel_mode is {pixel_mode!r}; expected one of {PIXEL_MODES}")
        if backend not in BACKENDS:
            raise ValueError(f"backend is {backend!r}; expected one of {BACKENDS}")
        self.constants = read_constants(hf)
        self.pixel_mode = pixel_mode
        self.backend = backend

    def __repr__(self) -> str:
        return f"{type(self).__name__}(pixel_mode={self.pixel_mode!r}, {self.constants})"

    @property
    def gradient(self) -> str:
        """The meaning of the gradient, one of ``GRADIENTS``."""
        return GRADIENTS[self.pixel_mode]

    def __call__(
        self, images: Any, *, dtype: torch.dtype | None = None, validate: bool = True
    ) -> Outputs:
        """Images -> the inputs of the vision tower, with HF's keys, shapes and order.

        Args:
            images: floating ``(B, 3, H, W)``, RGB in [0, 1], or a list of ``(3, H, W)`` of
                different sizes. Where ``nested``, these are the images of one sample; for several
                pass ``(B, V, 3, H, W)``, or a list of lists. Any floating dtype; never changed in
                place.
            dtype: floating dtype of the pixel values; by default that of the computation,
                float64 for float64 images and float32 otherwise.
            validate: check the values too (range, NaN), in one pass, with one synchronization on
                a GPU; shapes and dtypes are checked in any case.

        Returns:
            A dict of tensors. Pixel values are on the images' device and differentiable to the
            images: exactly affine in ``"float"`` mode; for the others see ``PIXEL_MODES``.

        Raises:
            TypeError: not a floating tensor, or not a floating ``dtype``.
            ValueError: wrong shape, channel count, aspect ratio or range, NaN, or no images.
        """
        if self.nested:
            flatten_views(images, values=validate)
        else:
            check_images(images, values=validate)
        if dtype is not None and not (isinstance(dtype, torch.dtype) and dtype.is_floating_point):
            raise TypeError(f"dtype is {dtype!r}; expected a floating dtype, e.g. torch.bfloat16")
        out = self.process(images)
        if dtype is None:
            return out
        return {
            key: value.to(dtype)
            if isinstance(value, torch.Tensor) and value.is_floating_point()
            else value
            for key, value in out.items()
        }

    @abstractmethod
    def process(self, images: Any) -> Outputs:
        """``__call__`` without the checks."""

    def resample(self, images: torch.Tensor, size: tuple[int, int]) -> torch.Tensor:
        """Resize ``(..., H, W)`` by the family's filter, as ``pixel_mode`` says."""
        if self.pixel_mode == "uint8":
            return resize_uint8(images, size, self.constants.filter, backend=self.backend)
        return resize(images, size, self.constants.filter, clamp=self.pixel_mode == "clamp")

    def normalization(self, size: tuple[int, int]) -> OutputTransform:
        """The output transform that only applies scale and bias of every channel."""
        scale, bias = self.constants.scale, self.constants.bias

        def affine(x: torch.Tensor, out: torch.Tensor | None = None) -> torch.Tensor:
            return torch.addcmul(
                per_channel(bias, x.dtype, x.device),
                x,
                per_channel(scale, x.dtype, x.device),
                out=out,
            )

        def linear(x: torch.Tensor, out: torch.Tensor | None = None) -> torch.Tensor:
            return torch.mul(x, per_channel(scale, x.dtype, x.device), out=out)

        return OutputTransform((len(scale), *size), affine, linear, adjoint=lambda g: g)

    def resize_and_transform(
        self, images: torch.Tensor, size: tuple[int, int], layout: OutputTransform
    ) -> torch.Tensor:
        """Resize a batch ``(B, 3, H, W)`` and lay it out, a few images at a time."""
        images = to_compute_dtype(images)
        # autograd finds the derivative where it depends on the image, and a compiler always does
        if self.pixel_mode == "clamp" or torch.compiler.is_compiling():
            return layout.affine(self.resample(images, size))
        before = (images.shape[-2], images.shape[-1])
        filter = self.constants.filter

        def forward(x: torch.Tensor, out: torch.Tensor | None = None) -> torch.Tensor:
            return layout.affine(self.resample(x, size), out=out)

        def linear(x: torch.Tensor, out: torch.Tensor | None = None) -> torch.Tensor:
            return layout.linear(resize_into(x, size, filter), out=out)

        def adjoint(grad: torch.Tensor, out: torch.Tensor | None = None) -> torch.Tensor:
            grad = layout.adjoint(grad)
            scale = per_channel(self.constants.scale, grad.dtype, grad.device)
            # the scale goes past the resize: where it takes less memory, and then less time
            if 4 * math.prod(size) <= math.prod(before):
                return resize_into(grad * scale, before, filter, adjoint=True, out=out)
            if size == before:
                return torch.mul(grad, scale, out=out)
            return resize_into(grad, before, filter, adjoint=True, out=out).mul_(scale)

        return apply_in_chunks(
            images,
            AffineMap(layout.shape, forward, linear, adjoint),
            values=images.shape[1] * max(math.prod(before), math.prod(size)),
        )

    def by_size(
        self,
        images: Sequence[torch.Tensor],
        batch: Callable[[torch.Tensor], torch.Tensor],
    ) -> list[torch.Tensor]:
        """Apply ``batch`` once to all images of a size; the results in the order of the images."""
        sizes: dict[torch.Size, list[int]] = {}
        for i, image in enumerate(images):
            sizes.setdefault(image.shape, []).append(i)
        out: dict[int, torch.Tensor] = {}
        for members in sizes.values():
            alone = len(members) == 1
            results = batch(
                images[members[0]][None] if alone else torch.stack([images[i] for i in members])
            )
            out.update(zip(members, results))
        return [out[i] for i in range(len(images))]
