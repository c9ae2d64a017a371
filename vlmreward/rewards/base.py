"""What the rewards have in common that ask a vision-language model for an answer."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from vlmreward.images.validation import flatten_views, sizes_of
from vlmreward.models.answer_tokens import Ids, single
from vlmreward.models.frozen_vlm import FrozenVLM
from vlmreward.models.token_layout import Size
from vlmreward.rewards.composite import Combinable
from vlmreward.rewards.questions import QuestionTemplate
from vlmreward.utils.notices import warn

__all__ = ["PER_VIEW", "NotFiniteError", "TokenProbability", "VLMReward"]

PER_VIEW = (None, "mean", "sum")
"""All views of a query in one question, or the mean or sum over a question about each."""
_LITTLE = 0.01
"""Share of the probability below which answers are too unlikely to compare."""
_LOOKED_AT = 1024
"""Number of different questions whose answers are looked at."""


def _short(question: str) -> str:
    return repr(question if len(question) <= 60 else f"{question[:40]}...{question[-17:]}")


class NotFiniteError(ValueError):
    """A model's answer that is NaN or infinite.

    Attributes:
        query: the place in the batch of the first query that has such an answer.
    """

    def __init__(self, query: int, message: str) -> None:
        super().__init__(message)
        self.query = query


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


class VLMReward(Combinable, nn.Module):
    """A question to a model whose answer's probabilities become a number.

    Args:
        model: as ``YesNoReward`` takes it; likewise all that follows.
        question: see there.
        pixels: see there.
        device: see there.
        dtype: see there.
        checkpoint: see there.
        model_kwargs: see there.
        per_view: see there.
        validate: see there.
        name: see there.
    """

    backbone: FrozenVLM

    def __init__(
        self,
        model: str | os.PathLike[str] | tuple[Any, Any] | FrozenVLM | VLMReward,
        *,
        question: str | QuestionTemplate,
        pixels: str = "float",
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
        checkpoint: bool = False,
        model_kwargs: Mapping[str, Any] | None = None,
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
        self._seen: dict[str, None] = {}
        self._told: dict[QuestionTemplate, object] = {}
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

    def forward(
        self,
        images: torch.Tensor | Sequence[Any],
        prompt: str | Sequence[str] | None = None,
        **placeholders: str | Sequence[str],
    ) -> torch.Tensor:
        """The reward ``(B,)`` of each query; see the subclass."""
        flat, questions, sizes, counts = self._asked(images, prompt, placeholders)
        layout = self.backbone.layout
        if self.tokens is not None:
            scores = self.backbone.answer_logits(
                flat, layout(questions, sizes), self.tokens, look=self.first_look(questions)
            )
        else:
            scores = self.backbone.log_probabilities(flat, questions, sizes, self.sequences)
            if self.first_look(questions):
                with torch.no_grad():
                    self._judge(
                        questions,
                        scores,
                        lambda: self.backbone.answer_logits(flat, layout(questions, sizes), None),
                    )
        return self._over_views(self.from_logits(scores), counts).to(flat[0].device)

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
        if len(self._seen) >= _LOOKED_AT or all(question in self._seen for question in questions):
            return None
        tokens = list(self.tokens or ())

        def look(logits: torch.Tensor) -> None:
            each = logits.log_softmax(-1)
            # column by column, because a list of indices lies on the CPU
            scores = torch.stack([each[:, token] for token in tokens], dim=-1)
            self._judge(questions, scores, lambda: logits)

        return look

    def _judge(
        self,
        questions: Sequence[str],
        scores: torch.Tensor,
        logits: Callable[[], torch.Tensor],
    ) -> None:
        """Refuse or warn by the log-probabilities ``(B, S)`` of the answers."""
        masses, finite = torch.stack(
            [scores.logsumexp(-1).exp(), scores.isfinite().all(-1).to(scores)]
        ).tolist()
        if not all(finite):
            query = finite.index(0)
            broken = self.backbone.broken_parameter()
            raise NotFiniteError(
                query,
                f"the model's logits are not finite for {_short(questions[query])}; expected "
                "finite ones: "
                + (
                    f"its parameter {broken} holds NaN or infinity: save or download it again"
                    if broken
                    else f"they overflow in {self.backbone.vlm.dtype}: pass dtype=torch.bfloat16 "
                    "or torch.float32"
                ),
            )
        self._seen.update(dict.fromkeys(questions))
        least = min(masses)
        mark = object()
        if least >= _LITTLE or self._told.setdefault(self.question, mark) is not mark:
            return
        row = masses.index(least)
        share, token = logits()[row].softmax(-1).max(-1)
        said = ", ".join(repr(self.backbone.describe(*ids)) for ids in self.sequences[:4])
        warn(
            f"the answers {said} hold {least:.1g} of the probability after {_short(questions[row])}"
            f"; expected at least {_LITTLE}: the model would rather say "
            f"{self.backbone.describe(int(token))!r} ({float(share):.0%}), so that the reward "
            "compares unlikely words; ask more plainly, or pass its own words as answers (see "
            "answer_mass and top_answers)"
        )

    def _asked(
        self, images: Any, prompt: Any, placeholders: Mapping[str, Any]
    ) -> tuple[Any, list[str], list[list[Size]], list[int]]:
        """All images, the questions, the sizes of each one's images, and images of each query."""
        flat, counts = flatten_views(images, values=self.validate)
        if prompt is not None:
            placeholders = {"prompt": prompt, **placeholders}
        questions, sizes = self.questions(placeholders, len(counts)), sizes_of(flat, counts)
        if self.per_view is not None:
            questions = [q for q, count in zip(questions, counts) for _ in range(count)]
            sizes = [[size] for views in sizes for size in views]
        return flat, questions, sizes, counts

    def _over_views(self, values: torch.Tensor, counts: list[int]) -> torch.Tensor:
        """One value a query: as they are, or of its views' values the mean or the sum."""
        if self.per_view is None:
            return values
        parts = values.split(counts)
        return torch.stack([p.mean() if self.per_view == "mean" else p.sum() for p in parts])

    def answer_mass(
        self,
        images: torch.Tensor | Sequence[Any],
        prompt: str | Sequence[str] | None = None,
        **placeholders: str | Sequence[str],
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
        flat, questions, sizes, counts = self._asked(images, prompt, placeholders)
        scores = self.backbone.log_probabilities(flat, questions, sizes, self.sequences)
        mass = scores.logsumexp(-1).exp().to(flat[0].device)
        if self.per_view is not None:
            mass = torch.stack([part.mean() for part in mass.split(counts)])
        return mass

    @torch.no_grad()
    def top_answers(
        self,
        images: torch.Tensor | Sequence[Any],
        prompt: str | Sequence[str] | None = None,
        *,
        k: int = 10,
        **placeholders: str | Sequence[str],
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
        flat, questions, sizes, _ = self._asked(images, prompt, placeholders)
        layout = self.backbone.layout(questions, sizes)
        top = self.backbone.answer_logits(flat, layout, None).softmax(-1).topk(k)
        return [
            [TokenProbability(i, self.backbone.describe(i), p) for i, p in zip(ids, shares)]
            for ids, shares in zip(top.indices.tolist(), top.values.tolist())
        ]

    def questions(self, placeholders: Mapping[str, Any], batch: int) -> list[str]:
        """Values of the question's placeholders, each one for all or a list of B -> B questions.

        Raises:
            TypeError, ValueError: as ``forward`` does for its prompts.
        """
        self.question.check_placeholders(placeholders)
        columns: dict[str, list[str]] = {}
        for name, value in placeholders.items():
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
            self.question.format(**{name: values[i] for name, values in columns.items()})
            for i in range(batch)
        ]
