"""Loading of models from hub ids and folders; an incomplete model is refused."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import torch
import transformers
from huggingface_hub import HfApi
from packaging.version import Version
from transformers import AutoModelForImageTextToText, AutoProcessor

from vlmreward.models.model_files import check_files, check_keys, check_vocabulary
from vlmreward.models.quiet_loading import loading
from vlmreward.models.wording import reason_of, some
from vlmreward.utils.built_in import VLMS, built_in_folder, built_in_names
from vlmreward.utils.notices import warn

if TYPE_CHECKING:
    from transformers import PreTrainedConfig, PreTrainedModel, ProcessorMixin

__all__ = [
    "check_tokenizer",
    "load",
    "local_files_only",
    "resolve",
    "unloadable",
    "warn_of_version",
]

_SHARED_LOADING_KWARGS = ("cache_dir", "revision", "subfolder", "token", "trust_remote_code")
"""Arguments that a processor's ``from_pretrained`` takes too."""
_CORRECT_SINCE = (
    (
        "paligemma",
        "gemma2",
        "5.23",
        "leaves the last soft cap out of PaliGemma 2's own logits, so that rewards, which have it "
        "as the model was trained, differ from those of transformers",
    ),
)
"""Families by ``model_type`` and that of their text model, of which transformers was right only
from a version on, and what it does before."""


def resolve(source: str) -> str:
    """Hub id or folder that transformers can load; of a built-in model, its installed folder.

    Raises:
        FileNotFoundError: a built-in model whose weights are not installed.
    """
    return str(built_in_folder(source, VLMS) or source)


def local_files_only(path: str) -> bool:
    """True if the model can only be loaded from the disk, because the hub does not answer for it.

    Without a network, transformers retries every file for minutes, so that the hub is queried once
    here. Any failure counts: the files on the disk are then used.
    """
    if Path(path).is_dir():
        return True
    try:
        HfApi().model_info(path, timeout=10)
    except Exception:
        return True
    return False


def warn_of_version(config: PreTrainedConfig) -> None:
    """Warn if this version of transformers computes a family differently from later versions.

    Args:
        config: configuration of the model.
    """
    kind, text = config.model_type, config.get_text_config().model_type
    for of_kind, of_text, since, effect in _CORRECT_SINCE:
        older = Version(transformers.__version__) < Version(since)
        if older and kind == of_kind and of_text in (None, text):
            warn(
                f"transformers {transformers.__version__} {effect}; expected at least {since} for "
                f"{kind} with {text}: pip install -U transformers"
            )


def check_tokenizer(processor: object) -> None:
    """Refuse a processor without a tokenizer that knows words.

    Raises:
        ValueError: the processor has no such tokenizer.
    """
    tokenizer = getattr(processor, "tokenizer", None)
    if tokenizer is None:
        raise ValueError(
            f"its processor is a {type(processor).__name__}; expected one with an image processor "
            "and a tokenizer: add the files of both, such as processor_config.json"
        )
    check_vocabulary(tokenizer)


def load(
    source: str,
    device: torch.device | None = None,
    dtype: torch.dtype | None = None,
    options: Mapping[str, object] | None = None,
) -> tuple[PreTrainedModel, ProcessorMixin]:
    """A vision-language model and its processor, by the classes of transformers.

    Code that comes with a model is not run, without a question on the terminal, unless ``options``
    have ``trust_remote_code=True``.

    Args:
        source: hub id, local folder, or ``"builtin/blocks"``.
        device: device of the model; default: the GPU if there is one.
        dtype: dtype of the parameters; default: the checkpoint's on a GPU, float32 on a CPU.
        options: further arguments of the model's ``from_pretrained``.

    Returns:
        ``(model, processor)``; every parameter is from the weight files.

    Raises:
        OSError: the model cannot be found or read, or its weights are not those of its
            configuration.
        ValueError: options that exclude each other.
    """
    options = dict(options or {})
    if device is not None and "device_map" in options:
        raise ValueError("device and model_kwargs['device_map'] are both given; expected one")
    if "dtype" in options or "torch_dtype" in options:
        raise ValueError("model_kwargs has a dtype; expected it as the argument dtype=")
    device = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
    path = resolve(source)
    local = local_files_only(path)
    options.setdefault("trust_remote_code", False)  # None would ask on the terminal
    placed = dict(options)
    if options.get("quantization_config") is not None:  # which is made where it is to stay
        placed.setdefault("device_map", {"": device})
    elsewhere = device.type == "cuda" or "device_map" in placed
    wanted: torch.dtype | str = dtype or ("auto" if elsewhere else torch.float32)
    of_both = {key: value for key, value in options.items() if key in _SHARED_LOADING_KWARGS}
    folder = Path(path, str(options.get("subfolder") or ""))
    try:
        size = check_files(folder) if folder.is_dir() else None
        with loading(size):
            processor = AutoProcessor.from_pretrained(path, local_files_only=local, **of_both)
            check_tokenizer(processor)
            model, info = AutoModelForImageTextToText.from_pretrained(
                path,
                dtype=wanted,
                local_files_only=local,
                output_loading_info=True,
                ignore_mismatched_sizes=True,  # which are refused below, by their names
                **placed,
            )
        check_keys(info, type(model).__name__)
    except torch.OutOfMemoryError:
        raise
    except Exception as error:  # damaged files make transformers raise anything
        raise unloadable(source, folder, error, options) from error
    return (model if "device_map" in placed else model.to(device)), processor


def unloadable(
    source: str, folder: Path, error: Exception, options: Mapping[str, object]
) -> Exception:
    """An error of loading in one line: received, expected, remedy."""
    said = str(error)
    unknown = [key for key in options if f"unexpected keyword argument '{key}'" in said]
    if unknown:
        return ValueError(
            f"model_kwargs has {unknown[0]!r}, which the model does not take; expected arguments "
            "of from_pretrained of transformers: leave it out"
        )
    if "trust_remote_code" in said:
        return OSError(
            f"{source!r} comes with code of its own, which is not run unasked; expected a model "
            "whose code is in transformers: if you trust that code, read it and pass "
            'model_kwargs={"trust_remote_code": True}'
        )
    if type(error).__name__ == "UnpicklingError":
        pickled = ", ".join(p.name for p in sorted(folder.glob("*.bin"))) or "the pickled weights"
        return OSError(
            f"cannot load {source!r} ({pickled}: damaged, or it holds more than tensors, which is "
            "not run); expected weights in safetensors: save or download the model again"
        )
    if "; expected " in said:  # one of ours
        return OSError(f"cannot load {source!r}: {said}")
    if folder.is_dir():
        return OSError(
            f"cannot load {source!r} ({reason_of(error)}); expected a folder as save_pretrained of "
            "transformers writes it for a vision-language model and its processor: check "
            "config.json, or save or download the model again"
        )
    if source.startswith("builtin/"):
        known = some(map(repr, built_in_names(VLMS))) or "an installed package that brings one"
        return OSError(
            f"cannot load {source!r}: no such model is built in; expected {known}: check the name"
        )
    return OSError(
        f"cannot load {source!r} ({reason_of(error)}); expected a local folder saved by "
        "transformers, a model id that is cached or reachable, or 'builtin/blocks': check the "
        "name and the network, or download the model first"
    )
