"""Checkpoints: one safetensors file that holds everything, so that nothing can be out of step."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from vlmreward_3d.atomic_io import write_atomically

__all__ = ["Checkpoint", "load_checkpoint", "save_checkpoint"]

_FORMAT = "vlm3d-3"


@dataclass(frozen=True)
class Checkpoint:
    """A run at one moment.

    Attributes:
        step: Steps done.
        config: The run's configuration, as written by `VLM3DConfig.to_json`.
        state: The tensors of `VLM3D.state`, on the CPU.
        notes: What happened to the run so far that its owner should know, a sentence each.
    """

    step: int
    config: str
    state: dict[str, Tensor]
    notes: tuple[str, ...] = ()


def save_checkpoint(path: Path, checkpoint: Checkpoint) -> None:
    """Replace the checkpoint at `path` atomically."""
    metadata = {
        "format": _FORMAT,
        "step": str(checkpoint.step),
        "config": checkpoint.config,
        "notes": json.dumps(checkpoint.notes),
    }
    data = save({k: v.cpu() for k, v in checkpoint.state.items()}, metadata)
    write_atomically(path, data)


def load_checkpoint(path: Path) -> Checkpoint:
    """Read a checkpoint.

    Raises:
        ValueError: The file is not one of these.
    """
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            if metadata.get("format") != _FORMAT:
                raise ValueError(
                    f"received {path} of format {metadata.get('format')!r}; expected {_FORMAT!r}; "
                    "it was written by another version or program"
                )
            state = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except SafetensorError as error:
        raise ValueError(
            f"received {path}, which does not read as safetensors ({error}); expected a "
            "checkpoint; start again in another folder"
        ) from None
    notes = tuple(json.loads(metadata["notes"]))
    return Checkpoint(int(metadata["step"]), metadata["config"], state, notes)
