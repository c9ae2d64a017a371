"""A denoiser together with the text embeddings and cameras of a batch of views."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from vlmreward_3d.cameras import Cameras
from vlmreward_3d.config import RegionConfig
from vlmreward_3d.guidance.base import Denoiser
from vlmreward_3d.guidance.perp_neg import NEGATIVES, mixture_of_sides, unlike_other_sides
from vlmreward_3d.guidance.regions import composed, region_masks, sides_of_region
from vlmreward_3d.guidance.view_prompts import VIEWS, view_index, view_prompts
from vlmreward_3d.rendering.base import Surface

__all__ = ["Prompts", "Teacher"]

_OTHER_SIDES = tuple(f"other side {i}" for i in range(NEGATIVES))


@dataclass(frozen=True)
class Teacher:
    """A denoiser with the text embeddings and the cameras of a batch of N latents.

    Attributes:
        denoiser: The denoiser.
        text: Embeddings (N, L, D) by the name of the prompt: "prompt", "plain", which has no words
            for the sides of views, "negative" and "empty"; with Perp-Neg also "other side 0" and
            "other side 1", and with R regions "region 0" to "region R - 1".
        cameras: The N cameras.
        other_sides: Weights (N, 2) of Perp-Neg's negative sides; None for a prediction without.
        seed: Seed of noise that belongs to the run and not to a step.
        surface: Points at which the views of the cameras meet the field; None if not known.
        masks: Weights (R, N, 1, H, W) of regions; None without regions.
    """

    denoiser: Denoiser
    text: Mapping[str, Tensor]
    cameras: Cameras
    seed: int = 0
    other_sides: Tensor | None = None
    surface: Surface | None = None
    masks: Tensor | None = None

    @property
    def alphas_cumprod(self) -> Tensor:
        """(T,) abar of each timestep."""
        return self.denoiser.alphas_cumprod

    def predict(self, noisy: Tensor, t: Tensor, prompts: tuple[str, ...]) -> tuple[Tensor, ...]:
        """Noise (N, C, H, W) at the timesteps t (N,) for each of some prompts, in one batch.

        With Perp-Neg the noise for "prompt" is the one that is moved away from other sides, and
        with regions the one that is composed of theirs.
        """
        if self.masks is not None and "prompt" in prompts:
            regions = tuple(f"region {i}" for i in range(len(self.masks)))
            noises = self._predict(noisy, t, (*prompts, *regions))
            said = dict(zip((*prompts, *regions), noises, strict=True))
            regional = torch.stack([said[name] for name in regions])
            said["prompt"] = composed(said["prompt"], regional, self.masks)
            return tuple(said[name] for name in prompts)
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
    """The text embeddings of a run's prompts.

    Args:
        denoiser: The denoiser whose text encoder computes the embeddings.
        prompt: Text prompt that the images are to match.
        negative_prompt: Negative prompt of classifier-free guidance; "" for none.
        of_views: Add words for the side that a view shows to the prompt; see `view_prompts`.
        perp_neg: Blend the prompts of neighboring sides, and use negative prompts of the other
            sides; see `vlmreward_3d.guidance.perp_neg`.
        regions: Parts of the scene with prompts of their own; see `vlmreward_3d.guidance.regions`.

    Raises:
        ValueError: `perp_neg` without `of_views`, or with regions.
    """

    def __init__(
        self,
        denoiser: Denoiser,
        prompt: str,
        negative_prompt: str,
        *,
        of_views: bool,
        perp_neg: bool = False,
        regions: Sequence[RegionConfig] = (),
    ) -> None:
        if perp_neg and not of_views:
            raise ValueError(
                "received perp_neg without view_prompts; expected both: Perp-Neg leads away from "
                "the prompts of other sides"
            )
        if perp_neg and regions:
            raise ValueError(
                "received perp_neg with regions; expected one of the two: a region's prompt has no "
                "negatives"
            )
        self.denoiser = denoiser
        self.regions = regions
        self.of_views = of_views
        self.perp_neg = perp_neg
        sides = view_prompts(prompt) if of_views else []
        for region in regions:
            sides += view_prompts(region.prompt) if of_views else [region.prompt]
        with torch.no_grad():
            self.text = denoiser.encode_text([negative_prompt, prompt, "", *sides]).detach()

    def seen_from(
        self, cameras: Cameras, like: Tensor, seed: int = 0, surface: Surface | None = None
    ) -> Teacher:
        """The teacher for the views of N cameras, with embeddings in the dtype of `like`."""
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
        masks = None
        if self.regions:
            texts |= self._of_regions(sides[len(VIEWS) if self.of_views else 0 :], cameras)
            masks = region_masks(cameras, self.regions, *like.shape[2:]).to(like)
        return Teacher(self.denoiser, texts, cameras, seed, weights, surface, masks)

    def _of_regions(self, text: Tensor, cameras: Cameras) -> dict[str, Tensor]:
        """Embeddings (N, L, D) of the regions' prompts, by the sides that the cameras see."""
        found = {}
        for i, (region, words) in enumerate(zip(self.regions, text.chunk(len(self.regions)))):
            if self.of_views:
                found[f"region {i}"] = words[sides_of_region(cameras, region).to(text.device)]
            else:
                found[f"region {i}"] = words.expand(len(cameras), -1, -1)
        return found
