"""Image processors of transformers without a counterpart here, behind the same interface."""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING

import torch

from vlmreward.images.layout import to_compute_dtype
from vlmreward.processors.base import ImageProcessor, Nested, Outputs

if TYPE_CHECKING:
    from transformers.image_processing_utils import BaseImageProcessor

__all__ = ["FallbackProcessor"]


class FallbackProcessor(ImageProcessor):
    """Wrapper of Hugging Face's own torchvision backend, for classes without a counterpart here.

    The backend is given levels from 0 to 255 as floats, so that its own rescaling applies, and its
    gradient is checked before the first use. Images in samples stay in samples: some classes cut a
    single image more finely than several. Limits, compared with the families that have a
    counterpart here: nothing is rounded or clamped as for 8-bit images, arithmetic is float32,
    Lanczos becomes bicubic on a GPU, and gradients on a GPU may differ from run to run.

    Args:
        hf: an image processor with ``backend == "torchvision"``.
        pixel_mode: only ``"float"``.
        backend: only ``"torchvision"``.

    Raises:
        TypeError: not an image processor of that backend, or one that no gradient comes through.
        ValueError: another ``pixel_mode``.

    Attributes:
        options: keyword arguments of every call of ``hf``; none by default.
    """

    nested = True

    def __init__(
        self, hf: BaseImageProcessor, *, pixel_mode: str = "float", backend: str = "torchvision"
    ) -> None:
        name = type(hf).__name__
        if getattr(hf, "backend", None) != "torchvision" or backend != "torchvision":
            raise TypeError(
                f"no differentiable counterpart of {name}; expected an image processor of "
                'transformers with the torchvision backend: load it with backend="torchvision"'
            )
        if pixel_mode != "float":
            raise ValueError(
                f"pixel_mode is {pixel_mode!r} and {name} has no counterpart here; expected 'float'"
            )
        self.hf, self.pixel_mode, self.backend = hf, pixel_mode, backend
        self.options: dict[str, object] = {}
        self._look_at_the_gradient()
        warnings.warn(
            f"{name} has no counterpart in vlmreward: using Hugging Face's torchvision backend. "
            "Its output is not clamped or rounded like that of 8-bit images, and is float32.",
            stacklevel=3,
        )

    def __repr__(self) -> str:
        return f"{type(self).__name__}({type(self.hf).__name__})"

    def _look_at_the_gradient(self) -> None:
        probe = torch.rand(1, 3, 64, 48, generator=torch.Generator().manual_seed(0))
        probe.requires_grad_()
        floats = [v for v in self.process(probe).values() if torch.is_tensor(v) and v.requires_grad]
        total = sum((v.square().sum() for v in floats), probe.new_zeros(()))
        gradient = torch.autograd.grad(total, probe)[0] if floats else None
        if gradient is None or not gradient.any() or not gradient.isfinite().all():
            raise TypeError(
                f"no gradient comes through {type(self.hf).__name__}; expected a processor that "
                "keeps tensors: use a model of a supported family"
            )

    def process(self, images: Nested) -> Outputs:
        """See ``ImageProcessor``."""
        first = images[0]
        flat = isinstance(first, torch.Tensor) and first.ndim == 3
        levels = [
            self._levels(sample)
            if isinstance(sample, torch.Tensor) and flat
            else [self._levels(image) for image in sample]
            for sample in images
        ]
        device = first.device if isinstance(first, torch.Tensor) else first[0].device
        return dict(self.hf(levels, **self.options, return_tensors="pt", device=device))

    def _levels(self, image: torch.Tensor) -> torch.Tensor:
        return to_compute_dtype(image) * 255
