"""The probability of one answer among everything that a model could say."""

from __future__ import annotations

from typing import Any

import torch

from vlmreward.images.batch import Images
from vlmreward.models.answer_tokens import Answer, TokenIds, check_mutually_exclusive
from vlmreward.rewards._answer_check import AnswerCheck
from vlmreward.rewards.base import ModelSource, VLMReward
from vlmreward.rewards.placeholders import Text
from vlmreward.rewards.questions import QuestionTemplate

__all__ = ["AnswerProbabilityReward"]


class AnswerProbabilityReward(VLMReward):
    """Log-probability of an answer to a question about images, among all possible answers.

    ``YesNoReward`` compares two answers with each other; this reward compares one answer with the
    whole vocabulary: log P("Yes"), as in VQAScore (Lin et al., 2024) and TOPReward. It needs the
    whole output layer, and is low where the model would give the same answer in other words.

    Args:
        model: a model, its name, or another reward; see ``YesNoReward``.
        question: a template, a text, or a name in ``NAMED_QUESTIONS``.
        answer: a text, a token id, ``SpellingVariants`` of a word, or a list of these, whose
            probabilities are added. The probabilities of the tokens of a text are multiplied.
        **options: the other arguments of ``YesNoReward`` except ``answers``.

    Attributes:
        answer: the answer as it was given.
        answers: its variants in the tokenizer's spelling.

    Raises:
        OSError, TypeError: as of ``YesNoReward``.
        ValueError: a malformed question, or an answer that cannot be looked up behind it.

    Example:
        ``AnswerProbabilityReward(model, question="Is {prompt} in this image?", answer="True")``.
    """

    def __init__(
        self,
        model: ModelSource,
        *,
        question: str | QuestionTemplate = "vqascore",
        answer: Answer = "Yes",
        **options: Any,
    ) -> None:
        super().__init__(model, question=question, **options)
        lookup = self.backbone.lookup()
        self._sequences = lookup.variants(answer)
        check_mutually_exclusive(self._sequences, lookup.text)
        self.answer = answer
        self.answers = tuple(map(lookup.text, self._sequences))
        # an answer may be as unlikely as it is wrong
        self._check = AnswerCheck(self.backbone, least=0.0)

    @property
    def sequences(self) -> tuple[TokenIds, ...]:
        """The variants of the answer, as tokens."""
        return self._sequences

    @property
    def tokens(self) -> None:
        """None: the logits of the answer alone do not tell its probability."""
        return None

    def from_logits(self, scores: torch.Tensor) -> torch.Tensor:
        """Log-probabilities ``(..., S)`` of the variants -> ``(...)``; differentiable."""
        return scores.logsumexp(-1)

    def ask(
        self,
        question: str | QuestionTemplate,
        *,
        answer: Answer | None = None,
        name: str | None = None,
    ) -> AnswerProbabilityReward:
        """Another question to the same model, by default with the same answer."""
        return AnswerProbabilityReward(
            self.backbone,
            question=question,
            answer=self.answer if answer is None else answer,
            per_view=self.per_view,
            validate=self.validate,
            name=name,
        )

    def probability(
        self, images: Images, prompt: Text | None = None, **placeholders: Text
    ) -> torch.Tensor:
        """The probability of the answer: the exponential of the reward.

        Args:
            images: images in any layout of ``forward``.
            prompt: value of ``{prompt}``, one for all or a list of B.
            **placeholders: values of the other placeholders, likewise.

        Returns:
            ``(B,)`` in [0, 1]; differentiable, but flat where the model is sure: optimize the
            reward instead. With ``per_view`` the exponential of the mean or sum over the views.
        """
        return self(images, prompt, **placeholders).exp()
