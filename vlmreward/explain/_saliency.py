"""First-order sensitivity of a reward to each pixel."""

from __future__ import annotations

import torch

from vlmreward.explain._inputs import check_tensor, gradient_at
from vlmreward.rewards.placeholders import Text, placeholder_values
from vlmreward.rewards.protocol import Reward
from vlmreward.utils.arguments import reward_like

__all__ = ["SALIENCIES", "saliency"]

SALIENCIES = ("gradient-norm", "gradient-x-input")
"""Length of a pixel's gradient over its three channels (unsigned), or its inner product with the
pixel itself (signed)."""


def saliency(
    reward: Reward,
    images: torch.Tensor,
    prompt: Text | None = None,
    *,
    kind: str = "gradient-x-input",
    **placeholders: Text,
) -> torch.Tensor:
    """First-order sensitivity of the reward to each pixel (Simonyan et al., 2013).

    Args:
        reward: any reward, called as ``reward(images, prompt)``.
        images: ``(B, 3, H, W)`` or ``(B, V, 3, H, W)``, floating in [0, 1].
        prompt: value of ``{prompt}``, one for all or a list of B.
        kind: one of ``SALIENCIES``.
        **placeholders: values of the other placeholders, likewise.

    Returns:
        ``(B, H, W)`` or ``(B, V, H, W)``, detached.

    Raises:
        TypeError, ValueError: images outside the contract, or unknown ``kind``.
        RuntimeError: the reward is not differentiable.
    """
    if kind not in SALIENCIES:
        raise ValueError(f"kind is {kind!r}; expected one of {SALIENCIES}")
    reward_like(reward)
    batch = check_tensor(images)
    gradient = gradient_at(reward, batch, placeholder_values(prompt, placeholders))
    if kind == "gradient-norm":
        return torch.linalg.vector_norm(gradient, dim=-3)
    return (gradient * batch.tensors[0]).sum(dim=-3)
