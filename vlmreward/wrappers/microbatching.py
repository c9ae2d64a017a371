"""Rewards of large batches, computed in parts within a memory budget."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from functools import partial

import torch
from torch.nn import functional as F

from vlmreward.images.batch import ImageBatch
from vlmreward.rewards.module import RewardModule
from vlmreward.rewards.placeholders import Text, select_values
from vlmreward.rewards.protocol import Reward, call_reward
from vlmreward.utils.arguments import reward_like, whole
from vlmreward.utils.saved_tensors import counted_bytes
from vlmreward.wrappers._gradient_accumulation import accumulate_gradients

__all__ = ["MicroBatched", "parse_bytes"]

_UNITS = {"": 1, "k": 1, "m": 2, "g": 3, "t": 4}


def parse_bytes(size: int | float | str) -> int:
    """A size in bytes: a number of them, or a text such as ``"6GiB"`` or ``"500 MB"``.

    Raises:
        TypeError: the size is neither a number nor a text.
        ValueError: not such a text, or less than one byte.
    """
    if isinstance(size, str):
        match = re.fullmatch(r"\s*(\d+(?:\.\d*)?)\s*([kmgt]?)(i?)b\s*", size, re.IGNORECASE)
        if not match or (match[3] and not match[2]):
            raise ValueError(f"max_memory is {size!r}; expected bytes, or a text such as '6GiB'")
        power = _UNITS[match[2].lower()] if match[2] else 0
        amount = float(match[1]) * (1024 if match[3] else 1000) ** power
    elif isinstance(size, (int, float)) and not isinstance(size, bool):
        amount = float(size)
    else:
        raise TypeError(f"max_memory is {size!r}; expected bytes, or a text such as '6GiB'")
    if not (amount >= 1 and math.isfinite(amount)):
        raise ValueError(f"max_memory is {size}; expected at least one byte: above 0")
    return int(amount)


class MicroBatched(RewardModule):
    """A reward that is given its batch in parts, so that only one part's graph is in memory.

    The gradient at the pixels is computed part by part during the call; memory is that of a part,
    and values and gradients are those of the whole batch. The result can be differentiated once.
    If one part is the whole batch, there is an ordinary graph.

    A single query that is too large needs ``YesNoReward(..., checkpoint=True)``.

    Args:
        reward: any reward, called as ``reward(images, prompt)``.
        micro_batch_size: number of queries in a part, at least 1.
        max_memory: in place of ``micro_batch_size``, the memory that a part's graph may keep, in
            bytes or as ``"6GiB"``. The first call with images of a new size runs one query and
            counts the bytes that its graph keeps. Temporary memory of the model's layers and the
            weights are not counted.

    Attributes:
        measured_sizes: with ``max_memory``, the number of queries in a part, by the layout of a
            query's images.

    Raises:
        TypeError: ``micro_batch_size`` is no whole number, or the reward cannot be called.
        ValueError: neither or both of ``micro_batch_size`` and ``max_memory``, or one of them
            not above 0.

    Example:
        ``MicroBatched(reward, max_memory="6GiB")(images, prompt="a cat").sum().backward()``.
    """

    def __init__(
        self,
        reward: Reward,
        *,
        micro_batch_size: int | None = None,
        max_memory: int | float | str | None = None,
    ) -> None:
        super().__init__()
        reward_like(reward)
        if (micro_batch_size is None) == (max_memory is None):
            given = "neither is given" if micro_batch_size is None else "both are given"
            raise ValueError(
                f"micro_batch_size and max_memory: {given}; expected one of "
                "micro_batch_size and max_memory"
            )
        self.reward = reward
        self.micro_batch_size = (
            None if micro_batch_size is None else whole("micro_batch_size", micro_batch_size)
        )
        self.max_memory = None if max_memory is None else parse_bytes(max_memory)
        self.measured_sizes: dict[tuple[tuple[tuple[int, ...], torch.dtype], ...], int] = {}

    def forward_batch(self, batch: ImageBatch, values: Mapping[str, Text]) -> torch.Tensor:
        """The reward of each query, part by part."""
        size = self.micro_batch_size or self._measured(batch, values)
        terms = [
            partial(self._term, slice(start, start + size), values)
            for start in range(0, len(batch), size)
        ]
        return accumulate_gradients(
            terms,
            batch,
            "MicroBatched has freed the graphs of its parts; expected create_graph=False: call the "
            "reward itself for derivatives of the gradient",
        )

    def _term(self, part: slice, values: Mapping[str, Text], batch: ImageBatch) -> torch.Tensor:
        """Rewards of this part of the batch, in their places among zeros."""
        start, stop, _ = part.indices(len(batch))
        own = call_reward(self.reward, batch[part], select_values(values, part))
        return F.pad(own, (start, len(batch) - stop))

    def _measured(self, batch: ImageBatch, values: Mapping[str, Text]) -> int:
        """Number of queries in a part under ``max_memory``."""
        assert self.max_memory is not None
        if not (torch.is_grad_enabled() and batch.requires_grad):  # no graph
            return len(batch)
        one = batch[:1].detach()
        key = tuple((tuple(view.shape), view.dtype) for view in one.tensors)
        if key not in self.measured_sizes:
            leaves = [tensor.requires_grad_() for tensor in one.tensors]
            with counted_bytes(self.reward) as kept:
                rewards = call_reward(
                    self.reward,
                    one.with_tensors(leaves, same_values=True),
                    select_values(values, slice(0, 1)),
                )
            del rewards
            self.measured_sizes[key] = max(1, self.max_memory // max(1, sum(kept.values())))
        return self.measured_sizes[key]
