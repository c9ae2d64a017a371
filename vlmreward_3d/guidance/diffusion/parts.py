"""Loading of parts of diffusers folders; an incomplete part is refused."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from diffusers import AutoencoderKL, DDPMScheduler, DiffusionPipeline, UNet2DConditionModel
from torch import nn
from transformers import AutoTokenizer, CLIPTextModel

from vlmreward.models.model_files import check_files, check_keys, check_vocabulary
from vlmreward.models.quiet_loading import loading, quiet
from vlmreward.models.wording import reason_of

__all__ = ["KINDS", "check_fit", "load_part", "load_pipeline", "pipeline_class", "unet_config"]

KINDS: dict[str, Any] = {
    "unet": UNet2DConditionModel,
    "vae": AutoencoderKL,
    "text_encoder": CLIPTextModel,
    "tokenizer": AutoTokenizer,
    "scheduler": DDPMScheduler,
}
"""Classes of the parts by their folders' names."""
_EXPECTED = (
    "expected a folder or hub id of diffusers with a UNet2DConditionModel, an AutoencoderKL and a "
    "CLIPTextModel (Stable Diffusion 1.x or 2.x, or MVDream saved by save_pretrained here)"
)
_PORT = (
    "for MVDream pass its authors' single file, sd-v2.1-base-4view.pt: ports of it bring classes "
    "of their own"
)


def load_part(
    model: str | Path, name: str, *, dtype: torch.dtype | None = None, **options: Any
) -> Any:
    """One part of a diffusers folder or hub id; weights are read from safetensors alone.

    Args:
        model: the folder or id.
        name: name of the part, a key of ``KINDS``.
        dtype: dtype of its weights, if it has weights.
        **options: further options of ``from_pretrained``, such as ``revision`` or
            ``local_files_only``.

    Raises:
        OSError: the part is missing, damaged or cannot be reached, or its weights are not those of
            its configuration.
    """
    kind = KINDS[name]
    weighted = issubclass(kind, nn.Module)
    if weighted:
        options["use_safetensors"] = True
        options["output_loading_info"] = True
        options["dtype" if kind is CLIPTextModel else "torch_dtype"] = dtype
    if kind is CLIPTextModel:
        options["ignore_mismatched_sizes"] = True  # which are refused below, by their names
    folder = Path(model, name)
    try:
        size = check_files(folder) if folder.is_dir() else None
        with loading(size):
            part = kind.from_pretrained(str(model), subfolder=name, **options)
        if weighted:
            part, info = part
            check_keys(info, kind.__name__)
        if name == "tokenizer":
            check_vocabulary(part)
    except torch.OutOfMemoryError:
        raise
    except Exception as error:  # damaged files make the libraries raise anything
        raise _unloadable(f"the {name} of {str(model)!r}", error) from error
    return part


def load_pipeline(kind: Any, model: str | Path, name: str, **options: Any) -> Any:
    """All parts of a diffusers folder or hub id; weights are read from safetensors alone.

    Args:
        kind: class of the pipeline.
        model: the folder or id.
        name: name of the model, for the message.
        **options: further options of ``from_pretrained``, such as ``torch_dtype`` or ``revision``.

    Raises:
        OSError: a part is missing, damaged or cannot be reached.
    """
    folder = Path(model)
    try:
        size = check_files(folder) if folder.is_dir() else None
        with loading(size):
            return kind.from_pretrained(str(model), use_safetensors=True, **options)
    except torch.OutOfMemoryError:
        raise
    except Exception as error:  # damaged files make the libraries raise anything
        raise OSError(
            f"cannot load the denoiser {str(model)!r} ({reason_of(error)}); expected a folder or "
            f"hub id of {name} in diffusers' layout: check the name, or save or download it again"
        ) from error


def _unloadable(what: str, error: Exception) -> OSError:
    """An error of loading in one line: received, expected, remedy."""
    if "; expected " in str(error):  # one of ours
        return OSError(f"cannot load {what}: {error}")
    # diffusers goes on to say how to load it all the same
    reason = reason_of(error).split(". If you want")[0].removeprefix("Cannot load  because ")
    return OSError(
        f"cannot load {what} ({reason}); expected 'builtin/blocks', MVDream's "
        "sd-v2.1-base-4view.pt, or a diffusers folder or hub id with unet, vae, text_encoder, "
        "tokenizer and scheduler: check the name, or save or download it again; Stable Diffusion "
        "2.x is no longer under its old name on the hub, so name a mirror"
    )


def unet_config(model: str | Path) -> Mapping[str, Any]:
    """Configuration of the UNet of a diffusers folder or hub id, read before any weights.

    Raises:
        OSError: there is no configuration, or it cannot be read.
        ValueError: the UNet, or another part that ``model_index.json`` names, is of a class of its
            own or otherwise not supported, as in ports of MVDream.
    """
    folder = Path(model)
    try:
        for part in (folder, folder / "unet"):
            if part.is_dir():
                check_files(part)
        with quiet():
            config = UNet2DConditionModel.load_config(str(model), subfolder="unet")
    except Exception as error:
        raise _unloadable(f"the denoiser {str(model)!r}", error) from error
    named = {"unet": config.get("_class_name", KINDS["unet"].__name__), **_classes(model)}
    for name, found in named.items():
        wanted = KINDS[name].__name__ if name in KINDS else "none"
        if found != wanted:
            remedy = _PORT if name == "unet" else "name another model"
            raise ValueError(
                f"the {name} of {str(model)!r} is a {found}, which is not supported; {_EXPECTED}: "
                f"{remedy}"
            )
    cameras = config.get("projection_class_embeddings_input_dim")
    if config.get("class_embed_type") == "projection" and cameras != 16:
        raise ValueError(
            f"the unet of {str(model)!r} takes class labels of {cameras} numbers; expected the 16 "
            "of a camera, as of MVDream: name another model"
        )
    return config


def pipeline_class(model: str | Path) -> str | None:
    """The pipeline that a diffusers folder or hub id names, such as "StableDiffusion3Pipeline".

    None if it names none, which is also where it cannot be read: its parts will say why.
    """
    found = _index(model).get("_class_name")
    return found if isinstance(found, str) else None


def _index(model: str | Path) -> Mapping[str, Any]:
    """The content of ``model_index.json``; empty if there is none or it cannot be reached."""
    try:
        with quiet():
            return DiffusionPipeline.load_config(str(model))
    except Exception:
        return {}


def _classes(model: str | Path) -> dict[str, str]:
    """Classes of the networks among the parts, by name, from ``model_index.json`` if there is one.

    The tokenizer and the scheduler are built from their configurations in any case.
    """
    index = _index(model)
    networks = ("unet", "vae", "text_encoder", "text_encoder_2", "transformer", "prior")
    found = {name: value for name, value in index.items() if name in networks}
    return {
        name: str(value[-1])
        for name, value in found.items()
        if isinstance(value, (list, tuple)) and value and value[-1] is not None
    }


def check_fit(unet: Any, text_encoder: Any, tokenizer: Any, vae: Any = None) -> None:
    """Refuse parts of different models.

    Raises:
        ValueError: sizes that do not go together.
    """
    config = unet.config
    channels = 3 if vae is None else vae.config.latent_channels
    width = text_encoder.config.hidden_size
    vocabulary = text_encoder.config.vocab_size
    for wrong, received, expected in (
        (
            not isinstance(config.sample_size, int),
            f"the UNet's sample_size is {config.sample_size}",
            "the side of what it denoises, in its config.json",
        ),
        (
            (config.in_channels, config.out_channels) != (channels, channels),
            f"the UNet takes {config.in_channels} channels and gives {config.out_channels}",
            f"{channels} and {channels}: name a model that is made for text alone",
        ),
        (
            config.cross_attention_dim != width,
            f"the UNet takes texts of width {config.cross_attention_dim}",
            f"{width}, that of the text encoder: do not mix parts of different models",
        ),
        (
            len(tokenizer) > vocabulary,
            f"the tokenizer has {len(tokenizer)} tokens",
            f"at most {vocabulary}, those of the text encoder: do not mix parts of models",
        ),
    ):
        if wrong:
            raise ValueError(f"{received}; expected {expected}")
