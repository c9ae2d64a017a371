"""Models without weights: their configuration and processor alone, on torch's meta device."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from transformers import AutoConfig, AutoModelForImageTextToText, AutoProcessor

from vlmreward.models.loading import check_tokenizer, local_files_only, resolve, unloadable
from vlmreward.models.quiet_loading import loading
from vlmreward.models.text_side import TextSide

if TYPE_CHECKING:
    from vlmreward.models.families.tiny import Pair

__all__ = ["load_on_meta"]


def load_on_meta(source: str | os.PathLike[str], dtype: torch.dtype | None = None) -> TextSide:
    """The text side of a model of which no weight is read: shapes and token layouts only.

    Args:
        source: hub id, local folder or ``"builtin/blocks"``; ``config.json`` and the files of the
            processor are enough.
        dtype: dtype of the parameters; default: that of ``config.json``, and bfloat16 if it names
            none.

    Returns:
        The text side; its ``vlm`` is on the meta device.

    Raises:
        OSError: the files cannot be found or read, or are not those of a vision-language model.
    """
    source = os.fspath(source)
    path = resolve(source)
    local = local_files_only(path)
    try:
        with loading(0):
            vlm, processor = _pair(path, dtype, local=local)
        check_tokenizer(processor)
    except Exception as error:  # damaged files make transformers raise anything
        raise unloadable(source, Path(path), error, {}) from error
    return TextSide(vlm.requires_grad_(False).eval(), processor)


def _pair(path: str, dtype: torch.dtype | None, *, local: bool) -> Pair:
    options = {"local_files_only": local, "trust_remote_code": False}
    config = AutoConfig.from_pretrained(path, **options)
    dtype = dtype or getattr(config, "dtype", None) or torch.bfloat16
    with torch.device("meta"):
        vlm = AutoModelForImageTextToText.from_config(config, dtype=dtype)
    return vlm, AutoProcessor.from_pretrained(path, **options)
