"""Judges: what is asked a question about pictures and gives the odds between two answers."""

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
        text: what it wrote, where it writes.
        seconds: that it took.
        input_tokens: as far as known.
        output_tokens: likewise.
    """

    log_odds: float | None
    text: str = ""
    seconds: float = 0.0
    input_tokens: int | None = None
    output_tokens: int | None = None


class Judge(Protocol):
    """Who is asked."""

    @property
    def identity(self) -> dict[str, str]:
        """Settings that the answers depend on beside the question; no secrets among them."""

    def ask(self, question: str, images: Tensor) -> Answer:
        """Answer a question about images (V, 3, H, W) in [0, 1]; may be called by several threads.

        Raises:
            OSError: the judge cannot be reached, or refuses.
            ValueError: it cannot be asked this.
        """


class VLMJudge:
    """A vision-language model, by the logits of the two answers. Nothing is written or parsed.

    Args:
        model: hub id, local folder, ``"builtin/blocks"`` and the like, or another source of
            ``YesNoReward``. Its text is the judge's name.
        answers: the two answers.
        device: where it runs; of a pair, by default where it is.

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
