"""The base of the rewards that ask a vision-language model for an answer."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from typing import Union

import torch
from torch import nn

from vlmreward.images.batch import ImageBatch
from vlmreward.models.frozen_vlm import FrozenVLM
from vlmreward.rewards._answer_check import AnswerCheck, NotFiniteError
from vlmreward.rewards.model_answers import PER_VIEW, AskedQuestions, ModelAnswers
from vlmreward.rewards.placeholders import Text
from vlmreward.rewards.questions import QuestionTemplate

__all__ = ["ModelSource", "NotFiniteError", "VLMReward"]

ModelSource = Union[str, "os.PathLike[str]", tuple[nn.Module, object], FrozenVLM, "VLMReward"]
"""Hub id, local folder, ``(model, processor)`` pair, or a model that is loaded already."""


class VLMReward(ModelAnswers):
    """Base of the rewards computed from the probabilities of a model's answers to a question.

    Subclasses are ``YesNoReward``, which documents the arguments in full, and ``RatingReward``.

    Args:
        model: hub id, local folder, ``(model, processor)`` pair, ``FrozenVLM`` or another reward.
        question: a template, a text, or a name in ``NAMED_QUESTIONS``.
        pixel_mode: one of ``vlmreward.processors.PIXEL_MODES``.
        device: the device that the model runs on.
        dtype: dtype of the model's parameters.
        checkpoint: recompute intermediates of the model's layers in the backward pass.
        model_kwargs: further arguments of the model's ``from_pretrained``.
        per_view: one of ``PER_VIEW``.
        validate: check the values of every image, and the first answers to each question.
        name: the reward's name among several; default: its question.
    """

    def __init__(
        self,
        model: ModelSource,
        *,
        question: str | QuestionTemplate,
        pixel_mode: str = "float",
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
            if any(option is not None for option in of_model) or pixel_mode != "float":
                raise ValueError(
                    "device, dtype, checkpoint, model_kwargs or pixel_mode is given for another "
                    "reward's model; expected none of them: set them where the model is loaded"
                )
            self.backbone = model
        else:
            self.backbone = FrozenVLM(
                model,
                pixel_mode=pixel_mode,
                device=device,
                dtype=dtype,
                checkpoint=checkpoint,
                model_kwargs=model_kwargs,
            )
        self._check = AnswerCheck(self.backbone)

    def from_logits(self, scores: torch.Tensor) -> torch.Tensor:
        """Scores ``(..., S)`` of the answers -> ``(...)``; differentiable.

        Args:
            scores: logits of ``tokens``, or log-probabilities, which differ from them by a number
                that is the same for all answers.
        """
        raise NotImplementedError

    def forward_batch(self, batch: ImageBatch, values: Mapping[str, Text]) -> torch.Tensor:
        """The reward ``(B,)`` of each query, from the answers' logits or log-probabilities."""
        asked = self._asked(batch, values)
        if self.tokens is not None:
            scores = self.backbone.answer_logits(
                asked.views,
                self.backbone.layout(asked.questions, asked.sizes),
                self.tokens,
                logits_hook=self.first_look(asked.questions),
            )
        else:
            scores = self._sequence_scores(asked)
        return self._over_views(self.from_logits(scores), asked.counts).to(batch.device)

    def _sequence_scores(self, asked: AskedQuestions) -> torch.Tensor:
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

    def first_look(self, questions: Sequence[str]) -> Callable[[torch.Tensor], None] | None:
        """A function that checks the answers to new questions, with ``validate``.

        Where the answers hold less than 1 % of the probability, it warns, once for a question, and
        it refuses logits that are not finite. That costs one product with the output matrix and, on
        a GPU, a synchronization, at the first call of each of the first 1,024 questions.

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
