"""A reward of large batches within a memory budget."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
from torch import nn
from torch.nn import functional as F

from vlmreward.images.batch import ImageBatchSpec, flatten_images
from vlmreward.rewards.protocol import Reward, call_reward
from vlmreward.utils.arguments import reward_like, whole
from vlmreward.wrappers._gradient_accumulation import accumulate_gradients

__all__ = ["MicroBatched", "parse_bytes"]

_UNITS = {"": 1, "k": 1, "m": 2, "g": 3, "t": 4}


def parse_bytes(size: int | float | str) -> int:
    """A size in bytes: a number of them, or a text such as ``"6GiB"`` or ``"500 MB"``.

    Raises:
        TypeError: neither a number nor a text.
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


@contextmanager
def _counted(known: set[int]) -> Iterator[dict[int, int]]:
    """Bytes that the graph keeps, by storage, of those that are not ``known``."""
    kept: dict[int, int] = {}

    def note(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in known:
            kept[storage.data_ptr()] = storage.nbytes()
        # not the tensor itself: an output would hold its graph, and that the output, for good
        return tensor.detach()

    with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
        yield kept


class MicroBatched(nn.Module):
    """A reward that is given its batch in parts, so that one part's graph lives at a time.

    The gradient at the pixels is taken part by part during the call; memory is that of a part, and
    values and gradients are those of the whole batch. The result can be differentiated once. Where
    one part is the whole batch there is an ordinary graph.

    A single query that is too large needs ``YesNoReward(..., checkpoint=True)``.

    Args:
        reward: see ``vlmreward.rewards.protocol.Reward``.
        micro_batch_size: queries a part; at least 1.
        max_memory: instead of it, what a part's graph may keep, in bytes or as ``"6GiB"``: the
            first call with images of some size runs one query and counts what its graph keeps.
            What the model's layers need beside that for a moment is not counted, nor its weights.

    Attributes:
        measured_sizes: with ``max_memory``, the queries a part by what was counted: the layout of
            a query's images -> number.

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
        self.measured_sizes: dict[Any, int] = {}

    def forward(
        self,
        images: torch.Tensor | Sequence[Any],
        prompt: str | Sequence[str] | None = None,
        **placeholders: str | Sequence[str],
    ) -> torch.Tensor:
        """The reward of each query; arguments, result and errors are those of the reward."""
        tensors, layout = flatten_images(images)
        given = dict(placeholders) if prompt is None else {"prompt": prompt, **placeholders}
        wanted = torch.is_grad_enabled() and any(tensor.requires_grad for tensor in tensors)
        size = self.micro_batch_size or self._measured(tensors, layout, given, wanted)
        terms = [
            partial(self._term, layout, slice(start, start + size), given)
            for start in range(0, layout.batch, size)
        ]
        return accumulate_gradients(
            terms,
            layout,
            tensors,
            "MicroBatched has freed the graphs of its parts; expected create_graph=False: call the "
            "reward itself for derivatives of the gradient",
        )

    def _term(
        self,
        layout: ImageBatchSpec,
        part: slice,
        given: Mapping[str, Any],
        tensors: Sequence[torch.Tensor],
    ) -> torch.Tensor:
        """Values of this part of the batch, in their places among zeros."""
        batch = layout.together(tensors)[part]
        start, stop, _ = part.indices(layout.batch)
        placeholders = {
            name: value[part] if isinstance(value, (list, tuple)) else value
            for name, value in given.items()
        }
        values = call_reward(
            self.reward, batch, stop - start, placeholders.pop("prompt", None), placeholders
        )
        return F.pad(values, (start, layout.batch - stop))

    def _measured(
        self,
        tensors: Sequence[torch.Tensor],
        layout: ImageBatchSpec,
        given: Mapping[str, Any],
        wanted: bool,
    ) -> int:
        """Queries a part under ``max_memory``."""
        assert self.max_memory is not None
        if not wanted:  # no graph
            return layout.batch
        first = layout.together([tensor.detach() for tensor in tensors])[0]
        views = first if isinstance(first, (list, tuple)) else [first]
        key = tuple((tuple(view.shape), view.dtype) for view in views)
        if key not in self.measured_sizes:
            model = self.reward.parameters() if isinstance(self.reward, nn.Module) else ()
            known = {parameter.untyped_storage().data_ptr() for parameter in model}
            alone, one = flatten_images(layout.together([t.detach() for t in tensors])[:1])
            with _counted(known) as kept:
                values = self._term(
                    one, slice(0, 1), _first(given), [t.requires_grad_() for t in alone]
                )
            del values
            self.measured_sizes[key] = max(1, self.max_memory // max(1, sum(kept.values())))
        return self.measured_sizes[key]


def _first(given: Mapping[str, Any]) -> dict[str, Any]:
    return {
        name: value[:1] if isinstance(value, (list, tuple)) else value
        for name, value in given.items()
    }
