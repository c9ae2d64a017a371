"""Checks of a model's answers when a question is asked for the first time."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch

from vlmreward.models.frozen_vlm import FrozenVLM
from vlmreward.rewards.questions import QuestionTemplate
from vlmreward.utils.notices import warn

__all__ = ["AnswerCheck", "NotFiniteError"]

_LITTLE = 0.01
"""Share of the probability below which answers are too unlikely to compare."""
_LOOKED_AT = 1024
"""Number of different questions whose answers are checked."""


class NotFiniteError(ValueError):
    """A model's answer that is NaN or infinite.

    Attributes:
        query: the place in the batch of the first query that has such an answer.
    """

    def __init__(self, query: int, message: str) -> None:
        super().__init__(message)
        self.query = query


class AnswerCheck:
    """Refuses answers that are not finite, and warns of answers that the model would not give.

    Args:
        backbone: the model that answers.
        least: share of the probability below which it warns; 0 for answers that may be unlikely.
    """

    def __init__(self, backbone: FrozenVLM, least: float = _LITTLE) -> None:
        self.backbone = backbone
        self.least = least
        self._seen: dict[str, None] = {}
        self._warned: dict[QuestionTemplate, object] = {}

    def wanted(self, questions: Sequence[str]) -> bool:
        """True if one of the questions is new and the limit of checked questions is not reached."""
        if len(self._seen) >= _LOOKED_AT:
            return False
        return not all(question in self._seen for question in questions)

    def __call__(
        self,
        template: QuestionTemplate,
        questions: Sequence[str],
        answers: Sequence[Sequence[int]],
        scores: torch.Tensor,
        logits: Callable[[], torch.Tensor],
    ) -> None:
        """Check the answers to some questions.

        Args:
            template: the template of the questions; a warning is given once for each.
            questions: B questions.
            answers: token ids of the S answers.
            scores: log-probabilities ``(B, S)`` of the answers.
            logits: function that returns the logits of the whole vocabulary, ``(B, V)``.

        Raises:
            NotFiniteError: a score is NaN or infinite.
        """
        masses, finite = torch.stack(
            [scores.logsumexp(-1).exp(), scores.isfinite().all(-1).to(scores)]
        ).tolist()
        if not all(finite):
            query = finite.index(0)
            raise NotFiniteError(query, self._not_finite(questions[query]))
        self._seen.update(dict.fromkeys(questions))
        least = min(masses)
        mark = object()
        if least >= self.least or self._warned.setdefault(template, mark) is not mark:
            return
        row = masses.index(least)
        share, token = logits()[row].softmax(-1).max(-1)
        said = ", ".join(repr(self.backbone.decode(*ids)) for ids in answers[:4])
        warn(
            f"the answers {said} hold {least:.1g} of the probability after {_short(questions[row])}"
            f"; expected at least {self.least}: the model would rather say "
            f"{self.backbone.decode(int(token))!r} ({float(share):.0%}), so that the reward "
            "compares unlikely words; ask more plainly, or pass its own words as answers (see "
            "answer_mass and top_answers)"
        )

    def _not_finite(self, question: str) -> str:
        broken = self.backbone.broken_parameter()
        remedy = (
            f"its parameter {broken} holds NaN or infinity: save or download it again"
            if broken
            else f"they overflow in {self.backbone.vlm.dtype}: pass dtype=torch.bfloat16 or "
            "torch.float32"
        )
        return (
            f"the model's logits are not finite for {_short(question)}; expected finite ones: "
            f"{remedy}"
        )


def _short(question: str) -> str:
    return repr(question if len(question) <= 60 else f"{question[:40]}...{question[-17:]}")
