"""What the rewards have in common that ask a vision-language model for an answer."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Union

import torch
from torch import nn

from vlmreward.images.batch import ImageBatch, Images, takes_image_batch
from vlmreward.models.answer_tokens import Ids, single
from vlmreward.models.frozen_vlm import FrozenVLM
from vlmreward.models.token_layout import Size
from vlmreward.rewards._answer_check import AnswerCheck, NotFiniteError
from vlmreward.rewards.composite import Combinable
from vlmreward.rewards.protocol import Text, placeholder_values
from vlmreward.rewards.questions import QuestionTemplate

__all__ = ["PER_VIEW", "NotFiniteError", "TokenProbability", "VLMReward"]

PER_VIEW = (None, "mean", "sum")
"""All views of a query in one question, or the mean or sum over a question about each."""


@dataclass(frozen=True)
class TokenProbability:
    """A token that the model may answer with.

    Attributes:
        token: its id.
        text: as the tokenizer writes it.
        probability: of its being the next one, in [0, 1].
    """

    token: int
    text: str
    probability: float


@dataclass(frozen=True)
class _Asked:
    """What the model is asked: views in a row, and for each question the sizes of its images."""

    views: torch.Tensor | Sequence[torch.Tensor]
    questions: list[str]
    sizes: list[list[Size]]
    counts: list[int]


ModelSource = Union[str, "os.PathLike[str]", tuple[nn.Module, object], FrozenVLM, "VLMReward"]
"""Hub id, local folder, ``(model, processor)`` pair, or a model that is loaded already."""


class VLMReward(Combinable):
    """A question to a model whose answer's probabilities become a number.

    The base of ``YesNoReward``, which says more of the arguments, and of ``RatingReward``.

    Args:
        model: hub id, local folder, ``(model, processor)`` pair, ``FrozenVLM`` or another reward.
        question: what the VLM is asked: a template, a text, or a name in ``NAMED_QUESTIONS``.
        pixels: one of ``vlmreward.processors.PIXEL_MODES``.
        device: where the model runs.
        dtype: of the model's parameters.
        checkpoint: recompute the inside of the model's layers in the backward pass.
        model_kwargs: further arguments of the model's ``from_pretrained``.
        per_view: one of ``PER_VIEW``.
        validate: look at every image's values, and at the first answers to each question.
        name: what the reward is called where there are several; default: its question.
    """

    backbone: FrozenVLM

    def __init__(
        self,
        model: ModelSource,
        *,
        question: str | QuestionTemplate,
        pixels: str = "float",
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
        checkpoint: bool = False,
        model_kwargs: Mapping[str, object] | None = None,
        per_view: str | None = None,
        validate: bool = True,
        name: str | None = None,
    ) -> None:
        super().__init__()
        self.question = QuestionTemplate.of(question)
        for option, given, kind in (
            ("name", name, (str, type(None))),
            ("checkpoint", checkpoint, (bool,)),
            ("validate", validate, (bool,)),
        ):
            if not isinstance(given, kind):
                raise TypeError(
                    f"{option} is {given!r}, a {type(given).__name__}; expected a "
                    f"{kind[0].__name__}"
                )
        self.name = name or (question if isinstance(question, str) else self.question.template)
        self.validate = validate
        if per_view not in PER_VIEW:
            raise ValueError(f"per_view is {per_view!r}; expected one of {PER_VIEW}")
        self.per_view = per_view
        if isinstance(model, VLMReward):
            model = model.backbone
        if isinstance(model, FrozenVLM):
            of_model = (device, dtype, checkpoint or None, model_kwargs)
            if any(option is not None for option in of_model) or pixels != "float":
                raise ValueError(
                    "device, dtype, checkpoint, model_kwargs or pixels is given for another "
                    "reward's model; expected none of them: set them where the model is loaded"
                )
            self.backbone = model
        else:
            self.backbone = FrozenVLM(
                model,
                pixels=pixels,
                device=device,
                dtype=dtype,
                checkpoint=checkpoint,
                model_kwargs=model_kwargs,
            )
        self._check = AnswerCheck(self.backbone)

    @property
    def sequences(self) -> tuple[Ids, ...]:
        """S answers that are scored, as tokens."""
        raise NotImplementedError

    @property
    def placeholders(self) -> tuple[str, ...]:
        """The placeholders of the question."""
        return self.question.placeholders

    @property
    def needs_own_forward(self) -> bool:
        """Whether a ``CompositeReward`` has to ask the question by itself."""
        return self.tokens is None or self.per_view is not None

    @property
    def tokens(self) -> tuple[int, ...] | None:
        """The token ids whose logits the reward is made of; None where an answer has several."""
        return single(self.sequences)

    def from_logits(self, scores: torch.Tensor) -> torch.Tensor:
        """Scores ``(..., S)`` of the answers -> ``(...)``; differentiable.

        Args:
            scores: logits of ``tokens``, or log-probabilities: they differ by a number that all
                answers have in common.
        """
        raise NotImplementedError

    @takes_image_batch
    def forward(
        self,
        images: Images | ImageBatch,
        prompt: Text | None = None,
        **placeholders: Text,
    ) -> torch.Tensor:
        """The reward of each query.

        Args:
            images: floating RGB in [0, 1], channels first. ``(B, 3, H, W)``: one image a query.
                ``(B, V, 3, H, W)``: V views a query, all seen by one question. A list of
                ``(3, H, W)`` of different sizes: one image a query; a list of lists of them (or of
                ``(V, 3, H, W)``): several. Any device; never changed in place. Differentiable.
            prompt: value of the question's ``{prompt}`` placeholder, one for all or a list of B.
            **placeholders: values of the question's other placeholders, likewise.

        Returns:
            ``(B,)`` on the images' device, float32 (float64 for a float64 model), differentiable to
            the images. A query's reward does not depend on the others in the batch.

        Raises:
            TypeError: images or prompts of another type.
            ValueError: images outside the contract (see ``vlmreward.images.validation``), a
                placeholder missing or unknown, or a number of prompts that is not B.
        """
        asked = self._asked(images, prompt, placeholders)
        if self.tokens is not None:
            scores = self.backbone.answer_logits(
                asked.views,
                self.backbone.layout(asked.questions, asked.sizes),
                self.tokens,
                look=self.first_look(asked.questions),
            )
        else:
            scores = self._sequence_scores(asked)
        return self._over_views(self.from_logits(scores), asked.counts).to(asked.views[0].device)

    def _sequence_scores(self, asked: _Asked) -> torch.Tensor:
        """Log-probabilities ``(B, S)`` of answers of several tokens."""
        scores = self.backbone.log_probabilities(
            asked.views, asked.questions, asked.sizes, self.sequences
        )
        if self.first_look(asked.questions):
            with torch.no_grad():
                self._check(
                    self.question,
                    asked.questions,
                    self.sequences,
                    scores,
                    lambda: self._logits(asked),
                )
        return scores

    def _logits(self, asked: _Asked) -> torch.Tensor:
        """Logits ``(B, V)`` of the whole vocabulary."""
        layout = self.backbone.layout(asked.questions, asked.sizes)
        return self.backbone.answer_logits(asked.views, layout, None)

    def first_look(self, questions: Sequence[str]) -> Callable[[torch.Tensor], None] | None:
        """What looks at the answers to questions that were not asked before, with ``validate``.

        Where the answers hold less than 1 % of the probability, it warns, once for a question, and
        it refuses logits that are not finite. That costs one product with the output matrix and, on
        a GPU, a synchronisation, at the first call of each of the first 1,024 questions.

        Args:
            questions: B questions.

        Returns:
            A function of the logits ``(B, V)``; None where there is nothing new.
        """
        if not self.validate or torch.compiler.is_compiling():
            return None
        if not self._check.wanted(questions):
            return None
        tokens = list(self.tokens or ())

        def look(logits: torch.Tensor) -> None:
            each = logits.log_softmax(-1)
            # column by column, because a list of indices lies on the CPU
            scores = torch.stack([each[:, token] for token in tokens], dim=-1)
            self._check(self.question, questions, self.sequences, scores, lambda: logits)

        return look

    def _asked(
        self, images: Images | ImageBatch, prompt: Text | None, placeholders: Mapping[str, Text]
    ) -> _Asked:
        batch = ImageBatch.of(images)
        if self.validate:
            batch.check_values()
        counts, sizes = batch.counts, batch.sizes
        questions = self.questions(placeholder_values(prompt, placeholders), len(batch))
        if self.per_view is not None:
            questions = [q for q, count in zip(questions, counts) for _ in range(count)]
            sizes = [[size] for views in sizes for size in views]
        return _Asked(batch.views, questions, sizes, counts)

    def _over_views(self, values: torch.Tensor, counts: list[int]) -> torch.Tensor:
        """One value a query: as they are, or of its views' values the mean or the sum."""
        if self.per_view is None:
            return values
        parts = values.split(counts)
        return torch.stack([p.mean() if self.per_view == "mean" else p.sum() for p in parts])

    def answer_mass(
        self,
        images: Images,
        prompt: Text | None = None,
        **placeholders: Text,
    ) -> torch.Tensor:
        """How much of the probability lies on the answers: the reward is blind to the rest.

        Near 1 the model answers as it is asked. Where little is left, it would rather say something
        else (see ``top_answers``), and the reward compares two unlikely words.

        Args:
            images: as in ``forward``.
            prompt: as in ``forward``.
            **placeholders: as in ``forward``.

        Returns:
            ``(B,)`` in [0, 1] on the images' device, with ``per_view`` the mean over the views;
            differentiable.
        """
        asked = self._asked(images, prompt, placeholders)
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
            images: as in ``forward``.
            prompt: as in ``forward``.
            k: how many of each query, at least 1.
            **placeholders: as in ``forward``.

        Returns:
            For each of B queries, with ``per_view`` for each view, k tokens, the likeliest first.

        Raises:
            ValueError: k is below 1 or above the vocabulary, or what ``forward`` refuses.
        """
        if isinstance(k, bool) or not isinstance(k, int):
            raise TypeError(f"k is a {type(k).__name__}; expected an int")
        if not 1 <= k <= self.backbone.vocabulary:
            raise ValueError(f"k is {k}; expected 1 to {self.backbone.vocabulary}")
        logits = self._logits(self._asked(images, prompt, placeholders))
        top = logits.softmax(-1).topk(k)
        return [
            [TokenProbability(i, self.backbone.describe(i), p) for i, p in zip(ids, shares)]
            for ids, shares in zip(top.indices.tolist(), top.values.tolist())
        ]

    def questions(self, values: Mapping[str, Text], batch: int) -> list[str]:
        """Values of the question's placeholders, each one for all or a list of B -> B questions.

        Raises:
            TypeError, ValueError: as ``forward`` does for its prompts.
        """
        return self.question.format_batch(values, batch)
