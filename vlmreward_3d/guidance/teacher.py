"""A denoiser together with what its images should show."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from vlmreward_3d.cameras import Cameras
from vlmreward_3d.guidance.base import Denoiser
from vlmreward_3d.guidance.perp_neg import NEGATIVES, mixture_of_sides, unlike_other_sides
from vlmreward_3d.guidance.view_prompts import view_index, view_prompts
from vlmreward_3d.rendering.base import Surface

__all__ = ["Prompts", "Teacher"]

_OTHER_SIDES = tuple(f"other side {i}" for i in range(NEGATIVES))


@dataclass(frozen=True)
class Teacher:
    """A denoiser that knows what a batch of N latents should show, and from where.

    Attributes:
        denoiser: The denoiser.
        text: Embeddings (N, L, D) by the name of the prompt: "prompt", "plain", which has no words
            for the sides of views, "negative" and "empty"; with Perp-Neg also "other side 0" and
            "other side 1".
        cameras: The N cameras.
        other_sides: Weights (N, 2) of Perp-Neg's negative sides; None for a prediction without.
        seed: Seed of noise that belongs to the run and not to a step.
        surface: Where the views of the cameras meet the field; None where nobody has told.
    """

    denoiser: Denoiser
    text: Mapping[str, Tensor]
    cameras: Cameras
    seed: int = 0
    other_sides: Tensor | None = None
    surface: Surface | None = None

    @property
    def alphas_cumprod(self) -> Tensor:
        """(T,) abar of each timestep."""
        return self.denoiser.alphas_cumprod

    def predict(self, noisy: Tensor, t: Tensor, prompts: tuple[str, ...]) -> tuple[Tensor, ...]:
        """Noise (N, C, H, W) at the timesteps t (N,) for each of some prompts, in one batch.

        With Perp-Neg the noise for "prompt" is the one that is moved away from other sides.
        """
        if self.other_sides is None or "prompt" not in prompts:
            return self._predict(noisy, t, prompts)
        extra = () if "negative" in prompts else ("negative",)
        named = (*prompts, *extra, *_OTHER_SIDES)
        said = dict(zip(named, self._predict(noisy, t, named), strict=True))
        said["prompt"] = unlike_other_sides(
            said["prompt"],
            said["negative"],
            torch.stack([said[name] for name in _OTHER_SIDES]),
            self.other_sides,
        )
        return tuple(said[name] for name in prompts)

    def _predict(self, noisy: Tensor, t: Tensor, prompts: tuple[str, ...]) -> tuple[Tensor, ...]:
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
        perp_neg: Blend the prompts of neighbouring sides, and lead away from the other ones; see
            `vlmreward_3d.guidance.perp_neg`.

    Raises:
        ValueError: `perp_neg` without `of_views`.
    """

    def __init__(
        self,
        denoiser: Denoiser,
        prompt: str,
        negative_prompt: str,
        *,
        of_views: bool,
        perp_neg: bool = False,
    ) -> None:
        if perp_neg and not of_views:
            raise ValueError(
                "received perp_neg without view_prompts; expected both: Perp-Neg leads away from "
                "the prompts of other sides"
            )
        self.denoiser = denoiser
        self.of_views = of_views
        self.perp_neg = perp_neg
        sides = view_prompts(prompt) if of_views else []
        with torch.no_grad():
            self.text = denoiser.encode_text([negative_prompt, prompt, "", *sides]).detach()

    def seen_from(
        self, cameras: Cameras, like: Tensor, seed: int = 0, surface: Surface | None = None
    ) -> Teacher:
        """The denoiser with the prompts of the views of N cameras, in the dtype of `like`."""
        text = self.text.to(like)
        negative, plain, empty = (row.expand(len(cameras), -1, -1) for row in text[:3])
        texts = {"negative": negative, "prompt": plain, "plain": plain, "empty": empty}
        sides, weights = text[3:], None
        if self.perp_neg:
            shares, others, weights = (x.to(text.device) for x in mixture_of_sides(cameras))
            texts["prompt"] = torch.einsum("ns,sld->nld", shares.to(text), sides)
            texts |= {name: sides[others[:, i]] for i, name in enumerate(_OTHER_SIDES)}
        elif self.of_views:
            texts["prompt"] = sides[view_index(cameras).to(text.device)]
        return Teacher(self.denoiser, texts, cameras, seed, weights, surface)
