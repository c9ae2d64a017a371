"""Tokenizers of text encoders."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from transformers import AutoTokenizer

from vlmreward.models.model_files import check_vocabulary
from vlmreward.models.quiet_loading import loading
from vlmreward.models.wording import reason_of

__all__ = ["load_tokenizer"]


def load_tokenizer(source: str | Path) -> Any:
    """The tokenizer of a folder or hub id.

    Raises:
        OSError: The tokenizer is missing or damaged, or cannot be reached.
    """
    try:
        with loading():
            tokenizer = AutoTokenizer.from_pretrained(str(source))
        check_vocabulary(tokenizer)
    except Exception as error:  # damaged files make the library raise anything
        raise OSError(
            f"cannot load the tokenizer {str(source)!r} ({reason_of(error)}); expected a hub id or "
            "folder, such as 'google-bert/bert-base-uncased': check the name, or pass tokenizer="
        ) from error
    return tokenizer
