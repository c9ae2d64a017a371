"""Reading of an adapter's weights, and checks of their names."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

from vlmreward.models.weight_files import read_tensors, weight_file
from vlmreward.models.wording import reason_of, some

__all__ = ["check_state", "read_state"]

_EXPECTED = (
    "expected a file in safetensors, or one on the hub, such as "
    "'huanngzh/mv-adapter/mvadapter_t2mv_sd21.safetensors'"
)


def read_state(source: str | Path) -> dict[str, Tensor]:
    """The tensors of an adapter by their names.

    Args:
        source: A file in safetensors; or hub id and name of the file, joined by "/".

    Raises:
        OSError: The file is missing or damaged, or cannot be reached.
    """
    try:
        return read_tensors(weight_file(source, (".safetensors",)))
    except Exception as error:  # the hub's client raises errors of its own
        raise OSError(
            f"cannot load the adapter {str(source)!r} ({reason_of(error)}); {_EXPECTED}: check the "
            "name, or download it again"
        ) from error


def check_state(state: Mapping[str, Tensor], expected: Mapping[str, torch.Size]) -> None:
    """Refuse tensors that are missing in an adapter's state dict or do not belong to it.

    Args:
        state: Tensors by name.
        expected: Shapes by name.

    Raises:
        ValueError: With the counts and the first three names.
    """
    shapes = [
        f"{name}: {tuple(state[name].shape)} for {tuple(expected[name])}"
        for name in expected.keys() & state.keys()
        if state[name].shape != expected[name]
    ]
    faults = [
        f"{len(names)} {word} ({some(names)})"
        for word, names in (
            ("missing", expected.keys() - state.keys()),
            ("unknown", state.keys() - expected.keys()),
            ("of another shape", shapes),
        )
        if names
    ]
    if faults:
        raise ValueError(
            f"the adapter does not fit the UNet: tensors {', '.join(faults)}; expected those of "
            "MV-Adapter's text-to-multi-view model of the same base, Stable Diffusion 2.1 or XL: "
            "name another adapter or denoiser"
        )
