"""Single files of weights, on disk or on the hub."""

from __future__ import annotations

from pathlib import Path

import torch
from huggingface_hub import hf_hub_download
from safetensors.torch import load_file
from torch import Tensor

__all__ = ["read_tensors", "weight_file"]


def weight_file(source: str | Path, suffixes: tuple[str, ...]) -> Path:
    """Path of a file of weights, downloaded from the hub if it is not a local file.

    Args:
        source: Path of a file; or hub id and file name, joined by "/".
        suffixes: Accepted endings of the file name.

    Raises:
        FileNotFoundError: There is no such file, and the name is not one of the hub.
        ValueError: The file name has another ending.
        OSError: The hub cannot be reached, or has no such file (or errors of its client).
    """
    name = str(source)
    if not name.endswith(suffixes):
        raise ValueError(f"its name does not end with {' or '.join(suffixes)}")
    if Path(name).is_file():
        return Path(name)
    owner, _, rest = name.partition("/")
    repository, _, file = rest.partition("/")
    if not (owner and repository and file):
        raise FileNotFoundError("there is no such file")
    return Path(hf_hub_download(f"{owner}/{repository}", file))


def read_tensors(path: Path) -> dict[str, Tensor]:
    """The tensors of a file by name, from safetensors or with ``weights_only=True``.

    Raises:
        ValueError: The file holds something else.
        Exception: Whatever the libraries raise for damaged files.
    """
    if path.suffix == ".safetensors":
        return load_file(path)
    state = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
    if not isinstance(state, dict) or not all(isinstance(x, Tensor) for x in state.values()):
        raise ValueError(f"it holds a {type(state).__name__} of other things than tensors")
    return state
