"""A context with seeded random generators of torch."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator

import torch

__all__ = ["SEEDED", "seeded"]

SEEDED = threading.RLock()
"""Lock, because all threads share torch's generators, and augmentations store their last draws."""


@contextlib.contextmanager
def seeded(seed: int, device: torch.device) -> Iterator[None]:
    """Context that seeds torch's generators of the CPU and of ``device``, and restores them.

    Only one thread at a time can be inside.
    """
    cuda = device.type == "cuda"
    with SEEDED, torch.random.fork_rng(devices=[device] if cuda else []):
        # torch.manual_seed would seed every GPU, also those that are not put back
        torch.default_generator.manual_seed(seed)
        if cuda:
            with torch.cuda.device(device):
                torch.cuda.manual_seed(seed)
        yield
