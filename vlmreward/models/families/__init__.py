"""Families of vision-language models: one file each, listed here.

A family defines the prompt format of its models, names their checkpoints and image processors, and
builds a tiny random model. Every other model with a chat template is handled by ``VLMFamily``
itself.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from vlmreward.models.families.base import Member, VLMFamily
from vlmreward.models.families.gemma3 import Gemma3
from vlmreward.models.families.glm4v import Glm4v
from vlmreward.models.families.idefics import Idefics
from vlmreward.models.families.idefics2 import Idefics2
from vlmreward.models.families.idefics3 import Idefics3
from vlmreward.models.families.llava import Llava
from vlmreward.models.families.paligemma import PaliGemma
from vlmreward.models.families.qwen_vl import QwenVL

if TYPE_CHECKING:
    from transformers import PreTrainedModel, ProcessorMixin

__all__ = ["FAMILIES", "Member", "VLMFamily", "family_of", "members"]

FAMILIES: tuple[type[VLMFamily], ...] = (
    QwenVL,
    PaliGemma,
    Idefics,
    Idefics2,
    Idefics3,
    Llava,
    Gemma3,
    Glm4v,
)
"""All families that differ from ``VLMFamily``, in the order of the documentation's tables."""


def members() -> dict[str, Member]:
    """All kinds of models that have a family, by their keys."""
    return {member.key: member for family in FAMILIES for member in family.members}


def family_of(vlm: PreTrainedModel, processor: ProcessorMixin) -> VLMFamily:
    """The family of a model of transformers, chosen by its configuration's ``model_type``."""
    for family in FAMILIES:
        if any(member.model_type == vlm.config.model_type for member in family.members):
            return family(vlm, processor)
    return VLMFamily(vlm, processor)
