"""A yes/no question about images as a differentiable reward."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any

import torch
from torch import nn

from vlmreward.answers import Answer, Answers, log_odds, resolve_answers
from vlmreward.backbone import Backbone, Size
from vlmreward.pixels import flatten_views
from vlmreward.templates import NAMED_PROMPTS, PromptTemplate

__all__ = ["YesNoReward"]


class YesNoReward(nn.Module):
    """Log-odds of "Yes" that a vision-language model gives to a question about images.

    Implements Eq. 5 of VLM3D, ``z_yes - z_no``, with gradients that reach the pixels.

    Args:
        model: hub id, local folder, ``"builtin/blocks"``, or a ``(model, processor)`` pair of
            transformers objects. Supported: Qwen2-VL and Qwen2.5-VL. Its parameters are frozen
            and it is put into eval mode, for good.
        prompt: the question, with named fields: a ``PromptTemplate``, a text such as
            ``"Is there {text}? Answer Yes or No."``, or a name in ``NAMED_PROMPTS``.
        answers: what counts for and against: each a text, a token id, or a list of variants whose
            probabilities are added.
        pixels: ``"float"``, ``"clamp"`` or ``"uint8"``; see ``vlmreward.processors.PIXELS``.
        device: where the model runs; default: the GPU if there is one, or where a pair's model is.
        dtype: of its parameters; default: the checkpoint's on a GPU, float32 on a CPU, or as a
            pair's model has them.
        validate: look at every image's values (range, NaN): one pass over the pixels, and one
            synchronisation on a GPU. Shapes and dtypes are checked in any case.

    Attributes:
        answers: the token ids that were taken, and how the tokenizer writes them.
        prompt: the template.

    Raises:
        OSError: the model cannot be loaded.
        TypeError: the model's image processor is not supported.
        ValueError: malformed prompt, or an answer that is not a single token after it.

    Example:
        ``reward = YesNoReward("Qwen/Qwen2.5-VL-7B-Instruct")``, then
        ``reward(images, text="a cat").sum().backward()``.
    """

    answers: Answers

    def __init__(
        self,
        model: str | os.PathLike[str] | tuple[Any, Any],
        *,
        prompt: str | PromptTemplate = "yes-no",
        answers: tuple[Answer, Answer] = ("Yes", "No"),
        pixels: str = "float",
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
        validate: bool = True,
    ) -> None:
        super().__init__()
        if isinstance(prompt, str):
            named = prompt in NAMED_PROMPTS
            prompt = PromptTemplate.named(prompt) if named else PromptTemplate(prompt)
        self.prompt = prompt
        self.validate = validate
        self.backbone = Backbone(model, pixels=pixels, device=device, dtype=dtype)
        self.answers = resolve_answers(
            answers,
            tokenize=self.backbone.tokenize,
            describe=self.backbone.describe,
            context=self.backbone.render("?", images=0),
            vocabulary=self.backbone.vocabulary,
        )

    def forward(
        self,
        images: torch.Tensor | Sequence[Any],
        text: str | Sequence[str] | None = None,
        **fields: str | Sequence[str],
    ) -> torch.Tensor:
        """The reward of each query, Eq. 5: log P(Yes) - log P(No).

        Args:
            images: floating RGB in [0, 1], channels first. ``(B, 3, H, W)``: one image a query.
                ``(B, V, 3, H, W)``: V views a query, all seen by one question. A list of
                ``(3, H, W)`` of different sizes: one image a query; a list of lists of them (or of
                ``(V, 3, H, W)``): several. Any device; never changed in place. Differentiable.
            text: value of the prompt's ``{text}`` field, one for all or a list of B.
            **fields: values of the prompt's other fields, likewise.

        Returns:
            ``(B,)`` on the images' device, float32 (float64 for a float64 model), differentiable to
            the images. Above 0 means that "Yes" is the likelier answer. A query's reward does not
            depend on the others in the batch.

        Raises:
            TypeError: images or texts of another type.
            ValueError: images outside the contract (see ``vlmreward.pixels``), a field missing or
                unknown, or a number of texts that is not B.
        """
        flat, counts = flatten_views(images, values=self.validate)
        if text is not None:
            fields = {"text": text, **fields}
        questions = self._questions(fields, len(counts))
        layout = self.backbone.layout(questions, _sizes(flat, counts))
        logits = self.backbone.answer_logits(flat, layout, self.answers.ids)
        return log_odds(logits, len(self.answers.positive)).to(flat[0].device)

    def probability(
        self,
        images: torch.Tensor | Sequence[Any],
        text: str | Sequence[str] | None = None,
        **fields: str | Sequence[str],
    ) -> torch.Tensor:
        """P(Yes) among the two answers, Eq. 4 of VLM3D: the sigmoid of the reward.

        Args:
            images: as in ``forward``.
            text: as in ``forward``.
            **fields: as in ``forward``.

        Returns:
            ``(B,)`` in [0, 1]; differentiable, but flat where the model is sure: optimise the
            reward instead.
        """
        return self(images, text, **fields).sigmoid()

    def _questions(self, fields: dict[str, Any], batch: int) -> list[str]:
        self.prompt.check_fields(fields)
        columns: dict[str, list[str]] = {}
        for name, value in fields.items():
            if isinstance(value, str):
                columns[name] = [value] * batch
            elif isinstance(value, (list, tuple)):
                if len(value) != batch:
                    raise ValueError(
                        f"{name} has {len(value)} items for {batch} queries; expected one str for "
                        f"all or a list of {batch}: (B, V, 3, H, W) is B queries of V views"
                    )
                columns[name] = list(value)
            else:
                raise TypeError(
                    f"{name} is a {type(value).__name__}; expected a str or a list of {batch} str"
                )
        return [
            self.prompt.format(**{name: values[i] for name, values in columns.items()})
            for i in range(batch)
        ]


def _sizes(
    images: torch.Tensor | Sequence[torch.Tensor], counts: Sequence[int]
) -> list[list[Size]]:
    """Height and width of every image, query by query."""
    if isinstance(images, torch.Tensor):
        return [[(images.shape[-2], images.shape[-1])] * count for count in counts]
    sizes = [(image.shape[-2], image.shape[-1]) for image in images]
    starts = [sum(counts[:i]) for i in range(len(counts))]
    return [sizes[start : start + count] for start, count in zip(starts, counts)]
