"""Rewards as modules, which check their images once and pass them on."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping

import torch
from torch import nn

from vlmreward.images.batch import ImageBatch, Images
from vlmreward.rewards.placeholders import Text, placeholder_values

__all__ = ["RewardModule", "SeveralRewards"]


class RewardModule(nn.Module):
    """Base of rewards and wrappers whose images are checked once, even when they are nested.

    A subclass implements ``forward_batch``, and calls other rewards by
    ``vlmreward.rewards.protocol.call_reward``, which passes the checked batch on. A subclass that
    implements ``forward`` instead is given plain tensors.
    """

    def forward(
        self, images: Images | ImageBatch, prompt: Text | None = None, **placeholders: Text
    ) -> torch.Tensor:
        """The reward of each query.

        Args:
            images: floating RGB in [0, 1], channels first. ``(B, 3, H, W)``: one image a query.
                ``(B, V, 3, H, W)``: V views a query, all seen by one question. A list of
                ``(3, H, W)`` of different sizes: one image a query; a list of lists of them (or of
                ``(V, 3, H, W)``): several. Any device; never changed in place. Differentiable.
            prompt: value of the question's ``{prompt}`` placeholder, one for all or a list of B.
            **placeholders: values of the question's other placeholders, likewise.

        Returns:
            ``(B,)`` on the images' device, float32 (float64 for a float64 model), differentiable to
            the images. A query's reward does not depend on the others in the batch.

        Raises:
            TypeError: images or prompts of another type.
            ValueError: images outside the contract (see ``vlmreward.images.validation``), a
                placeholder missing or unknown, or a number of prompts that is not B.
        """
        return self.forward_batch(ImageBatch.of(images), placeholder_values(prompt, placeholders))

    @abstractmethod
    def forward_batch(self, batch: ImageBatch, values: Mapping[str, Text]) -> torch.Tensor:
        """The reward ``(B,)`` of each query of a batch.

        Args:
            batch: images that have been checked, but for their values.
            values: values of all placeholders, ``"prompt"`` among them.
        """


class SeveralRewards(RewardModule):
    """A reward that is made of several and also returns their separate values."""

    def per_reward(
        self, images: Images | ImageBatch, prompt: Text | None = None, **placeholders: Text
    ) -> dict[str, torch.Tensor]:
        """The value ``(B,)`` of each of the rewards by name, with its own gradient.

        Args:
            images: images in any layout of ``forward``.
            prompt: value of ``{prompt}``, one for all or a list of B.
            **placeholders: values of the other placeholders, likewise.
        """
        values = placeholder_values(prompt, placeholders)
        return self.per_reward_batch(ImageBatch.of(images), values)

    @abstractmethod
    def per_reward_batch(
        self, batch: ImageBatch, values: Mapping[str, Text]
    ) -> dict[str, torch.Tensor]:
        """The value ``(B,)`` of each of the rewards by name; arguments as in ``forward_batch``."""
