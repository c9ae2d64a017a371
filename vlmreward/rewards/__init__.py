"""Questions to a vision-language model, whose answers become numbers."""

from __future__ import annotations

from typing import TYPE_CHECKING

from vlmreward.utils.lazy import lazy_names

if TYPE_CHECKING:
    from vlmreward.rewards import judges
    from vlmreward.rewards.answer_probability import AnswerProbabilityReward
    from vlmreward.rewards.base import NotFiniteError, VLMReward
    from vlmreward.rewards.composite import CompositeReward
    from vlmreward.rewards.model_answers import TokenProbability
    from vlmreward.rewards.module import RewardModule
    from vlmreward.rewards.protocol import Reward, call_reward
    from vlmreward.rewards.questions import NAMED_QUESTIONS, QuestionTemplate
    from vlmreward.rewards.rating import RatingReward
    from vlmreward.rewards.reductions import REDUCTIONS
    from vlmreward.rewards.reward3d import Reward3D
    from vlmreward.rewards.yes_no import YesNoReward

__all__ = [
    "NAMED_QUESTIONS",
    "REDUCTIONS",
    "AnswerProbabilityReward",
    "CompositeReward",
    "NotFiniteError",
    "QuestionTemplate",
    "RatingReward",
    "Reward",
    "Reward3D",
    "RewardModule",
    "TokenProbability",
    "VLMReward",
    "YesNoReward",
    "call_reward",
    "judges",
]

__getattr__ = lazy_names(
    __name__,
    {
        "AnswerProbabilityReward": "answer_probability",
        "CompositeReward": "composite",
        "NAMED_QUESTIONS": "questions",
        "NotFiniteError": "base",
        "QuestionTemplate": "questions",
        "REDUCTIONS": "reductions",
        "RatingReward": "rating",
        "Reward": "protocol",
        "Reward3D": "reward3d",
        "RewardModule": "module",
        "TokenProbability": "model_answers",
        "VLMReward": "base",
        "YesNoReward": "yes_no",
        "call_reward": "protocol",
        "judges": "",
    },
)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
