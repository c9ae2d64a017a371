"""Teachers: each looks at rendered pixels and answers with a value and its gradient there.

A teacher never sees the field, so it can live on another device or in another precision, and its
graph is gone before the next one runs.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from torch import Tensor

__all__ = ["Denoiser", "GuidanceOutput"]


class Denoiser(Protocol):
    """A noise-predicting multi-view diffusion model.

    Attributes:
        n_views: Consecutive images that form one group.
        alphas_cumprod: (T,) abar of each timestep.
    """

    n_views: int
    alphas_cumprod: Tensor

    def encode_text(self, texts: list[str]) -> Tensor:
        """Embeddings (n, L, D) of n texts."""
        ...

    def to_latents(self, images: Tensor) -> Tensor:
        """Images (N, 3, H, W) in [0, 1] to the denoiser's space, differentiable."""
        ...

    def predict_noise(self, noisy: Tensor, t: Tensor, text: Tensor, cameras: Tensor) -> Tensor:
        """Noise in (N, C, h, w), given t (N,), text (N, L, D) and camera conditions (N, 16)."""
        ...


@dataclass(frozen=True)
class GuidanceOutput:
    """What a teacher says about a batch of images.

    Attributes:
        value: Scalar, detached.
        gradient: Its derivative (or, for score distillation, what stands for it) at the images, in
            their shape, detached.
    """

    value: Tensor
    gradient: Tensor
