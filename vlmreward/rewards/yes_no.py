"""A yes/no question about images as a differentiable reward."""

from __future__ import annotations

from collections.abc import Mapping

import torch

from vlmreward.images.batch import Images
from vlmreward.models.answer_tokens import (
    Answer,
    Answers,
    TokenIds,
    check_pair,
    log_odds,
    resolve_answers,
)
from vlmreward.models.frozen_vlm import FrozenVLM
from vlmreward.rewards.base import ModelSource, VLMReward
from vlmreward.rewards.placeholders import Text
from vlmreward.rewards.questions import QuestionTemplate

__all__ = ["YesNoReward"]


class YesNoReward(VLMReward):
    """Log-odds of "Yes" that a vision-language model gives to a question about images.

    Implements Eq. 5 of VLM3D, ``z_yes - z_no``, with gradients that reach the pixels.

    Several threads may call this reward, and other rewards of the same model, at the same time. The
    settings (``backbone.set_checkpointing``, ``to`` and the like) may not be changed meanwhile.

    Args:
        model: hub id, local folder, ``"builtin/blocks"``, a ``(model, processor)`` pair of
            transformers objects, or another reward or its ``FrozenVLM``, which is then shared. The
            model's parameters are frozen, and it stays in eval mode. See the table of families in
            the documentation.
        question: a ``QuestionTemplate``, a text with placeholders such as
            ``"Is there {prompt}? Answer Yes or No."``, or a name in ``NAMED_QUESTIONS``.
        answers: the positive and the negative answer: each a text, a token id,
            ``SpellingVariants`` of a word, or a list of these, whose probabilities are added. A
            text is tokenized as it would follow the question (with a space after a colon). The
            probabilities of the tokens of a text are multiplied; more than one token needs the
            whole output layer.
        pixel_mode: ``"float"``, ``"clamp"`` or ``"uint8"``; see
            ``vlmreward.processors.PIXEL_MODES``.
        device: device of the model; default: the GPU if there is one, or that of a pair's model.
        dtype: dtype of the model's parameters; default: the checkpoint's on a GPU, float32 on a
            CPU, or that of a pair's model.
        checkpoint: keep only the input of each of the model's layers, and compute intermediates
            again in the backward pass: a fraction of the memory, for one more forward pass.
        model_kwargs: further arguments of the model's ``from_pretrained``, such as
            ``quantization_config``, ``device_map``, ``attn_implementation`` or ``revision``. A
            model that is quantized or spread over devices stays where it is loaded.
        per_view: None asks one question about all views of a query; "mean" and "sum" ask about
            each view separately and take the mean or the sum of the log-odds, for models that were
            not trained with several images, and for IDEFICS-1, whose question attends directly to
            the last image alone.
        validate: check the values of every image (range, NaN), in one pass over the pixels, with
            one synchronization on a GPU. Shapes and dtypes are checked in any case.
        name: the reward's name among several; default: its question.

    Attributes:
        answers: the tokens of both answers, as ids and as text. Their probability depends on the
            images: see ``answer_mass``.
        question: template of the question.

    Raises:
        OSError: the model cannot be loaded, or its weights are not those of its configuration.
        TypeError: the model's image processor is not supported, or an argument is of another type.
        ValueError: a malformed question or an unknown name, answers that cannot follow the question
            or do not exclude each other, a device that does not exist, or options of the model
            together with a ``FrozenVLM``, which is loaded already.

    Example:
        ``reward = YesNoReward("Qwen/Qwen2.5-VL-7B-Instruct")``, then
        ``reward(images, prompt="a cat").sum().backward()``.
    """

    answers: Answers
    backbone: FrozenVLM

    def __init__(
        self,
        model: ModelSource,
        *,
        question: str | QuestionTemplate = "yes-no",
        answers: tuple[Answer, Answer] = ("Yes", "No"),
        pixel_mode: str = "float",
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
        checkpoint: bool = False,
        model_kwargs: Mapping[str, object] | None = None,
        per_view: str | None = None,
        validate: bool = True,
        name: str | None = None,
    ) -> None:
        check_pair(answers)
        super().__init__(
            model,
            question=question,
            pixel_mode=pixel_mode,
            device=device,
            dtype=dtype,
            checkpoint=checkpoint,
            model_kwargs=model_kwargs,
            per_view=per_view,
            validate=validate,
            name=name,
        )
        self.answers = resolve_answers(answers, self.backbone.lookup())

    def ask(
        self,
        question: str | QuestionTemplate,
        *,
        answers: tuple[Answer, Answer] = ("Yes", "No"),
        name: str | None = None,
    ) -> YesNoReward:
        """Another question to the same model; arguments as in the constructor.

        Several rewards of one model share a forward pass in a ``CompositeReward``, such as
        ``content + 0.5 * geometry``.
        """
        return YesNoReward(
            self.backbone,
            question=question,
            answers=answers,
            per_view=self.per_view,
            validate=self.validate,
            name=name,
        )

    @property
    def sequences(self) -> tuple[TokenIds, ...]:
        """The variants of both answers, as tokens, the positive ones first."""
        return self.answers.sequences

    def from_logits(self, scores: torch.Tensor) -> torch.Tensor:
        """Scores ``(..., S)`` of the answers -> reward ``(...)``; differentiable."""
        return log_odds(scores, len(self.answers.positive))

    def probability(
        self,
        images: Images,
        prompt: Text | None = None,
        **placeholders: Text,
    ) -> torch.Tensor:
        """P(Yes) among the two answers, Eq. 4 of VLM3D: the sigmoid of the reward.

        Args:
            images: images in any layout of ``forward``.
            prompt: value of ``{prompt}``, one for all or a list of B.
            **placeholders: values of the other placeholders, likewise.

        Returns:
            ``(B,)`` in [0, 1]; differentiable, but flat where the model is sure: optimize the
            reward instead.
        """
        return self(images, prompt, **placeholders).sigmoid()
