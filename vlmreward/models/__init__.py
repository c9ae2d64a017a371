"""Frozen vision-language models of transformers as differentiable scorers of answers."""

from __future__ import annotations

from typing import TYPE_CHECKING

from vlmreward.utils.lazy import lazy_names

if TYPE_CHECKING:
    from vlmreward.models.answer_tokens import SpellingVariants
    from vlmreward.models.families import FAMILIES, Member, VLMFamily
    from vlmreward.models.frozen_vlm import FrozenVLM

__all__ = ["FAMILIES", "FrozenVLM", "Member", "SpellingVariants", "VLMFamily"]

__getattr__ = lazy_names(
    __name__,
    {
        "FAMILIES": "families",
        "VLMFamily": "families",
        "FrozenVLM": "frozen_vlm",
        "Member": "families",
        "SpellingVariants": "answer_tokens",
    },
)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
