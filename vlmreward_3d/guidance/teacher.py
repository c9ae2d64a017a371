"""A denoiser together with what its images should show."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from vlmreward_3d.cameras import Cameras
from vlmreward_3d.guidance.base import Denoiser

__all__ = ["Teacher"]


@dataclass(frozen=True)
class Teacher:
    """A denoiser that knows what a batch of N latents should show, and from where.

    Attributes:
        denoiser: The denoiser.
        text: Embeddings (N, L, D) by the name of the prompt.
        cameras: The N cameras.
    """

    denoiser: Denoiser
    text: Mapping[str, Tensor]
    cameras: Cameras

    @property
    def alphas_cumprod(self) -> Tensor:
        """(T,) abar of each timestep."""
        return self.denoiser.alphas_cumprod

    def predict(self, noisy: Tensor, t: Tensor, prompts: tuple[str, ...]) -> tuple[Tensor, ...]:
        """Noise (N, C, H, W) at the timesteps t (N,) for each of some prompts, in one batch."""
        times = len(prompts)
        noise = self.denoiser.predict_noise(
            noisy.repeat(times, 1, 1, 1),
            t.repeat(times),
            torch.cat([self.text[prompt] for prompt in prompts]),
            self.cameras.condition().to(noisy).repeat(times, 1),
        )
        return noise.to(noisy).chunk(times)
