"""Checks of a model's files before it is loaded, and of its tensors after that."""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from safetensors import SafetensorError, safe_open

from vlmreward.models.wording import reason_of, some

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

__all__ = ["check_files", "check_keys", "check_vocabulary"]

_OBJECTS = frozenset(
    {
        *("config.json", "generation_config.json", "model_index.json", "scheduler_config.json"),
        *("processor_config.json", "preprocessor_config.json", "special_tokens_map.json"),
        *("tokenizer.json", "tokenizer_config.json", "adapter_config.json"),
    }
)
"""Files that hold a JSON object, beside the indices of weights."""
_WEIGHTS = ("model", "diffusion_pytorch_model")
"""Beginnings of the names of files with weights."""


def _weights(folder: Path) -> list[Path]:
    return [p for p in sorted(folder.glob("*.safetensors")) if p.name.startswith(_WEIGHTS)]


def check_files(folder: Path) -> int:
    """Check a model's files before it is loaded: configurations are JSON, weights are complete.

    Of weights in safetensors only the headers are read.

    Args:
        folder: a model saved by ``save_pretrained`` of transformers or diffusers.

    Returns:
        Bytes of weights in safetensors.

    Raises:
        OSError: names the file that is damaged.
    """
    indices = sorted(folder.glob("*.safetensors.index.json"))
    for path in [*indices, *sorted(p for p in folder.glob("*.json") if p.name in _OBJECTS)]:
        try:
            found = json.loads(path.read_text(encoding="utf-8"))
        except ValueError as error:
            raise OSError(
                f"{path.name} is not JSON ({reason_of(error)}); expected the file as it was "
                "saved: save or download the model again"
            ) from error
        if not isinstance(found, dict):
            raise OSError(
                f"{path.name} holds a {type(found).__name__}; expected a JSON object, {{...}}: "
                "save or download the model again"
            )
        if path in indices:
            parts = found.get("weight_map")
            names = sorted(set(parts.values())) if isinstance(parts, dict) else []
            missing = [name for name in names if not (folder / str(name)).is_file()]
            if missing or not names:
                raise OSError(
                    f"{path.name} names {len(names)} files of weights, of which {len(missing)} are "
                    f"missing{': ' * bool(missing)}{some(missing)}; expected all of them: save or "
                    "download the model again"
                )
    for path in _weights(folder):
        try:
            with safe_open(path, framework="pt") as opened:
                count = len(opened.keys())
        except (SafetensorError, OSError) as error:
            with path.open("rb") as stream:
                pointer = stream.read(40).startswith(b"version https://git-lfs")
            what = "a pointer of git-lfs" if pointer else "damaged"
            raise OSError(
                f"{path.name} is {what} ({path.stat().st_size} bytes; {reason_of(error)}); "
                "expected whole weights in safetensors: "
                + ("run git lfs pull" if pointer else "save or download the model again")
            ) from error
        if not count:
            raise OSError(f"{path.name} holds no tensor; expected the weights of the model")
    return sum(path.stat().st_size for path in _weights(folder))


def check_keys(info: Mapping[str, Collection[object]], kind: str) -> None:
    """Refuse weights that do not fill the model, or do not fit into it.

    Args:
        info: the loading info that ``from_pretrained(..., output_loading_info=True)`` of
            transformers or diffusers returns beside the model, without tied weights and without
            names that the model's class declares optional.
        kind: class of the model, for the message.

    Raises:
        ValueError: keys are missing or unexpected, or have other shapes; the message has the counts
            and the first three names.
    """
    shapes = [
        f"{key[0]}: {tuple(key[1])} in the file, {tuple(key[2])} in the model"
        if isinstance(key, (tuple, list))
        else str(key)
        for key in info.get("mismatched_keys", ())
    ]
    faults = [
        f"{len(names)} {word} ({some(names)})"
        for word, names in (
            ("missing", info.get("missing_keys", ())),
            ("unexpected", info.get("unexpected_keys", ())),
            ("of another shape", shapes),
        )
        if names
    ]
    if faults:
        raise ValueError(
            f"the weights and config.json do not belong together: tensors {', '.join(faults)}; "
            f"expected every tensor of {kind} and no other: check config.json, or save or download "
            "the model again"
        )


def check_vocabulary(tokenizer: PreTrainedTokenizerBase) -> None:
    """Refuse a tokenizer whose vocabulary was not loaded, which transformers does not notice.

    Raises:
        ValueError: the vocabulary has only special tokens.
    """
    if len(tokenizer) <= len(tokenizer.all_special_tokens):
        raise ValueError("its tokenizer knows no word; expected a vocabulary: add tokenizer.json")
