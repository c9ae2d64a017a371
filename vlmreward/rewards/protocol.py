"""The interface between rewards and what wraps them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch

__all__ = ["Reward", "as_named_dict", "call_reward"]

Reward = Callable[..., torch.Tensor]
"""Called as ``reward(images, prompt=None, **placeholders)``; returns ``(B,)``, differentiable to
the images. A query's value must not depend on the others in the batch."""


def call_reward(
    reward: Reward,
    images: Any,
    batch: int,
    prompt: str | Sequence[str] | None,
    placeholders: Mapping[str, Any],
) -> torch.Tensor:
    """``reward(images, prompt, **placeholders)``, refused if it is not one value a query.

    Raises:
        TypeError: the reward did not return a tensor.
        ValueError: of another shape than ``(B,)``.
    """
    values = (
        reward(images, **placeholders) if prompt is None else reward(images, prompt, **placeholders)
    )
    if not isinstance(values, torch.Tensor):
        raise TypeError(
            f"the reward returned a {type(values).__name__}; expected a tensor ({batch},)"
        )
    if values.shape != (batch,):
        raise ValueError(
            f"the reward returned shape {tuple(values.shape)}; expected ({batch},): one value a "
            "query"
        )
    return values


def as_named_dict(rewards: Any, what: str) -> dict[str, Any]:
    """Several things by name: a mapping as it is, a sequence by its numbers.

    Raises:
        TypeError: neither of them.
        ValueError: empty.
    """
    if isinstance(rewards, Mapping):
        members = {str(name): member for name, member in rewards.items()}
    elif isinstance(rewards, Sequence) and not isinstance(rewards, str):
        members = {str(i): member for i, member in enumerate(rewards)}
    else:
        raise TypeError(
            f"{what} is a {type(rewards).__name__}; expected a list, or a dict with names"
        )
    if not members:
        raise ValueError(f"{what} is empty; expected at least one")
    return members
