"""torch's random generators at a seed, for a while."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator

import torch

__all__ = ["SEEDED", "seeded"]

SEEDED = threading.RLock()
"""torch's generators are those of all threads, and an augmentation keeps what it drew last."""


@contextlib.contextmanager
def seeded(seed: int, device: torch.device) -> Iterator[None]:
    """torch's generators of the CPU and of this device at a seed; afterwards as they were.

    One thread at a time.
    """
    cuda = device.type == "cuda"
    with SEEDED, torch.random.fork_rng(devices=[device] if cuda else []):
        # torch.manual_seed would seed every GPU, also those that are not put back
        torch.default_generator.manual_seed(seed)
        if cuda:
            with torch.cuda.device(device):
                torch.cuda.manual_seed(seed)
        yield
