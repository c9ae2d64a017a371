"""Best of several noises by a reward, as in RewardSDS (Chachy et al., 2025, its "best" weighting).

Score distillation follows whichever mode of the denoiser the drawn noise leads to. Where the
denoiser does not know what was asked for, most modes are wrong: the selection draws several noises
at the same timestep, and keeps for each group of views the one whose predicted original the reward
likes best. It needs no gradient of the reward.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from vlmreward.utils.arguments import number, reward_like, whole
from vlmreward_3d.guidance.rules.base import Prediction

__all__ = ["NoiseSelection"]


class NoiseSelection:
    """Selects one of several noises by the reward of the originals that they lead to.

    Args:
        reward: reward(images (B, V, 3, H, W) in [0, 1], prompt=str) -> (B,).
        prompt: What the images should show.
        n_candidates: Number of noises, at least 2. Each costs a pass of the denoiser.
        stop_at: Progress from which on one noise is drawn, without a choice.

    Raises:
        TypeError, ValueError: An argument has the wrong type or is out of range.
    """

    def __init__(
        self,
        reward: Callable[..., Tensor],
        prompt: str,
        *,
        n_candidates: int = 4,
        stop_at: float = 0.9,
    ) -> None:
        reward_like(reward)
        whole("n_candidates", n_candidates, least=2)
        number("stop_at", stop_at, least=0, most=1)
        self.reward = reward
        self.prompt = prompt
        self.n_candidates = n_candidates
        self.stop_at = stop_at

    @torch.no_grad()
    def choose(
        self, candidates: Sequence[Prediction], to_images: Callable[[Tensor], Tensor]
    ) -> tuple[Prediction, Tensor]:
        """The best candidate of each group of views.

        Args:
            candidates: K predictions of the same latents at the same timesteps.
            to_images: Turns latents into images in [0, 1]; see `Denoiser.to_images`.

        Returns:
            The prediction put together from the best candidates, and the rewards (K, G) of the G
            groups.
        """
        group = candidates[0].group_size
        rewards = []
        for candidate in candidates:
            images = to_images(candidate.original)
            views = images.reshape(-1, group, *images.shape[1:])
            rewards.append(self.reward(views, prompt=self.prompt))
        scores = torch.stack(rewards)
        best = scores.argmax(dim=0).repeat_interleave(group).tolist()
        rows = range(len(best))

        def chosen(name: str) -> Tensor:
            return torch.stack([getattr(candidates[k], name)[i] for i, k in zip(rows, best)])

        chosen_prediction = dataclasses.replace(
            candidates[0],
            noise=chosen("noise"),
            noisy=chosen("noisy"),
            unconditional=chosen("unconditional"),
            conditional=chosen("conditional"),
            empty=None if candidates[0].empty is None else chosen("empty"),
        )
        return chosen_prediction, scores
