"""Vision-language models as differentiable rewards, with gradients that reach the pixels."""

from __future__ import annotations

from typing import TYPE_CHECKING

from vlmreward.utils.lazy import lazy_names

if TYPE_CHECKING:
    from vlmreward import doctor, explain, processors, wrappers
    from vlmreward.images.channels import gray_to_rgb, rgba_to_rgb
    from vlmreward.models.answer_tokens import SpellingVariants
    from vlmreward.rewards.composite import CompositeReward
    from vlmreward.rewards.questions import QuestionTemplate
    from vlmreward.rewards.rating import RatingReward
    from vlmreward.rewards.yes_no import YesNoReward
    from vlmreward.wrappers.microbatching import MicroBatched

__version__ = "0.2.0"

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

__getattr__ = lazy_names(
    __name__,
    {
        "CompositeReward": "rewards.composite",
        "MicroBatched": "wrappers.microbatching",
        "QuestionTemplate": "rewards.questions",
        "RatingReward": "rewards.rating",
        "SpellingVariants": "models.answer_tokens",
        "YesNoReward": "rewards.yes_no",
        "doctor": "",
        "explain": "",
        "gray_to_rgb": "images.channels",
        "processors": "",
        "rgba_to_rgb": "images.channels",
        "wrappers": "",
    },
)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
