"""Interfaces of guidances: each receives rendered images and returns a gradient at their pixels.

A guidance never sees the field, so it can run on another device or in another precision, and its
graph is freed before the next guidance runs.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Protocol, runtime_checkable

import torch
from torch import Tensor

from vlmreward_3d.cameras import Cameras

__all__ = ["CameraBound", "Denoiser", "Guidance", "GuidanceOutput", "Stateful"]


class Denoiser(Protocol):
    """A noise-predicting multi-view diffusion model.

    A denoiser of latents also has `latent_channels`, and takes images (N, latent_channels, H, W)
    as latents.

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

    def to_images(self, latents: Tensor) -> Tensor:
        """Latents to images (N, 3, H, W) in [0, 1], without a graph."""
        ...

    def predict_noise(self, noisy: Tensor, t: Tensor, text: Tensor, cameras: Tensor) -> Tensor:
        """Noise in (N, C, h, w), given t (N,), text (N, L, D) and camera conditions (N, 16)."""
        ...


@runtime_checkable
class CameraBound(Protocol):
    """A denoiser that was trained on views of certain cameras only."""

    def check_cameras(self, cameras: Cameras) -> None:
        """Raise a ValueError if the denoiser was not trained on views of such cameras."""
        ...


@dataclass(frozen=True)
class GuidanceOutput:
    """Value, gradient and metrics of a guidance for a batch of images.

    Attributes:
        value: Scalar, detached: a loss or a reward.
        gradient: (N, 3, H, W), detached, or (N, 4, H, W) at latents: the direction at the images
            that gradient descent follows. For a loss it is the gradient of `value` (or, for score
            distillation, its substitute), for a reward that of -`value`.
        metrics: Numbers for the log, by name.
    """

    value: Tensor
    gradient: Tensor
    metrics: dict[str, float] = field(default_factory=dict)


@runtime_checkable
class Guidance(Protocol):
    """A loss or reward on rendered images that returns its own gradient.

    A guidance that also takes rendered latents has an attribute `accepts_latents` that is True, and
    one that needs the points where its views meet the field an attribute `accepts_surface`; see
    `vlmreward_3d.guidance.rendered_latents.evaluate`.

    Attributes:
        name: Prefix of its metrics in the log, such as "sds" or "vlm".
    """

    @property
    def name(self) -> str:
        """Prefix of the metrics."""
        ...

    def __call__(
        self, images: Tensor, cameras: Cameras, progress: float, generator: torch.Generator
    ) -> GuidanceOutput:
        """Evaluate the images.

        Args:
            images: (N, 3, H, W) in [0, 1]; no graph is kept to them.
            cameras: The N cameras that rendered them.
            progress: Share of the run that is done, in [0, 1].
            generator: CPU source of random numbers.
        """
        ...


@runtime_checkable
class Stateful(Protocol):
    """A guidance with a state that changes during a run and is stored in the run's checkpoints."""

    def state(self) -> dict[str, Tensor]:
        """Everything that a later step depends on, as flat tensors."""
        ...

    def load_state(self, state: dict[str, Tensor]) -> None:
        """Continue from a `state`, whose tensors may be on another device."""
        ...
