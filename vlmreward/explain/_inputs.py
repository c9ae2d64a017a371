"""Inputs of explanations: checked images, baselines, and the gradient at the pixels."""

from __future__ import annotations

from collections.abc import Mapping

import torch

from vlmreward.images.batch import ImageBatch
from vlmreward.rewards.placeholders import Text
from vlmreward.rewards.protocol import Reward, call_reward, require_graph

__all__ = ["check_tensor", "gradient_at", "make_baseline"]


def check_tensor(images: torch.Tensor) -> ImageBatch:
    """A tensor of queries, checked and detached.

    Raises:
        TypeError, ValueError: not ``(B, 3, H, W)`` or ``(B, V, 3, H, W)``, floating, in [0, 1].
    """
    if isinstance(images, (list, tuple)):
        raise TypeError(
            f"images is a {type(images).__name__}; expected a tensor (B, 3, H, W) or "
            "(B, V, 3, H, W): stack them, or explain queries of different sizes one by one"
        )
    batch = ImageBatch.of(images)
    batch.check_values()
    return batch.detach()


def make_baseline(images: torch.Tensor, replacement: float | str | torch.Tensor) -> torch.Tensor:
    """Baseline images without content, of the shape of the given ones.

    Args:
        images: ``(B, 3, H, W)`` or ``(B, V, 3, H, W)``.
        replacement: a gray level in [0, 1]; ``"mean"``, each view's own mean color; or a tensor
            that broadcasts to the images.

    Raises:
        ValueError: ``replacement`` is something else.
    """
    if isinstance(replacement, torch.Tensor):
        try:
            return replacement.detach().to(images).expand_as(images)
        except RuntimeError:
            raise ValueError(
                f"a baseline has shape {tuple(replacement.shape)}; expected one that broadcasts "
                f"to the images, {tuple(images.shape)}"
            ) from None
    if isinstance(replacement, str):
        if replacement != "mean":
            raise ValueError(
                f"a baseline is {replacement!r}; expected a gray level in [0, 1], 'mean' or a "
                "tensor"
            )
        return images.mean(dim=(-2, -1), keepdim=True).expand_as(images)
    if isinstance(replacement, bool) or not isinstance(replacement, (int, float)):
        raise TypeError(
            f"a baseline is {replacement!r}; expected a gray level in [0, 1], 'mean' or a tensor"
        )
    if not 0 <= replacement <= 1:
        raise ValueError(f"a baseline is {replacement}; expected a gray level in [0, 1]")
    return torch.full_like(images, replacement)


def gradient_at(reward: Reward, batch: ImageBatch, values: Mapping[str, Text]) -> torch.Tensor:
    """Gradient at the images of a batch of one tensor, detached."""
    with torch.enable_grad():
        x = batch.tensors[0].detach().requires_grad_()
        found = call_reward(reward, batch.with_tensors([x], same_values=True), values)
        require_graph(found)
        return torch.autograd.grad(found.sum(), x)[0]
