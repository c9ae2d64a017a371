"""Tokens that stand for the answers, and the log-odds between them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch

__all__ = ["Answer", "Answers", "SpellingVariants", "log_odds", "resolve_answers"]

TokenIds = tuple[int, ...]
"""The tokens of an answer, one after the other."""


@dataclass(frozen=True)
class SpellingVariants:
    """All spellings of a word that are a single token after the prompt.

    The spellings are the word as given, in lower case, capitalized and in capitals, each with and
    without a space before it. Their probabilities are added:
    ``answers=(SpellingVariants("Yes"), SpellingVariants("No"))``.
    """

    word: str

    def __post_init__(self) -> None:
        if not isinstance(self.word, str):
            raise TypeError(f"word is a {type(self.word).__name__}; expected a str")
        if not self.word.strip():
            raise ValueError(f"word is {self.word!r}; expected a word such as 'Yes'")

    @property
    def spellings(self) -> tuple[str, ...]:
        """The spellings that are looked up."""
        words = dict.fromkeys(
            [self.word, self.word.lower(), self.word.capitalize(), self.word.upper()]
        )
        return tuple(f"{space}{word}" for word in words for space in ("", " "))


Answer = str | int | SpellingVariants | Sequence[str | int | SpellingVariants]
"""One answer: its text, its token id, ``SpellingVariants`` of a word, or several of these."""


@dataclass(frozen=True)
class Answers:
    """Tokens of the positive and the negative answer, as ids and as text.

    Attributes:
        positive: token ids of the variants of the positive answer; a tuple of ids for a variant of
            several tokens.
        negative: token ids of the variants of the negative answer, in the same form.
        positive_tokens: text of each variant in ``positive``.
        negative_tokens: text of each variant in ``negative``.
    """

    positive: tuple[int | TokenIds, ...]
    negative: tuple[int | TokenIds, ...]
    positive_tokens: tuple[str, ...]
    negative_tokens: tuple[str, ...]

    @property
    def sequences(self) -> tuple[TokenIds, ...]:
        """All variants, the positive ones first: the columns that ``log_odds`` expects."""
        return tuple(
            (ids,) if isinstance(ids, int) else ids for ids in self.positive + self.negative
        )

    @property
    def ids(self) -> TokenIds | None:
        """All token ids, the positive ones first; None where a variant has several tokens."""
        return single_token_ids(self.sequences)


def single_token_ids(sequences: Sequence[TokenIds]) -> TokenIds | None:
    """The tokens of sequences of one token each; None where one is longer."""
    return tuple(ids[0] for ids in sequences) if all(len(ids) == 1 for ids in sequences) else None


class AnswerTokenizer:
    """Finds the tokens of answers where the model would write them, right after ``context``.

    An answer is looked up behind the text that really precedes it, not on its own: the same word
    is another token after a space than after a line break. A word that follows a word or a colon
    follows with a space, as in "Assistant: Yes".

    Args:
        tokenize: function from text to ids, without tokens added at the ends.
        decode: function from ids, one argument each, to text.
        context: text that precedes the answer, up to and including the generation prompt.
        vocabulary: number of ids that the model scores.
        markup: special tokens, after which no space is wanted.
    """

    def __init__(
        self,
        *,
        tokenize: Callable[[str], list[int]],
        decode: Callable[..., str],
        context: str,
        vocabulary: int,
        markup: Sequence[str] = (),
    ) -> None:
        self.tokenize, self.decode, self.vocabulary = tokenize, decode, vocabulary
        self.markup = tuple(markup)
        self.context = context
        self.before = tokenize(context)
        ends = context[-1:].isspace() or not context or context.endswith(tuple(markup))
        self.space = "" if ends else " "

    def variants(self, answer: Answer) -> tuple[TokenIds, ...]:
        """The token sequences of an answer, each once.

        Raises:
            TypeError: the answer is of another type.
            ValueError: there is no answer, or one that is empty, merges with the prompt, or is an
                id out of range.
        """
        several = [answer] if isinstance(answer, (str, int, SpellingVariants)) else answer
        if not isinstance(several, Sequence) or not all(
            isinstance(one, (str, int, SpellingVariants)) and not isinstance(one, bool)
            for one in several
        ):
            raise TypeError(
                f"answer is {answer!r}; expected a text, a token id, SpellingVariants of a word, "
                "or a list of these"
            )
        if not several:
            raise ValueError("an answer has no variants; expected at least one text or token id")
        return tuple(dict.fromkeys(ids for one in several for ids in self._sequences(one)))

    def text(self, ids: TokenIds) -> str:
        """Tokens as text."""
        return self.decode(*ids)

    def _sequences(self, answer: str | int | SpellingVariants) -> list[TokenIds]:
        if isinstance(answer, int):
            if not 0 <= answer < self.vocabulary:
                raise ValueError(
                    f"answer id {answer} is outside the vocabulary; expected 0 to "
                    f"{self.vocabulary - 1}: pass the answer as text to have it looked up"
                )
            return [(answer,)]
        if isinstance(answer, SpellingVariants):
            found = [self._added(text) for text in answer.spellings]
            known: list[TokenIds] = [ids for ids in found if ids and len(ids) == 1]
            if not known:
                raise ValueError(
                    f"no spelling of {answer.word!r} is a single token after the prompt; expected "
                    "one: pass the word as text, and it is scored over all its tokens"
                )
            return known
        return [self._text(answer)]

    def _text(self, answer: str) -> TokenIds:
        if not answer.strip():
            raise ValueError(f"answer {answer!r} is empty; expected a word")
        if markup := next((token for token in self.markup if token in answer), None):
            raise ValueError(
                f"answer {answer!r} contains {markup!r}, which is markup to this model; expected a "
                "word, or the token's id"
            )
        spaced = None if answer[0].isspace() or not self.space else self._added(" " + answer)
        plain = self._added(answer)
        # the spelling that belongs here, unless only the other one is in the vocabulary
        for ids in (spaced, plain):
            if ids and len(ids) == 1:
                return ids
        found = spaced or plain
        if found is None:
            raise ValueError(
                f"answer {answer!r} merges with the end of the prompt into other tokens; expected "
                "a word of its own: begin it with a space, or pass token ids"
            )
        return found

    def _added(self, answer: str) -> TokenIds | None:
        """Tokens behind those of the context; None where the context changes by it."""
        whole = self.tokenize(self.context + answer)
        length = len(self.before)
        return tuple(whole[length:]) or None if whole[:length] == self.before else None


def check_pair(answers: object) -> None:
    """Refuse anything but a pair of answers; needs no model.

    Raises:
        TypeError: ``answers`` is not a sequence.
        ValueError: ``answers`` is a text, or does not have two items.
    """
    if not isinstance(answers, Sequence):
        raise TypeError(
            f"answers is a {type(answers).__name__}; expected a pair like ('Yes', 'No')"
        )
    if isinstance(answers, str) or len(answers) != 2:
        raise ValueError(
            f"answers is {answers!r}; expected a pair like ('Yes', 'No'): "
            "put variants of one answer into a list, e.g. (['Yes', 'yes'], ['No', 'no'])"
        )


def resolve_answers(answers: tuple[Answer, Answer], lookup: AnswerTokenizer) -> Answers:
    """Find the tokens of a positive and a negative answer.

    Raises:
        TypeError: answers of another type.
        ValueError: an answer cannot be looked up, or both share a variant, or one of them begins
            with the other.
    """
    check_pair(answers)
    positive, negative = (lookup.variants(answer) for answer in answers)
    check_mutually_exclusive([*positive, *negative], lookup.text)
    return Answers(
        tuple(ids[0] if len(ids) == 1 else ids for ids in positive),
        tuple(ids[0] if len(ids) == 1 else ids for ids in negative),
        tuple(map(lookup.text, positive)),
        tuple(map(lookup.text, negative)),
    )


def check_mutually_exclusive(
    sequences: Sequence[TokenIds], text: Callable[[TokenIds], str]
) -> None:
    """Refuse answers of which one equals or begins another: their probabilities overlap.

    Raises:
        ValueError: an answer equals or begins another one.
    """
    for i, first in enumerate(sequences):
        for j, second in enumerate(sequences):
            if i < j and first == second:
                raise ValueError(
                    f"answers share the token {text(first)!r}; expected different tokens: "
                    "choose other words"
                )
            if i != j and first == second[: len(first)]:
                raise ValueError(
                    f"answer {text(second)!r} begins with the answer {text(first)!r}; expected "
                    "answers that exclude each other: choose other words"
                )


def log_odds(scores: torch.Tensor, positives: int) -> torch.Tensor:
    """log P(positive) - log P(negative), Eq. 5 of VLM3D; probabilities of variants are added.

    Args:
        scores: floating ``(..., P + N)``, the positive variants first: logits of one position, or
            log-probabilities.
        positives: number P of positive variants.

    Returns:
        ``(...)``; differentiable.
    """
    return scores[..., :positives].logsumexp(-1) - scores[..., positives:].logsumexp(-1)
