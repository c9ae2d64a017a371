"""Which tokens stand for the answers, and the log-odds between them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch

__all__ = ["Answer", "Answers", "log_odds", "resolve_answers"]

Answer = str | int | Sequence[str | int]
"""One answer: its text, its token id, or several variants of either."""


@dataclass(frozen=True)
class Answers:
    """Token ids that count for and against, and how the tokenizer writes them."""

    positive: tuple[int, ...]
    negative: tuple[int, ...]
    positive_tokens: tuple[str, ...]
    negative_tokens: tuple[str, ...]

    @property
    def ids(self) -> tuple[int, ...]:
        """All ids, the positive ones first: the columns that ``log_odds`` expects."""
        return self.positive + self.negative


def resolve_answers(
    answers: tuple[Answer, Answer],
    *,
    tokenize: Callable[[str], list[int]],
    describe: Callable[[int], str],
    context: str,
    vocabulary: int,
) -> Answers:
    """Find the token of each answer where the model would write it, right after ``context``.

    An answer is looked up behind the text that really precedes it, not on its own: the same word
    is another token after a space than after a line break.

    Args:
        answers: the positive and the negative answer.
        tokenize: text -> ids, without tokens added at the ends.
        describe: id -> the token as text.
        context: what precedes the answer, up to and including the generation prompt.
        vocabulary: number of ids that the model scores.

    Raises:
        ValueError: an answer is not a single token there, an id is out of range, or both answers
            share a token.
    """
    if isinstance(answers, str) or len(answers) != 2:
        raise ValueError(
            f"answers is {answers!r}; expected a pair like ('Yes', 'No'): "
            "put variants of one answer into a list, e.g. (['Yes', 'yes'], ['No', 'no'])"
        )
    before = tokenize(context)

    def token(answer: str | int) -> int:
        if isinstance(answer, int):
            if not 0 <= answer < vocabulary:
                raise ValueError(
                    f"answer id {answer} is outside the vocabulary; expected 0 to "
                    f"{vocabulary - 1}: pass the answer as text to have it looked up"
                )
            return answer
        whole = tokenize(context + answer)
        added = whole[len(before) :]
        if whole[: len(before)] != before or len(added) != 1:
            pieces = [describe(i) for i in added]
            raise ValueError(
                f"answer {answer!r} is {len(added)} tokens after the prompt ({pieces}); expected "
                "exactly one: choose a shorter word, another case or a leading space, or pass "
                "token ids"
            )
        return added[0]

    def variants(answer: Answer) -> tuple[int, ...]:
        several = [answer] if isinstance(answer, (str, int)) else list(answer)
        if not several:
            raise ValueError("an answer has no variants; expected at least one text or token id")
        return tuple(dict.fromkeys(token(a) for a in several))

    positive, negative = variants(answers[0]), variants(answers[1])
    shared = set(positive) & set(negative)
    if shared:
        raise ValueError(
            f"answers share the token {describe(min(shared))!r}; expected different tokens: "
            "choose other words"
        )
    return Answers(
        positive,
        negative,
        tuple(describe(i) for i in positive),
        tuple(describe(i) for i in negative),
    )


def log_odds(logits: torch.Tensor, positives: int) -> torch.Tensor:
    """log P(positive) - log P(negative), Eq. 5 of VLM3D; variants are added up as probabilities.

    Args:
        logits: floating ``(..., P + N)``, the positive variants first.
        positives: P.

    Returns:
        ``(...)``; differentiable.
    """
    return logits[..., :positives].logsumexp(-1) - logits[..., positives:].logsumexp(-1)
