"""Rewards as scorers of imscore, and its scorers as rewards."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import nn

from vlmreward.images.batch import ImageBatch
from vlmreward.rewards.module import RewardModule
from vlmreward.rewards.placeholders import Text
from vlmreward.rewards.protocol import Reward, call_reward
from vlmreward.utils.arguments import reward_like

__all__ = ["RewardScorer", "ScorerReward"]


class RewardScorer(nn.Module):
    """A reward that is called as imscore's scorers are: ``score(pixels, prompts)``.

    Args:
        reward: any reward; one that is a module goes along with ``to`` and ``parameters``.

    Raises:
        TypeError: the reward cannot be called.

    Example:
        ``RewardScorer(reward).score(images, ["a cat"]).mean().backward()``.
    """

    def __init__(self, reward: Reward) -> None:
        super().__init__()
        reward_like(reward)
        self.reward = reward

    def score(self, pixels: torch.Tensor, prompts: Sequence[str] | None = None) -> torch.Tensor:
        """The reward of each image.

        Args:
            pixels: float ``(B, 3, H, W)`` in [0, 1]; differentiable.
            prompts: B prompts; None for a reward without ``{prompt}``.

        Returns:
            ``(B,)``.

        Raises:
            ValueError: another number of prompts than of images.
        """
        if isinstance(prompts, str) or (prompts is not None and len(prompts) != len(pixels)):
            received = "one str" if isinstance(prompts, str) else f"{len(prompts)} prompts"
            raise ValueError(
                f"received {received} and {len(pixels)} images; expected a list of as many prompts"
            )
        values: dict[str, Text] = {} if prompts is None else {"prompt": list(prompts)}
        return call_reward(self.reward, ImageBatch.of(pixels), values)

    forward = score


class ScorerReward(RewardModule):
    """A scorer of imscore, such as PickScore or HPSv2, as a reward.

    It can then be wrapped, mixed with questions to a VLM and watched as any other reward. Images of
    different sizes, and the views of a query, are scored one by one; the reward of several views is
    their mean.

    Args:
        scorer: an object with ``score(pixels, prompts)``, ``pixels`` ``(B, 3, H, W)`` in [0, 1] and
            ``prompts`` a list of B, which returns ``(B,)`` or ``(B, 1)``.

    Raises:
        TypeError: the scorer has no method ``score``.
    """

    def __init__(self, scorer: Any) -> None:
        super().__init__()
        if not callable(getattr(scorer, "score", None)):
            raise TypeError(
                f"scorer is a {type(scorer).__name__}; expected an object with score(pixels, "
                "prompts), as those of imscore"
            )
        self.scorer = scorer

    def forward_batch(self, batch: ImageBatch, values: Any) -> torch.Tensor:
        """The reward ``(B,)`` of each query, the mean score of its views; see ``RewardModule``.

        Raises:
            ValueError: the numbers of scores and of images differ: some scorers of imscore
                average over their batch.
        """
        unknown = sorted(values.keys() - {"prompt"})
        if unknown:
            raise ValueError(
                f"a scorer has no placeholder {', '.join(unknown)}; expected prompt alone: leave "
                f"out {unknown[0]}=..."
            )
        counts = batch.counts
        prompt = values.get("prompt", "")
        prompts = [prompt] * len(batch) if isinstance(prompt, str) else list(prompt)
        if len(prompts) != len(batch):
            raise ValueError(
                f"prompt has {len(prompts)} items for {len(batch)} queries; expected one str for "
                f"all or a list of {len(batch)}"
            )
        each = [text for text, count in zip(prompts, counts) for _ in range(count)]
        views = batch.views
        if isinstance(views, torch.Tensor):
            scores = self._scores(views, each)
        else:
            scores = torch.cat([self._scores(x[None], [text]) for x, text in zip(views, each)])
        return torch.stack([part.mean() for part in scores.split(counts)])

    def _scores(self, pixels: torch.Tensor, prompts: list[str]) -> torch.Tensor:
        scores = self.scorer.score(pixels, prompts)
        if scores.numel() != len(pixels):
            raise ValueError(
                f"{type(self.scorer).__name__}.score returned shape {tuple(scores.shape)} for "
                f"{len(pixels)} images; expected a score an image: call it with one image at a "
                "time, by MicroBatched(reward, micro_batch_size=1)"
            )
        return scores.reshape(-1)
