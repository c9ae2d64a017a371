"""The VLM's reward and its gradient at the views."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from vlmreward.processors.resize import resize
from vlmreward_3d.guidance.base import GuidanceOutput

__all__ = ["Reward", "judge"]

Reward = Callable[..., Tensor]
"""reward(images (B, V, 3, H, W) in [0, 1], text=str) -> (B,) float32, differentiable."""


def judge(reward: Reward, images: Tensor, text: str, side: int | None = None) -> GuidanceOutput:
    """The VLM's log-odds of "Yes" for all images seen together (VLM3D, Eq. 5).

    Args:
        reward: The reward.
        images: (V, 3, H, W) in [0, 1], the views of one object; no graph is kept to them.
        text: What they should show.
        side: The reward is shown images of `side` x `side` pixels: bilinear, antialiased where
            they shrink. None shows them as they are.

    Returns:
        The reward and its gradient (V, 3, H, W), through the resize.
    """
    with torch.enable_grad():
        images = images.detach().requires_grad_()
        shown = images if side is None else resize(images, (side, side), "bilinear")
        value = reward(shown[None], text=text).sum()
        (gradient,) = torch.autograd.grad(value, images)
    return GuidanceOutput(value.detach(), gradient)
