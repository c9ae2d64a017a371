"""Judges: models that answer a question about pictures by the odds between two answers."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from vlmreward import YesNoReward
from vlmreward.rewards.base import ModelSource
from vlmreward.rewards.questions import QuestionTemplate


@dataclass(frozen=True)
class Answer:
    """A judge's answer.

    Attributes:
        log_odds: log of P(first answer) / P(second answer); None where neither was given.
        text: the judge's text; empty for a judge that writes none.
        seconds: duration of the question.
        input_tokens: number of input tokens; None if unknown.
        output_tokens: number of output tokens; None if unknown.
    """

    log_odds: float | None
    text: str = ""
    seconds: float = 0.0
    input_tokens: int | None = None
    output_tokens: int | None = None


class Judge(Protocol):
    """A model that answers questions about images."""

    @property
    def identity(self) -> dict[str, str]:
        """Settings that the answers depend on besides the question, without secrets."""

    def ask(self, question: str, images: Tensor) -> Answer:
        """Answer a question about images (V, 3, H, W) in [0, 1]; may be called by several threads.

        Raises:
            OSError: the judge cannot be reached, or refuses.
            ValueError: the judge cannot be asked this question.
        """


class VLMJudge:
    """A vision-language model, by the logits of the two answers. Nothing is written or parsed.

    Args:
        model: hub id, local folder, ``"builtin/blocks"``, or another source of ``YesNoReward``.
            Its text is the judge's name.
        answers: the two answers.
        device: device of the model; by default the one that a given model is on.

    Raises:
        OSError: the model cannot be loaded.
        ValueError: the answers cannot be told apart by their tokens.
    """

    def __init__(
        self, model: ModelSource, answers: tuple[str, str], device: str | None = None
    ) -> None:
        self.name = str(model)
        try:
            self.reward = YesNoReward(
                model, question=QuestionTemplate("{question}"), answers=answers, device=device
            )
        except TypeError as error:
            raise OSError(f"cannot use {model!r}: {error}") from error

    @property
    def identity(self) -> dict[str, str]:
        return {"kind": "model", "name": self.name}

    @torch.no_grad()
    def ask(self, question: str, images: Tensor) -> Answer:
        begin = time.perf_counter()
        images = images.to(self.reward.backbone.device)
        odds = float(self.reward(images[None], question=question))
        return Answer(odds, seconds=time.perf_counter() - begin)


def require_mode(judge: str, mode: str) -> None:
    """Refuse questions about two assets to models that know those about one alone.

    Raises:
        ValueError: a built-in model is to compare two assets in one picture.
    """
    if mode == "pairwise" and judge.startswith("builtin/"):
        raise ValueError(
            f"received --mode pairwise with {judge}, which was trained on yes/no questions about "
            "one object; expected --mode pointwise, or a larger model"
        )
