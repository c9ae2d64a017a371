"""Guidance by any differentiable reward on single images, such as the similarity of CLIP."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from vlmreward_3d.cameras import Cameras
from vlmreward_3d.guidance.base import GuidanceOutput

__all__ = ["ImageRewardGuidance"]


class ImageRewardGuidance:
    """The mean of the rewards of single images.

    Args:
        reward: Called with images (N, 3, H, W) in [0, 1]; returns (N,), differentiable.
        name: Prefix of the metrics in the log.

    Raises:
        TypeError: `reward` is not callable or `name` is not text.
    """

    def __init__(self, reward: Callable[[Tensor], Tensor], *, name: str = "image_reward") -> None:
        if not callable(reward):
            raise TypeError(
                f"reward is a {type(reward).__name__}; expected a function of images (N, 3, H, W)"
            )
        if not isinstance(name, str):
            raise TypeError(f"name is {name!r}; expected a text")
        self.reward = reward
        self.name = name

    def __call__(
        self, images: Tensor, cameras: Cameras, progress: float, generator: torch.Generator
    ) -> GuidanceOutput:
        """Evaluate the reward.

        Args:
            images: (N, 3, H, W) in [0, 1]; no graph is kept to them.
            cameras: Not used.
            progress: Not used.
            generator: Not used.

        Returns:
            The mean reward and the gradient (N, 3, H, W) of its negative. The metric is "reward".

        Raises:
            ValueError: The reward did not return one value for each image.
        """
        with torch.enable_grad():
            images = images.detach().requires_grad_()
            values = self.reward(images)
            if values.shape != (len(images),):
                raise ValueError(
                    f"the reward returned the shape {tuple(values.shape)}; expected "
                    f"({len(images)},), one value for each image"
                )
            value = values.mean()
            (gradient,) = torch.autograd.grad(value, images)
        value = value.detach()
        return GuidanceOutput(value, -gradient, {"reward": value.item()})
