"""Training state on disk, written so that an interruption never leaves half a file."""

from __future__ import annotations

import os
from pathlib import Path

import torch


def save_state(path: Path, **state) -> None:
    """Write ``state`` (state dicts, tensors, numbers, strings) atomically."""
    draft = path.with_suffix(".tmp")
    torch.save(state, draft)
    os.replace(draft, path)


def load_state(path: Path) -> dict | None:
    """What :func:`save_state` wrote, or None where there is nothing."""
    return torch.load(path, weights_only=True, map_location="cpu") if path.exists() else None
