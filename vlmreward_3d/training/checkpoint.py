"""Checkpoints: one safetensors file with the whole state of a run, which is always consistent."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor

from vlmreward_3d.atomic_io import write_atomically

__all__ = ["Checkpoint", "load_checkpoint", "save_checkpoint"]

_FORMAT = "vlm3d-4"


@dataclass(frozen=True)
class Checkpoint:
    """The state of a run after a step.

    Attributes:
        step: Steps done.
        config: The run's configuration, as written by `VLM3DConfig.to_json`.
        state: The tensors of `VLM3D.state`, on the CPU.
        notes: Sentences about events of the run so far, such as retries.
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
        OSError: The file cannot be read.
        ValueError: The file is not a checkpoint.
    """
    # what the library says of a missing file, a folder and a name of other bytes varies
    data = path.read_bytes()
    try:
        metadata = _metadata(data)
        if metadata.get("format") != _FORMAT:
            raise ValueError(
                f"received {path} of format {metadata.get('format')!r}; expected {_FORMAT!r}; "
                "it was written by another version or program"
            )
        state = load(data)
    except SafetensorError as error:
        raise _refusal(path, f"which does not read as safetensors ({error})") from None
    try:
        notes = json.loads(metadata["notes"])
        if not isinstance(json.loads(metadata["config"]), dict):
            raise TypeError("its config is no object")
        if not isinstance(notes, list) or not all(isinstance(note, str) for note in notes):
            raise TypeError("its notes are no texts")
        return Checkpoint(int(metadata["step"]), metadata["config"], state, tuple(notes))
    except (KeyError, ValueError, TypeError, RecursionError) as error:
        what = f"it has no {error}" if isinstance(error, KeyError) else str(error)
        raise _refusal(path, f"whose header is damaged ({what})") from None


def _metadata(data: bytes) -> dict[str, str]:
    """The texts in the header: 8 bytes with its length, then JSON."""
    try:
        header = json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")])
        metadata = header.get("__metadata__", {})
        return {str(key): str(value) for key, value in metadata.items()}
    except (ValueError, AttributeError, RecursionError) as error:
        raise SafetensorError(f"no header: {error}") from None


def _refusal(path: Path, what: str) -> ValueError:
    good = path.with_name("last-good.safetensors")
    remedy = "start again with --overwrite, or in another folder"
    if good.exists() and good != path:
        remedy = f"copy {good.name}, which is of the same step or an earlier one, over it"
    return ValueError(f"received {path}, {what}; expected a checkpoint; {remedy}")
