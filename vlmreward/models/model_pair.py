"""A model and its processor, from a name, a folder or a pair of objects."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import TYPE_CHECKING

import torch
from torch import nn

from vlmreward.models.devices import checked_device, checked_dtype
from vlmreward.models.families.tiny import Pair
from vlmreward.models.loading import load

if TYPE_CHECKING:
    from transformers import PreTrainedModel

__all__ = ["model_pair"]


def model_pair(
    model: object,
    device: torch.device | str | None = None,
    dtype: torch.dtype | None = None,
    model_kwargs: Mapping[str, object] | None = None,
) -> Pair:
    """Load a model by its name, or take the one that is passed.

    Args:
        model: hub id, local folder, or a ``(model, processor)`` pair of transformers objects.
        device: device of the model; None keeps a pair's device.
        dtype: dtype of the parameters; None keeps a pair's dtype.
        model_kwargs: further arguments of ``from_pretrained``, for names and folders.

    Raises:
        OSError: the model cannot be loaded, or its weights are not those of its configuration.
        TypeError: ``model`` is something else, or an option is of another type.
        ValueError: options that exclude each other, or a device that does not exist.
    """
    if not isinstance(model_kwargs, (Mapping, type(None))):
        raise TypeError(
            f"model_kwargs is a {type(model_kwargs).__name__}; expected a dict of arguments of "
            "from_pretrained"
        )
    device, dtype = checked_device(device), checked_dtype(dtype)
    if isinstance(model, (str, os.PathLike)):
        return load(os.fspath(model), device, dtype, model_kwargs)
    vlm, processor = _pair(model)
    if model_kwargs:
        raise ValueError(
            "model_kwargs are given for a model that is loaded; expected a name or folder"
        )
    return _moved(vlm, device, dtype), processor


def _pair(model: object) -> Pair:
    """A model and a processor of transformers, refused if they are something else."""
    if not isinstance(model, (tuple, list)) or len(model) != 2:
        raise TypeError(
            f"model is a {type(model).__name__}; expected a model id, a folder, 'builtin/blocks' "
            "or a (model, processor) pair"
        )
    vlm, processor = model
    if not isinstance(vlm, nn.Module) or not hasattr(vlm, "get_output_embeddings"):
        raise TypeError(
            f"the model of the pair is a {type(vlm).__name__}; expected a vision-language model of "
            "transformers: load it with AutoModelForImageTextToText"
        )
    if not hasattr(processor, "tokenizer"):
        raise TypeError(
            f"the processor of the pair is a {type(processor).__name__}; expected one with an "
            "image processor and a tokenizer: load it with AutoProcessor"
        )
    return vlm, processor


def _moved(
    vlm: PreTrainedModel, device: torch.device | None, dtype: torch.dtype | None
) -> PreTrainedModel:
    """A pair's model on another device, in another dtype, if asked for."""
    if device is None and dtype is None:
        return vlm
    if getattr(vlm, "quantization_method", None) or len(getattr(vlm, "hf_device_map", ())) > 1:
        raise ValueError(
            "device or dtype is given for a model that is quantized or spread over devices; "
            "expected neither: it stays where it was loaded"
        )
    return vlm.to(device=device, dtype=dtype)
