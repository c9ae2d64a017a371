"""The interface between rewards and what wraps them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TypeVar

import torch

from vlmreward.images.batch import ImageBatch
from vlmreward.rewards.module import RewardModule
from vlmreward.rewards.placeholders import Text

__all__ = ["Reward", "as_named_dict", "call_reward", "require_graph"]

Reward = Callable[..., torch.Tensor]
"""Called as ``reward(images, prompt=None, **placeholders)``; returns ``(B,)``, differentiable to
the images. A query's value must not depend on the others in the batch."""

Member = TypeVar("Member")


def call_reward(reward: Reward, batch: ImageBatch, values: Mapping[str, Text]) -> torch.Tensor:
    """Value of ``reward(images, prompt, **placeholders)``, checked to be one number per query.

    A ``RewardModule`` is given the batch itself, which is not checked again; any other reward, and
    a ``RewardModule`` with a ``forward`` of its own, is given the plain tensors.

    Args:
        reward: a ``Reward``.
        batch: images of B queries.
        values: values of the placeholders, by ``placeholder_values``.

    Returns:
        ``(B,)``, as the reward returned it.

    Raises:
        TypeError: the reward did not return a tensor.
        ValueError: the reward returned a shape other than ``(B,)``.
    """
    forward = getattr(getattr(reward, "forward", None), "__func__", None)
    images = batch if forward is RewardModule.forward else batch.images
    rest = dict(values)
    prompt = rest.pop("prompt", None)
    found = reward(images, **rest) if prompt is None else reward(images, prompt, **rest)
    if not isinstance(found, torch.Tensor):
        raise TypeError(
            f"the reward returned a {type(found).__name__}; expected a tensor ({len(batch)},)"
        )
    if found.shape != (len(batch),):
        raise ValueError(
            f"the reward returned shape {tuple(found.shape)}; expected ({len(batch)},): one value "
            "a query"
        )
    return found


def require_graph(values: torch.Tensor) -> None:
    """Refuse values of a reward that are not differentiable.

    Raises:
        RuntimeError: the values have no graph.
    """
    if not values.requires_grad:
        raise RuntimeError(
            "the reward returned values without a graph; expected values that are "
            "differentiable to the images: is it under no_grad or on detached images?"
        )


def as_named_dict(
    members: Mapping[str, Member] | Sequence[Member] | Callable[..., object], what: str
) -> dict[str, Member]:
    """Members by name: a mapping as it is, a sequence with its indices as names.

    Raises:
        TypeError: ``members`` is neither a mapping nor a sequence.
        ValueError: ``members`` is empty.
    """
    if isinstance(members, Mapping):
        named = {str(name): member for name, member in members.items()}
    elif isinstance(members, Sequence) and not isinstance(members, str):
        named = {str(i): member for i, member in enumerate(members)}
    else:
        raise TypeError(
            f"{what} is a {type(members).__name__}; expected a list, or a dict with names"
        )
    if not named:
        raise ValueError(f"{what} is empty; expected at least one")
    return named
