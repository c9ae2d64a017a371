"""Several noises per step, ranked by a reward whose gradient is not needed.

Score distillation follows the mode of the denoiser that the drawn noise leads to. For a prompt that
the denoiser does not represent well, most modes are wrong. Here several noises are drawn at the
same timestep, the reward evaluates the predicted original of each, and for each group of views the
rewards determine the weights of the gradients.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from vlmreward.utils.arguments import number, reward_like, whole
from vlmreward_3d.config import RANKINGS
from vlmreward_3d.guidance.rules.base import Gradient, Prediction

__all__ = ["NoiseSelection", "ranking_weights"]

_BEST, _WORST = 0.9, -0.1
"""Weights of the two best and of the two worst candidates together, as in RewardSDS's code."""


class NoiseSelection:
    """The gradient of several noises, weighted by the rewards of their predicted originals.

    Args:
        reward: Function reward(images (B, V, 3, H, W) in [0, 1], prompt=str) -> (B,).
        prompt: Text prompt that the images are to match.
        n_candidates: Number of noises, at least 2; exactly 2 for "preference". Each costs a pass of
            the denoiser.
        stop_at: Progress from which on one noise is drawn, without a ranking.
        ranking: Name of the function from rewards to weights; see `ranking_weights`.
        margin: Least difference of two rewards that counts as a preference.

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
        ranking: str = "best",
        margin: float = 0.0,
    ) -> None:
        reward_like(reward)
        whole("n_candidates", n_candidates, least=2)
        number("stop_at", stop_at, least=0, most=1)
        number("margin", margin, least=0)
        if ranking not in RANKINGS:
            raise ValueError(f"received ranking={ranking!r}; expected one of {RANKINGS}")
        if ranking == "preference" and n_candidates != 2:
            raise ValueError(
                f"received n_candidates={n_candidates} with ranking='preference'; expected 2, of "
                "which one is preferred"
            )
        self.reward = reward
        self.prompt = prompt
        self.n_candidates = n_candidates
        self.stop_at = stop_at
        self.ranking = ranking
        self.margin = margin

    @torch.no_grad()
    def gradient(
        self,
        rule: Gradient,
        candidates: Sequence[Prediction],
        to_images: Callable[[Tensor], Tensor],
    ) -> tuple[Tensor, Tensor]:
        """The weighted sum of the candidates' gradients.

        Where a candidate is not preferred, its gradient is subtracted without guidance (DreamDPO;
        Zhou et al., 2025, Eq. 8 with its code's correction for the noise of both).

        Args:
            rule: The distillation rule.
            candidates: K predictions of the same latents at the same timesteps.
            to_images: Turns latents into images in [0, 1]; see `Denoiser.to_images`.

        Returns:
            The gradient (N, C, H, W) at the latents, divided by N, and the rewards (K, G) of the G
            groups of views.
        """
        group = candidates[0].group_size
        rewards = []
        for candidate in candidates:
            images = to_images(candidate.original)
            views = images.reshape(-1, group, *images.shape[1:])
            rewards.append(self.reward(views, prompt=self.prompt))
        scores = torch.stack(rewards)
        total = torch.zeros_like(candidates[0].latents)
        for weights, candidate in zip(
            ranking_weights(scores, self.ranking, self.margin), candidates
        ):
            each = weights.to(total).repeat_interleave(group).reshape(-1, 1, 1, 1)
            gradient = rule(candidate)
            if self.ranking == "preference":
                plain = rule(dataclasses.replace(candidate, guidance_scale=1.0))
                gradient = torch.where(each < 0, plain, gradient)
            total = total + each * gradient
        return total, scores


def ranking_weights(scores: Tensor, ranking: str, margin: float = 0.0) -> Tensor:
    """Weights of candidates by their scores, both (K, G).

    - "best": 1 for the best (RewardSDS; Chachy et al., 2025).
    - "softmax": The softmax of the scores (the same).
    - "min-max": 0.9 for the two best together and -0.1 for the two worst (the same).
    - "preference": 1 for the better of two; -1 for the other one if it is worse by at least the
      margin, and 0 otherwise (DreamDPO).
    """
    if ranking == "softmax":
        return scores.softmax(dim=0)
    order = scores.argsort(dim=0, descending=True, stable=True)
    weights = torch.zeros_like(scores)
    if ranking == "min-max":
        share = torch.full_like(scores[:2], 0.5)
        weights.scatter_add_(0, order[:2], _BEST * share)
        return weights.scatter_add_(0, order[-2:], _WORST * share)
    weights.scatter_(0, order[:1], 1.0)
    if ranking == "preference":
        apart = scores.amax(dim=0) - scores.amin(dim=0) >= margin
        weights.scatter_(0, order[1:], -apart[None].to(scores))
    return weights
