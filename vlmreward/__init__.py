"""Vision-language models as differentiable rewards, with gradients that reach the pixels."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from vlmreward import doctor, explain, processors, wrappers
    from vlmreward.images.channels import gray_to_rgb, rgba_to_rgb
    from vlmreward.models.answer_tokens import SpellingVariants
    from vlmreward.rewards.composite import CompositeReward
    from vlmreward.rewards.questions import QuestionTemplate
    from vlmreward.rewards.rating import RatingReward
    from vlmreward.rewards.yes_no import YesNoReward
    from vlmreward.wrappers.microbatching import MicroBatched

__all__ = [
    "CompositeReward",
    "MicroBatched",
    "QuestionTemplate",
    "RatingReward",
    "SpellingVariants",
    "YesNoReward",
    "doctor",
    "explain",
    "gray_to_rgb",
    "processors",
    "rgba_to_rgb",
    "wrappers",
]

_HOMES = {
    "CompositeReward": "rewards.composite",
    "MicroBatched": "wrappers.microbatching",
    "QuestionTemplate": "rewards.questions",
    "RatingReward": "rewards.rating",
    "SpellingVariants": "models.answer_tokens",
    "YesNoReward": "rewards.yes_no",
    "gray_to_rgb": "images.channels",
    "rgba_to_rgb": "images.channels",
}
"""Where a name lives that is not a module itself."""


def __getattr__(name: str) -> object:
    """Import on first use: the command line answers at once, without torch."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    if name in _HOMES:
        return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
    return import_module(f"{__name__}.{name}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
