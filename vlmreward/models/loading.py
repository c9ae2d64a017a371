"""Models from names and folders, complete or not at all, and without other libraries' noise."""

from __future__ import annotations

import json
import logging
import threading
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
import transformers
from huggingface_hub import HfApi
from packaging.version import Version
from safetensors import SafetensorError, safe_open
from transformers import AutoModelForImageTextToText, AutoProcessor
from transformers.utils import logging as transformers_logging

from vlmreward.utils.built_in import VLMS, built_in_folder, built_in_names
from vlmreward.utils.notices import warn

__all__ = [
    "check_files",
    "check_keys",
    "check_vocabulary",
    "checked_device",
    "checked_dtype",
    "load",
    "loading",
    "quiet",
    "reason_of",
    "resolve",
    "some",
    "warn_of_version",
]

_SHARED_LOADING_KWARGS = ("cache_dir", "revision", "subfolder", "token", "trust_remote_code")
"""What a processor's ``from_pretrained`` has to be told too."""
_OBJECTS = frozenset(
    {
        *("config.json", "generation_config.json", "model_index.json", "scheduler_config.json"),
        *("processor_config.json", "preprocessor_config.json", "special_tokens_map.json"),
        *("tokenizer.json", "tokenizer_config.json", "adapter_config.json"),
    }
)
"""Files that hold a JSON object, beside the indices of weights."""
_WEIGHTS = ("model", "diffusion_pytorch_model")
"""What the names of files with weights begin with."""
_LARGE = 2**31
"""Bytes of weights from which on the progress of loading is shown on a terminal."""
_NOISE = (
    ("transformers.modeling_utils", "LOAD REPORT"),  # becomes an error here
    ("diffusers.models.modeling_utils", "Some weights of"),  # likewise
    ("diffusers.models.modeling_utils", "An error occurred while trying to fetch"),  # likewise
    ("transformers.image_utils", "The channel dimension is ambiguous"),  # it is the first one here
    # bitsandbytes, which diffusers imports, wants a package that nothing here needs
    ("bitsandbytes.backends.cpu.ops", "Failed to load CPU gemm_4bit_forward"),
)
"""Messages of other libraries that say nothing to a user of this one, with their loggers."""
_LATER = (
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


_LOADING = threading.RLock()


class _Without(logging.Filter):
    """Drops the messages that hold a text."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.text = text

    def filter(self, record: logging.LogRecord) -> bool:
        return self.text not in record.getMessage()


@contextmanager
def quiet() -> Iterator[None]:
    """Without some messages of transformers, diffusers and bitsandbytes, on import above all.

    Their loggers keep their levels and handlers; nothing stays changed behind it.
    """
    filters = [(logging.getLogger(name), _Without(text)) for name, text in _NOISE]
    for logger, one in filters:
        logger.addFilter(one)
    try:
        yield
    finally:
        for logger, one in filters:
            logger.removeFilter(one)


@contextmanager
def loading(weights: int | None = None) -> Iterator[None]:
    """For loading a model by transformers or diffusers: one at a time, and quietly.

    Both change global state while they load, so that in a model that is loaded by another thread
    tied weights may be neither tied nor found.

    Args:
        weights: bytes that are loaded, if known. Below 2 GiB the bar "Loading weights" is left out;
            from there on it is shown on a terminal. Bars of downloads are shown in any case.
    """
    hidden = {"disable": True if weights is not None and weights < _LARGE else None}
    with _LOADING, quiet():
        before = transformers_logging.set_tqdm_hook(
            lambda make, arguments, options: make(*arguments, **{**options, **hidden})
        )
        try:
            yield
        finally:
            transformers_logging.set_tqdm_hook(before)


def reason_of(error: BaseException) -> str:
    """What an error says, in one line of at most 300 characters and without a full stop."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    said = lines[0] if lines else ""
    for line in lines[1:]:
        if not said.endswith(":"):
            break
        said = f"{said} {line}"
    if not isinstance(error, (OSError, ValueError)) or not said:
        said = f"{type(error).__name__}: {said}".removesuffix(": ")
    return (said if len(said) <= 300 else f"{said[:297]}...").rstrip(".")


def checked_device(device: Any, what: str = "device") -> torch.device | None:
    """A device that can be computed on; None stays None.

    Args:
        device: a ``torch.device``, its name, or the number of a GPU.
        what: the argument's name, for the message.

    Raises:
        TypeError: of another type.
        ValueError: no such device exists, or it is not on this machine.
    """
    if device is None:
        return None
    if isinstance(device, bool) or not isinstance(device, (str, int, torch.device)):
        raise TypeError(
            f"{what} is a {type(device).__name__}; expected a torch.device or a name such as "
            "'cpu' or 'cuda'"
        )
    try:
        found = torch.device(device)
    except RuntimeError:
        raise ValueError(f"{what} is {device!r}; expected 'cpu', 'cuda', 'cuda:1', ...") from None
    if found.type == "meta":
        raise ValueError(f"{what} is {device!r}, which holds no values; expected 'cpu' or 'cuda'")
    try:
        torch.empty(0, device=found)
    except Exception as error:
        here = [f"cuda:{i}" for i in range(torch.cuda.device_count())]
        raise ValueError(
            f"{what} is {str(device)!r}, which is not on this machine ({reason_of(error)}); "
            f"expected one of cpu{', '.join(['', *here])}: leave it out to have one chosen"
        ) from error
    return found


def checked_dtype(dtype: Any) -> torch.dtype | None:
    """A floating dtype; None stays None.

    Raises:
        TypeError: not a ``torch.dtype``.
        ValueError: one of integers or complex numbers.
    """
    if dtype is None:
        return None
    if not isinstance(dtype, torch.dtype):
        raise TypeError(
            f"dtype is {dtype!r}, a {type(dtype).__name__}; expected a torch.dtype such as "
            "torch.bfloat16"
        )
    if not dtype.is_floating_point:
        raise ValueError(f"dtype is {dtype}; expected a floating one such as torch.bfloat16")
    return dtype


def resolve(source: str) -> str:
    """Name of a model -> what transformers can load: built-in ones are folders of a package.

    Raises:
        FileNotFoundError: a built-in model whose weights are not installed.
    """
    return str(built_in_folder(source, VLMS) or source)


def _local_files_only(path: str) -> bool:
    """Whether to load from disk alone, because the hub does not answer for this model.

    transformers asks again for every file and for minutes before it believes that there is no
    network, so it is asked about once here. Any failure will do: what counts is what is on disk.
    """
    if Path(path).is_dir():
        return True
    try:
        HfApi().model_info(path, timeout=10)
    except Exception:
        return True
    return False


def _weights(folder: Path) -> list[Path]:
    return [p for p in sorted(folder.glob("*.safetensors")) if p.name.startswith(_WEIGHTS)]


def check_files(folder: Path) -> int:
    """Look at a model's files before the work begins: configurations that are JSON, whole weights.

    Of weights in safetensors only the headers are read.

    Args:
        folder: as saved by ``save_pretrained`` of transformers or diffusers.

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


def some(names: Iterable[Any]) -> str:
    """The first three of some names, in alphabetical order."""
    every = sorted(map(str, names))
    return ", ".join([*every[:3], *["..."] * (len(every) > 3)])


def check_keys(info: Mapping[str, Any], kind: str) -> None:
    """Refuse weights that do not fill the model, or do not fit into it.

    Args:
        info: what ``from_pretrained(..., output_loading_info=True)`` of transformers or diffusers
            returns beside the model. Tied weights, and names that the model's class declares
            optional, are not in it.
        kind: of the model, for the message.

    Raises:
        ValueError: with the counts and the first three names.
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


def warn_of_version(config: Any) -> None:
    """Warn where this version of transformers computes a family otherwise than later ones.

    Args:
        config: of the model.
    """
    kind, text = config.model_type, config.get_text_config().model_type
    for of_kind, of_text, since, effect in _LATER:
        older = Version(transformers.__version__) < Version(since)
        if older and kind == of_kind and of_text in (None, text):
            warn(
                f"transformers {transformers.__version__} {effect}; expected at least {since} for "
                f"{kind} with {text}: pip install -U transformers"
            )


def check_vocabulary(tokenizer: Any) -> None:
    """Refuse a tokenizer whose vocabulary was not loaded, which transformers does not notice.

    Raises:
        ValueError: it has special tokens alone.
    """
    if len(tokenizer) <= len(tokenizer.all_special_tokens):
        raise ValueError("its tokenizer knows no word; expected a vocabulary: add tokenizer.json")


def _check_tokenizer(processor: Any) -> None:
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
    options: Mapping[str, Any] | None = None,
) -> tuple[Any, Any]:
    """A vision-language model and its processor, by the classes of transformers.

    Code that comes with a model is not run, and nobody is asked about it, unless ``options`` say
    ``trust_remote_code=True``.

    Args:
        source: hub id, local folder, or ``"builtin/blocks"``.
        device: where to; default: the GPU if there is one.
        dtype: of the parameters; default: the checkpoint's on a GPU, float32 on a CPU.
        options: further arguments of the model's ``from_pretrained``.

    Returns:
        ``(model, processor)``; every parameter is from the weights.

    Raises:
        OSError: it cannot be found or read, or its weights are not those of its configuration.
        ValueError: options that do not go together.
    """
    options = dict(options or {})
    if device is not None and "device_map" in options:
        raise ValueError("device and model_kwargs['device_map'] are both given; expected one")
    if "dtype" in options or "torch_dtype" in options:
        raise ValueError("model_kwargs has a dtype; expected it as the argument dtype=")
    device = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
    path = resolve(source)
    local = _local_files_only(path)
    options.setdefault("trust_remote_code", False)  # None would ask on the terminal
    placed = dict(options)
    if options.get("quantization_config") is not None:  # which is made where it is to stay
        placed.setdefault("device_map", {"": device})
    elsewhere = device.type == "cuda" or "device_map" in placed
    wanted: Any = dtype or ("auto" if elsewhere else torch.float32)
    of_both = {key: value for key, value in options.items() if key in _SHARED_LOADING_KWARGS}
    folder = Path(path, options.get("subfolder") or "")
    try:
        size = check_files(folder) if folder.is_dir() else None
        with loading(size):
            processor = AutoProcessor.from_pretrained(path, local_files_only=local, **of_both)
            _check_tokenizer(processor)
            model: Any
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
        raise _unloadable(source, folder, error, options) from error
    return (model if "device_map" in placed else model.to(device)), processor


def _unloadable(
    source: str, folder: Path, error: Exception, options: Mapping[str, Any]
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
