"""A rating as a differentiable reward."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

from vlmreward.models.answer_tokens import TokenIds, check_mutually_exclusive
from vlmreward.rewards.base import ModelSource, VLMReward
from vlmreward.rewards.questions import QuestionTemplate

__all__ = ["ONE_TO_FIVE", "RatingReward"]

ONE_TO_FIVE: dict[str, float] = {str(n): float(n) for n in range(1, 6)}
"""The answers "1" to "5" and their values."""


class RatingReward(VLMReward):
    """The expected value of a model's answer to a rating question, such as a rating from 1 to 5.

    The reward is the mean of the answers' values, weighted by the probability of each answer among
    all given answers. Its gradient vanishes where the model is certain, unlike that of the log-odds
    of ``YesNoReward``.

    Args:
        model: a model, its name, or another reward; see ``YesNoReward``.
        question: a template, a text, or a name in ``NAMED_QUESTIONS``.
        ratings: the answers and their values: texts of one or several tokens.
        **options: the other arguments of ``YesNoReward`` except ``answers``.

    Attributes:
        ratings: the answers and their values.
        answers: the answers in the tokenizer's spelling.

    Raises:
        OSError, TypeError: as of ``YesNoReward``.
        ValueError: malformed question, fewer than two answers, answers that do not exclude each
            other, or values that are not finite.

    Example:
        ``RatingReward(model, question="How sharp is this image? Answer bad, fair or good.",
        ratings={"bad": 0, "fair": 1, "good": 2})``.
    """

    values: torch.Tensor

    def __init__(
        self,
        model: ModelSource,
        *,
        question: str | QuestionTemplate = "one-to-five",
        ratings: Mapping[str, float] = ONE_TO_FIVE,
        **options: Any,
    ) -> None:
        if not isinstance(ratings, Mapping) or len(ratings) < 2:
            raise ValueError(f"ratings is {ratings!r}; expected a dict of two or more answers")
        try:
            values = torch.tensor([float(value) for value in ratings.values()])
        except (TypeError, ValueError):
            raise TypeError(
                f"ratings has the values {list(ratings.values())}; expected numbers"
            ) from None
        if not bool(values.isfinite().all()):
            raise ValueError(f"ratings has the values {values.tolist()}; expected finite numbers")
        if not all(isinstance(answer, str) for answer in ratings):
            raise TypeError(f"ratings has the answers {list(ratings)}; expected text, such as '1'")
        super().__init__(model, question=question, **options)
        lookup = self.backbone.lookup()
        self._sequences = tuple(ids for answer in ratings for ids in lookup.variants(answer))
        check_mutually_exclusive(self._sequences, lookup.text)
        self.ratings = dict(ratings)
        self.answers = tuple(map(lookup.text, self._sequences))
        self.register_buffer("values", values.to(self.backbone.device))

    @property
    def sequences(self) -> tuple[TokenIds, ...]:
        """The answers, as tokens, in the order of the ratings."""
        return self._sequences

    def from_logits(self, scores: torch.Tensor) -> torch.Tensor:
        """Scores ``(..., S)`` of the answers -> their expected value ``(...)``; differentiable."""
        return scores.softmax(-1) @ self.values.to(scores)

    def ask(
        self,
        question: str | QuestionTemplate,
        *,
        ratings: Mapping[str, float] | None = None,
        name: str | None = None,
    ) -> RatingReward:
        """Another question to the same model, by default on the same scale."""
        return RatingReward(
            self.backbone,
            question=question,
            ratings=self.ratings if ratings is None else ratings,
            per_view=self.per_view,
            validate=self.validate,
            name=name,
        )
