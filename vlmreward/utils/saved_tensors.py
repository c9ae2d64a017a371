"""Measurement of the memory that a graph keeps for its backward pass."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn

__all__ = ["counted_bytes"]


@contextmanager
def counted_bytes(module: object) -> Iterator[dict[int, int]]:
    """Context that counts the bytes that graphs made inside keep for their backward passes.

    Args:
        module: if it is an ``nn.Module``, its parameters and buffers are not counted.

    Yields:
        Bytes by address of the storage, filled while the graphs are made.
    """
    owned: set[int] = set()
    if isinstance(module, nn.Module):
        tensors = itertools.chain(module.parameters(), module.buffers())
        owned = {tensor.untyped_storage().data_ptr() for tensor in tensors}
    kept: dict[int, int] = {}

    def note(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in owned:
            kept[storage.data_ptr()] = storage.nbytes()
        # not the tensor itself: an output would hold its graph, and that the output, for good
        return tensor.detach()

    with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
        yield kept
