"""A question to a model about images, and the probabilities of its answers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch

from vlmreward.images.batch import ImageBatch, Images
from vlmreward.models.answer_tokens import TokenIds, single_token_ids
from vlmreward.models.frozen_vlm import FrozenVLM
from vlmreward.models.token_layout import Size
from vlmreward.rewards.composite import Combinable
from vlmreward.rewards.placeholders import Text, placeholder_values
from vlmreward.rewards.questions import QuestionTemplate

__all__ = ["PER_VIEW", "AskedQuestions", "ModelAnswers", "TokenProbability"]

PER_VIEW = (None, "mean", "sum")
"""All views of a query in one question, or the mean or sum over a question about each."""


@dataclass(frozen=True)
class TokenProbability:
    """A token that the model may answer with.

    Attributes:
        token: its id.
        text: the token in the tokenizer's spelling.
        probability: probability that it is the next token, in [0, 1].
    """

    token: int
    text: str
    probability: float


@dataclass(frozen=True)
class AskedQuestions:
    """A batch of questions: all views in order, and for each question the sizes of its images."""

    views: torch.Tensor | Sequence[torch.Tensor]
    questions: list[str]
    sizes: list[list[Size]]
    counts: list[int]


class ModelAnswers(Combinable):
    """A question to a model, with the probabilities of its answers.

    Attributes:
        backbone: the model.
        question: template of the question.
        per_view: one of ``PER_VIEW``.
        validate: check the values of all images.
    """

    backbone: FrozenVLM
    question: QuestionTemplate
    per_view: str | None
    validate: bool

    @property
    def sequences(self) -> tuple[TokenIds, ...]:
        """S answers that are scored, as tokens."""
        raise NotImplementedError

    @property
    def placeholders(self) -> tuple[str, ...]:
        """The placeholders of the question."""
        return self.question.placeholders

    @property
    def needs_own_forward(self) -> bool:
        """True if a ``CompositeReward`` has to ask the question in a separate forward pass."""
        return self.tokens is None or self.per_view is not None

    @property
    def tokens(self) -> tuple[int, ...] | None:
        """The token ids whose logits determine the reward; None if an answer has several tokens."""
        return single_token_ids(self.sequences)

    def _asked(self, batch: ImageBatch, values: Mapping[str, Text]) -> AskedQuestions:
        if self.validate:
            batch.check_values()
        counts, sizes = batch.counts, batch.sizes
        questions = self.questions(values, len(batch))
        if self.per_view is not None:
            questions = [q for q, count in zip(questions, counts) for _ in range(count)]
            sizes = [[size] for views in sizes for size in views]
        return AskedQuestions(batch.views, questions, sizes, counts)

    def _over_views(self, values: torch.Tensor, counts: list[int]) -> torch.Tensor:
        """One value per query: the values as given, or with ``per_view`` their mean or sum."""
        if self.per_view is None:
            return values
        parts = values.split(counts)
        return torch.stack([p.mean() if self.per_view == "mean" else p.sum() for p in parts])

    def _logits(self, asked: AskedQuestions) -> torch.Tensor:
        """Logits ``(B, V)`` of the whole vocabulary."""
        layout = self.backbone.layout(asked.questions, asked.sizes)
        return self.backbone.answer_logits(asked.views, layout, None)

    def answer_mass(
        self,
        images: Images,
        prompt: Text | None = None,
        **placeholders: Text,
    ) -> torch.Tensor:
        """Probability of all counted answers together; the reward ignores all other answers.

        Near 1, the model answers with one of the words that are asked for. Near 0, it would say
        something else (see ``top_answers``), and the reward compares unlikely words.

        Args:
            images: images in any layout of ``forward``.
            prompt: value of ``{prompt}``, one for all or a list of B.
            **placeholders: values of the other placeholders, likewise.

        Returns:
            ``(B,)`` in [0, 1] on the images' device, with ``per_view`` the mean over the views;
            differentiable.
        """
        asked = self._asked(ImageBatch.of(images), placeholder_values(prompt, placeholders))
        scores = self.backbone.log_probabilities(
            asked.views, asked.questions, asked.sizes, self.sequences
        )
        mass = scores.logsumexp(-1).exp().to(asked.views[0].device)
        if self.per_view is not None:
            mass = torch.stack([part.mean() for part in mass.split(asked.counts)])
        return mass

    @torch.no_grad()
    def top_answers(
        self,
        images: Images,
        prompt: Text | None = None,
        *,
        k: int = 10,
        **placeholders: Text,
    ) -> list[list[TokenProbability]]:
        """The tokens that the model would most likely begin its answer with.

        Args:
            images: images in any layout of ``forward``.
            prompt: value of ``{prompt}``, one for all or a list of B.
            k: number of tokens for each query, from 1 to the size of the vocabulary.
            **placeholders: values of the other placeholders, likewise.

        Returns:
            For each of B queries, with ``per_view`` for each view, k tokens, the likeliest first.

        Raises:
            ValueError: k is below 1 or above the vocabulary, or what ``forward`` refuses.
        """
        if isinstance(k, bool) or not isinstance(k, int):
            raise TypeError(f"k is a {type(k).__name__}; expected an int")
        if not 1 <= k <= self.backbone.vocabulary:
            raise ValueError(f"k is {k}; expected 1 to {self.backbone.vocabulary}")
        logits = self._logits(
            self._asked(ImageBatch.of(images), placeholder_values(prompt, placeholders))
        )
        top = logits.softmax(-1).topk(k)
        return [
            [TokenProbability(i, self.backbone.decode(i), p) for i, p in zip(ids, shares)]
            for ids, shares in zip(top.indices.tolist(), top.values.tolist())
        ]

    def questions(self, values: Mapping[str, Text], batch: int) -> list[str]:
        """Values of the question's placeholders, each one for all or a list of B -> B questions.

        Raises:
            TypeError, ValueError: as ``forward`` does for its prompts.
        """
        return self.question.format_batch(values, batch)
