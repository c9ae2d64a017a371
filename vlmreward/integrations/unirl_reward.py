"""Adapter of rewards to UniRL's training by back-propagation (ReFL, DRaFT)."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import torch
from torch import nn

from vlmreward.images.batch import ImageBatch
from vlmreward.rewards.protocol import Reward, call_reward, require_graph
from vlmreward.utils.arguments import reward_like

__all__ = ["UniRLReward"]

Record = Mapping[str, object]


class UniRLReward(nn.Module):
    """The protocol ``DifferentiableReward`` of UniRL around a reward.

    UniRL calls ``compute_rewards_differentiable`` of a backend and uses its scores with their
    graph. This class only has that method: mix it into a backend of UniRL, as the documentation
    shows.

    Args:
        reward: any reward that is differentiable to the images.
        make_prompt: function from a sample's prompt and record (None without records) to the
            reward's prompt; default: the prompt.

    Raises:
        TypeError: ``reward`` cannot be called.
    """

    def __init__(
        self, reward: Reward, *, make_prompt: Callable[[str, Record | None], str] | None = None
    ) -> None:
        super().__init__()
        reward_like(reward)
        self.reward = reward
        self.make_prompt = make_prompt

    def compute_rewards_differentiable(
        self,
        media_tensor: torch.Tensor,
        prompts: Sequence[str],
        records: Sequence[Record] | None = None,
    ) -> torch.Tensor:
        """Scores of images or videos, with their graph.

        Args:
            media_tensor: float in [0, 1]: images ``(B, 3, H, W)``, or videos ``(B, 3, T, H, W)``,
                whose T frames are the views of one question. Values that the decoder left outside
                of [0, 1] are clamped, without a gradient there.
            prompts: B prompts.
            records: B records of the data set.

        Returns:
            ``(B,)``; differentiable to ``media_tensor``.

        Raises:
            TypeError, ValueError: media of another kind or shape, or numbers that do not go
                together.
            RuntimeError: the reward has no graph although the media have one.
        """
        if not isinstance(media_tensor, torch.Tensor) or media_tensor.ndim not in (4, 5):
            shape = tuple(getattr(media_tensor, "shape", ()))
            raise ValueError(
                f"media_tensor is a {type(media_tensor).__name__} of shape {shape}; expected "
                "images (B, 3, H, W) or videos (B, 3, T, H, W)"
            )
        notes: Sequence[Record | None] = [None] * len(prompts) if records is None else records
        if isinstance(prompts, str) or not len(prompts) == len(notes) == len(media_tensor):
            raise ValueError(
                f"received {len(media_tensor)} images or videos, {len(prompts)} prompts and "
                f"{len(notes)} records; expected as many of each"
            )
        make = self.make_prompt
        asked = [make(p, note) if make else p for p, note in zip(prompts, notes)]
        images = media_tensor if media_tensor.ndim == 4 else media_tensor.transpose(1, 2)
        batch = ImageBatch.of(images.float().clamp(0, 1))
        found = call_reward(self.reward, batch, {"prompt": asked})
        if media_tensor.requires_grad and torch.is_grad_enabled():
            require_graph(found)
        return found
