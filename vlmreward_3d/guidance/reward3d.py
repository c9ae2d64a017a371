"""Guidance by Reward3D of the rendered views, with a text per view that names its side."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from vlmreward.processors.resize import resize
from vlmreward.rewards.reward3d import Reward3D
from vlmreward.utils.arguments import number
from vlmreward_3d.cameras import Cameras
from vlmreward_3d.guidance.base import GuidanceOutput
from vlmreward_3d.guidance.view_prompts import view_index, view_prompts

__all__ = ["Reward3DGuidance"]

_RESOLUTION = 256


class Reward3DGuidance:
    """The loss of DreamReward (Ye et al., 2024), max(0, target - reward): "reward3d".

    Args:
        reward: The reward.
        prompt: Text prompt that the images are to match.
        target: Reward from which on the gradient is 0.

    Raises:
        TypeError, ValueError: An argument has the wrong type.
    """

    name = "reward3d"

    def __init__(self, reward: Reward3D, prompt: str, *, target: float = 4.0) -> None:
        if not isinstance(prompt, str):
            raise TypeError(f"prompt is {prompt!r}; expected a text")
        number("target", target)
        self.reward, self.target = reward, target
        self.texts = view_prompts(prompt)

    def __call__(
        self, images: Tensor, cameras: Cameras, progress: float, generator: torch.Generator
    ) -> GuidanceOutput:
        """Evaluate the loss, the mean over groups of four views.

        Args:
            images: (G * 4, 3, H, W) in [0, 1], group by group, which are shown in 256 pixels,
                bilinearly resized; no graph is kept to them.
            cameras: The cameras that rendered them, from which the texts say the side.
            progress: Not used.
            generator: Not used.

        Returns:
            The loss and its gradient at the images. The metrics are "reward", the mean over groups
            before the target, and "loss".

        Raises:
            ValueError: There are no whole groups of four.
        """
        views = self.reward.n_views
        if len(images) % views or len(images) != len(cameras):
            raise ValueError(
                f"received {len(images)} images of {len(cameras)} cameras; expected one camera an "
                f"image and a multiple of {views} images: Reward3D sees groups of {views} views"
            )
        sides = view_index(cameras).tolist()
        texts = [
            [self.texts[side] for side in sides[start : start + views]]
            for start in range(0, len(sides), views)
        ]
        with torch.enable_grad():
            images = images.detach().requires_grad_()
            shown = resize(images, (_RESOLUTION, _RESOLUTION), "bilinear")
            # rounding of the resize may leave [0, 1] by the last bit
            rewards = self.reward.of_views(shown.clamp(0, 1).unflatten(0, (-1, views)), texts)
            loss = F.relu(self.target - rewards).mean()
            (gradient,) = torch.autograd.grad(loss, images)
        loss = loss.detach()
        metrics = {"reward": rewards.detach().mean().item(), "loss": loss.item()}
        return GuidanceOutput(loss, gradient.contiguous(), metrics)
