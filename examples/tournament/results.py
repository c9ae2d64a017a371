"""Results of matches, and what they say about their judge."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from scipy.special import expit

from tournament.judges import Answer
from tournament.matches import Asking, Match
from tournament.ratings import Ratings, rate, win_matrices


@dataclass(frozen=True)
class Comparison:
    """The outcome of a match.

    Attributes:
        match: the match.
        probability: probability that the first asset is the better one, in [0, 1].
        result: -1 if the first asset won, 1 if the second did, 0 for a draw (GPTEval3D's codes).
        lefts: Probabilities that a pairwise judge gave to the asset at the left, where that was
            the first asset and where it was the second; None for a pointwise judge.
    """

    match: Match
    probability: float
    result: int
    lefts: tuple[float, float] | None


def comparisons(
    asking: Asking, matches: Sequence[Match], answers: Mapping[str, Answer], *, margin: float = 0.0
) -> tuple[list[Comparison], list[Match]]:
    """The outcomes of matches whose questions have been answered.

    A pairwise judge's probability is the mean over both orders. A pointwise judge gives log-odds a
    and b; its probability is the logistic function of a - b, which is the probability of Yes to the
    first and No to the second asset, given that the answers differ.

    Args:
        asking: rules that turned the matches into questions.
        matches: the matches.
        answers: answers by the keys of their questions.
        margin: largest distance from 1/2 of a draw's probability.

    Returns:
        Outcomes in the order of the matches; and the matches without an outcome, because the judge
        gave neither answer to one of the questions.
    """
    found, without = [], []
    for match in matches:
        first, second = (answers[query.key].log_odds for query in asking.queries(match))
        if first is None or second is None:
            without.append(match)
            continue
        lefts = None
        if asking.mode == "pairwise":
            lefts = float(expit(first)), float(expit(second))
            probability = (lefts[0] + 1 - lefts[1]) / 2
        else:
            probability = float(expit(first - second))
        draw = abs(probability - 0.5) <= margin
        result = 0 if draw else -1 if probability > 0.5 else 1
        found.append(Comparison(match, probability, result, lefts))
    return found, without


def position_bias(found: Sequence[Comparison]) -> dict[str, float] | None:
    """Position bias of a pairwise judge; None for other judges.

    Returns:
        "left": the mean probability that it gives to the asset at the left, over both orders: 1/2
        without a bias. "inconsistent": the share of the matches in which it names another winner
        when the assets exchange their sides.
    """
    lefts = [x.lefts for x in found if x.lefts is not None]
    if not lefts:
        return None
    inconsistent = [(one > 0.5) == (two > 0.5) for one, two in lefts]
    return {"left": float(np.mean(lefts)), "inconsistent": float(np.mean(inconsistent))}


def cost(answers: Sequence[Answer]) -> dict[str, Any]:
    """Questions, seconds, and tokens, which are None where no answer tells them."""

    def total(values: Sequence[int | None]) -> int | None:
        known = [x for x in values if x is not None]
        return sum(known) if known else None

    return {
        "questions": len(answers),
        "seconds": round(sum(x.seconds for x in answers), 3),
        "input_tokens": total([x.input_tokens for x in answers]),
        "output_tokens": total([x.output_tokens for x in answers]),
    }


@dataclass(frozen=True)
class Table:
    """Ratings by a criterion.

    Attributes:
        criterion: name of the criterion.
        methods: names of the methods.
        ratings: ratings in the order of the methods.
        wins: (n, n): row wins against column.
        note: a remark for the reader, or an empty text.
        steered: methods that the judge has steered.
    """

    criterion: str
    methods: tuple[str, ...]
    ratings: Ratings
    wins: np.ndarray
    note: str
    steered: tuple[str, ...] = ()

    @property
    def ranking(self) -> list[int]:
        """Places of the methods, the best one first."""
        return np.argsort(-self.ratings.elo, kind="stable").tolist()

    def marked(self, i: int) -> str:
        """Name of a method, with a star if the judge has steered it."""
        name = self.methods[i]
        return f"{name} *" if name in self.steered else name

    def plain(self) -> dict[str, Any]:
        """The table as data for JSON."""
        values = asdict(self.ratings)
        regularized = values.pop("regularized")
        rows = [
            {"method": self.methods[i], "steered": self.methods[i] in self.steered}
            | {k: round(float(v[i]), 2) for k, v in values.items()}
            for i in self.ranking
        ]
        return {"ratings": rows, "regularized": regularized, "note": self.note}


def table(
    criterion: str,
    methods: tuple[str, ...],
    found: Sequence[Comparison],
    *,
    draw: float = 0.5,
    anchor: str | None = None,
    seed: int = 0,
    steered: Sequence[str] = (),
) -> Table:
    """Ratings of the methods by a criterion.

    Args:
        criterion: name of the criterion.
        methods: all names.
        found: outcomes, those of other criteria among them.
        draw: wins that a draw gives to both.
        anchor: the method whose rating is 1000.
        seed: Seed of the bootstrap.
        steered: methods that the judge has steered.

    Raises:
        ValueError: a method has no outcome.
    """
    mine = [x for x in found if x.match.criterion == criterion]
    ids = sorted({x.match.first.prompt_id for x in mine})
    wins = win_matrices(
        np.array([methods.index(x.match.first.method) for x in mine], int),
        np.array([methods.index(x.match.second.method) for x in mine], int),
        np.array([x.result for x in mine], int),
        np.array([ids.index(x.match.first.prompt_id) for x in mine], int),
        methods=len(methods),
        prompts=len(ids),
        draw=draw,
    )
    total = wins.sum(0)
    silent = [name for name, played in zip(methods, (total + total.T).any(1)) if not played]
    if silent:
        raise ValueError(
            f"the judge has answered no question about {silent[0]} by {criterion}; expected some "
            "answers; see the texts in answers.jsonl"
        )
    place = None if anchor is None else methods.index(anchor)
    ratings = rate(wins, anchor=place, seed=seed)
    note = ""
    if ratings.regularized:
        note = (
            "Some methods won, or lost, all comparisons with the others, so that the ratings of "
            "largest likelihood are infinite. A virtual game of each method against an average "
            "one, half won, keeps them finite: the distances depend on it, and more comparisons "
            "would help."
        )
    if len(ids) < 2:
        note += " All comparisons are of one prompt: the intervals say nothing about others."
    if steered:
        note += " * The judge was the reward of these methods, so their ratings are no evidence."
    return Table(criterion, methods, ratings, total, note.strip(), tuple(steered))
