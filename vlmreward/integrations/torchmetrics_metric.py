"""The mean of a reward over batches and processes, as a metric of torchmetrics."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from PIL.Image import Image

from vlmreward.images.batch import ImageBatch
from vlmreward.integrations.diffusion_trainers import as_images
from vlmreward.rewards.placeholders import Text, placeholder_values
from vlmreward.rewards.protocol import Reward, call_reward
from vlmreward.utils.arguments import reward_like

try:
    from torchmetrics import Metric
except ImportError as error:
    raise ImportError(
        f"RewardMetric needs torchmetrics ({error}); expected it to be installed: "
        "pip install torchmetrics"
    ) from error

__all__ = ["METRIC_VALUES", "RewardMetric"]

METRIC_VALUES = ("reward", "probability")
"""The mean of the rewards, or of their sigmoid: P(Yes) where the rewards are log-odds."""


class _Shared:
    """A reward that a metric refers to and does not own: no submodule, and never copied."""

    def __init__(self, reward: Reward) -> None:
        self.reward = reward

    def __deepcopy__(self, memo: dict[int, object]) -> _Shared:
        return self


class RewardMetric(Metric):
    """The mean reward, or the mean P(Yes), of all images that the metric has seen.

    A ``torchmetrics.Metric``: it accumulates over ``update`` calls, works in a
    ``MetricCollection``, in Lightning's ``self.log``, and is summed over processes by ``compute``.
    The mean weighs every query the same, however large its batch. The reward is shared, not copied:
    it is in no ``state_dict``, stays on its device when the metric is moved, and ``clone`` does not
    duplicate the model. Nothing is differentiable.

    Args:
        reward: any reward, called as ``reward(images, prompt=None, **placeholders)``.
        value: one of ``METRIC_VALUES``.
        **options: those of ``torchmetrics.Metric``, such as ``dist_sync_on_step``.

    Raises:
        TypeError: ``reward`` cannot be called.
        ValueError: another ``value``, or an unknown option.

    Example:
        ``metric = RewardMetric(reward, value="probability")``, then
        ``metric.update(images, prompt="a cat")`` for each batch and ``mean = metric.compute()``.
    """

    is_differentiable = False
    higher_is_better = True
    full_state_update = False
    total: torch.Tensor
    count: torch.Tensor

    def __init__(self, reward: Reward, *, value: str = "reward", **options: Any) -> None:
        super().__init__(**options)
        reward_like(reward)
        if value not in METRIC_VALUES:
            raise ValueError(f"value is {value!r}; expected one of {METRIC_VALUES}")
        self.value = value
        self._shared = _Shared(reward)
        self.add_state("total", default=torch.zeros(()), dist_reduce_fx="sum")
        self.add_state("count", default=torch.zeros((), dtype=torch.long), dist_reduce_fx="sum")

    @property
    def reward(self) -> Reward:
        """The reward."""
        return self._shared.reward

    def update(self, images: object, prompt: Text | None = None, **placeholders: Text) -> None:
        """Add the rewards of a batch.

        Args:
            images: images in any layout that rewards take, float in [0, 1]; or 8-bit tensors,
                arrays and PIL images, see ``as_images``.
            prompt: value of ``{prompt}``, one for all or a list of B.
            **placeholders: values of the question's other placeholders, likewise.

        Raises:
            TypeError, ValueError: the reward refuses the images or the prompt.
            RuntimeError: a reward is NaN or infinite; the metric is left as it was.
        """
        with torch.no_grad():
            batch = ImageBatch.of(_pictures(images))
            values = call_reward(self.reward, batch, placeholder_values(prompt, placeholders))
        broken = int((~values.isfinite()).sum())
        if broken:
            raise RuntimeError(
                f"{broken} of {len(values)} rewards are not finite; expected finite values: a mean "
                "over them would be lost"
            )
        chosen = values.sigmoid() if self.value == "probability" else values
        self.total = self.total + chosen.sum().to(self.total)
        self.count = self.count + len(values)

    def compute(self) -> torch.Tensor:
        """The mean over all queries since the last ``reset``: a scalar; NaN before the first."""
        return self.total / self.count

    def plot(self, val: Any = None, ax: Any = None) -> Any:
        """Plot a value or several, by default the present one; see ``torchmetrics.Metric.plot``."""
        return self._plot(val, ax)


def _pictures(images: Any) -> Any:
    """Images of any kind -> images as rewards take them."""
    listed = isinstance(images, Sequence) and any(isinstance(image, Image) for image in images)
    return as_images(images) if listed or isinstance(images, (torch.Tensor, np.ndarray)) else images
