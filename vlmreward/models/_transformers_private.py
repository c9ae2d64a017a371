"""All private names of transformers that this package uses.

The attention that a model uses is named in a private attribute of its configurations, and that name
decides whether the attention receives the boundaries of packed sequences.
``tests/vlmreward/models/test_transformers_private.py`` fails if a release of transformers moves one
of them, and says what to change here.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from transformers import AttentionInterface

if TYPE_CHECKING:
    from transformers import PreTrainedConfig

__all__ = ["PACKED_ATTENTION", "attention_of", "register_packed_attention", "set_attention"]

PACKED_ATTENTION = "windows_not_flash"
"""transformers hands ``cu_seqlens`` to an implementation only where its name says "flash"."""


def attention_of(config: PreTrainedConfig) -> str | None:
    """Name of the attention that the modules of a configuration use, such as ``"sdpa"``."""
    return getattr(config, "_attn_implementation", None)


def set_attention(config: PreTrainedConfig, name: str) -> None:
    """Switch the modules of a configuration to another attention, without any check.

    ``PreTrainedModel.set_attn_implementation`` refuses the names of vision towers that declare
    flash-attention unsupported.
    """
    config._attn_implementation = name


def register_packed_attention(attention: Callable[..., object]) -> None:
    """Make an attention over packed sequences known under the name ``PACKED_ATTENTION``."""
    AttentionInterface.register(PACKED_ATTENTION, attention)
