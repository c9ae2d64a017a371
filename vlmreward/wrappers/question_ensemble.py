"""Mean of a reward over several wordings of its question, and contrast with the opposite one."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from typing import Protocol

import torch

from vlmreward.images.batch import ImageBatch, Images
from vlmreward.rewards.module import SeveralRewards
from vlmreward.rewards.placeholders import Text
from vlmreward.rewards.protocol import as_named_dict, call_reward
from vlmreward.rewards.questions import QuestionTemplate

__all__ = ["QuestionEnsemble"]

Questions = Mapping[str, str | QuestionTemplate] | Sequence[str | QuestionTemplate]


class AsksQuestion(Protocol):
    """A reward that asks one question, which can be exchanged."""

    question: QuestionTemplate

    def __call__(
        self, images: Images, prompt: Text | None = None, **placeholders: Text
    ) -> torch.Tensor:
        """The reward ``(B,)``."""


def _with_question(reward: AsksQuestion, question: str | QuestionTemplate) -> AsksQuestion:
    """The reward with another question; everything else, the model above all, is the same."""
    other = copy.copy(reward)
    other.question = QuestionTemplate.of(question)
    return other


class QuestionEnsemble(SeveralRewards):
    """Mean of one reward over wordings of its question, minus that over the opposite question.

    A picture that fools a model often does so for one wording only. With ``negated_questions``
    the value is

        (mean over questions - mean over negated questions) / 2,

    which stays a log-odds, and in which a preference of the model for "Yes", whatever the
    question, cancels exactly.

    Args:
        reward: a ``YesNoReward``, or any reward whose attribute ``question`` is the
            ``QuestionTemplate`` of its question. The reward is not changed; its model is shared.
        questions: wordings of the question: texts, templates or names in ``NAMED_QUESTIONS``, as a
            list or by name.
        negated_questions: wordings of the opposite question, whose "Yes" means "No" to the
            others, such as "Is there no {prompt}?".

    Attributes:
        names: names of all questions, those of ``negated_questions`` last.

    Raises:
        TypeError: the reward has no question to change.
        ValueError: no questions, two of one name, or questions of different placeholders.

    Example:
        ``QuestionEnsemble(reward, ["Is there {prompt}?"],
        negated_questions=["Is there no {prompt}?"])``.
    """

    def __init__(
        self,
        reward: AsksQuestion,
        questions: Questions,
        *,
        negated_questions: Questions | None = None,
    ) -> None:
        super().__init__()
        if not isinstance(getattr(reward, "question", None), QuestionTemplate):
            raise TypeError(
                f"reward is a {type(reward).__name__} without a question; expected a YesNoReward: "
                "put rewards of another kind into an Ensemble"
            )
        against = (
            {}
            if negated_questions is None
            else as_named_dict(negated_questions, "negated_questions")
        )
        if negated_questions is not None and not isinstance(negated_questions, Mapping):
            against = {f"not {name}": question for name, question in against.items()}
        asked = as_named_dict(questions, "questions")
        if both := sorted(asked.keys() & against.keys()):
            raise ValueError(
                f"questions and negated_questions share the name {both[0]!r}; expected each "
                "name once"
            )
        self.reward = reward
        # Not submodules: they are the reward again, with another question
        self._asked = {name: _with_question(reward, question) for name, question in asked.items()}
        self._against = {
            name: _with_question(reward, question) for name, question in against.items()
        }
        self.names = (*self._asked, *self._against)
        every = [*self._asked.items(), *self._against.items()]
        name, first = every[0]
        for other, asking in every[1:]:
            if set(asking.question.placeholders) != set(first.question.placeholders):
                raise ValueError(
                    f"question {other!r} has placeholders {asking.question.placeholders}; expected "
                    f"those of {name!r}, {first.question.placeholders}: every wording is given "
                    "the same"
                )

    def forward_batch(self, batch: ImageBatch, values: Mapping[str, Text]) -> torch.Tensor:
        """Mean over the wordings, or half its distance from that over the negated questions.

        The graphs of all questions live until the backward pass.
        """
        rewards = self.per_reward_batch(batch, values)
        mean = torch.stack([rewards[name] for name in self._asked]).mean(dim=0)
        if not self._against:
            return mean
        return (mean - torch.stack([rewards[name] for name in self._against]).mean(dim=0)) / 2

    def per_reward_batch(
        self, batch: ImageBatch, values: Mapping[str, Text]
    ) -> dict[str, torch.Tensor]:
        """The value ``(B,)`` of each member by name, with its own gradient."""
        return {
            name: call_reward(asking, batch, values)
            for name, asking in (self._asked | self._against).items()
        }
