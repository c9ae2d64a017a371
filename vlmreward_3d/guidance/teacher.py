"""A denoiser together with what its images should show."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from vlmreward_3d.cameras import Cameras
from vlmreward_3d.guidance.base import Denoiser
from vlmreward_3d.guidance.view_prompts import view_index, view_prompts

__all__ = ["Prompts", "Teacher"]


@dataclass(frozen=True)
class Teacher:
    """A denoiser that knows what a batch of N latents should show, and from where.

    Attributes:
        denoiser: The denoiser.
        text: Embeddings (N, L, D) by the name of the prompt: "prompt", "plain", which has no words
            for the sides of views, "negative" and "empty".
        cameras: The N cameras.
        seed: Seed of noise that belongs to the run and not to a step.
    """

    denoiser: Denoiser
    text: Mapping[str, Tensor]
    cameras: Cameras
    seed: int = 0

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


class Prompts:
    """The embeddings of a run's prompts.

    Args:
        denoiser: The denoiser whose text encoder is asked.
        prompt: What the images should show.
        negative_prompt: What the guidance leads away from.
        of_views: Say in the prompt which side a view shows; see `view_prompts`.
    """

    def __init__(
        self, denoiser: Denoiser, prompt: str, negative_prompt: str, *, of_views: bool
    ) -> None:
        self.denoiser = denoiser
        self.of_views = of_views
        sides = view_prompts(prompt) if of_views else []
        with torch.no_grad():
            self.text = denoiser.encode_text([negative_prompt, prompt, "", *sides]).detach()

    def seen_from(self, cameras: Cameras, like: Tensor, seed: int = 0) -> Teacher:
        """The denoiser with the prompts of the views of N cameras, in the dtype of `like`."""
        text = self.text.to(like)
        negative, plain, empty = (row.expand(len(cameras), -1, -1) for row in text[:3])
        shown = plain
        if self.of_views:
            shown = text[3:][view_index(cameras).to(text.device)]
        texts = {"negative": negative, "prompt": shown, "plain": plain, "empty": empty}
        return Teacher(self.denoiser, texts, cameras, seed)
