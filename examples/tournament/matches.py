"""Matches of two methods on a prompt, and the questions that a judge is asked about them."""

from __future__ import annotations

import hashlib
import itertools
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from tournament.layout import Asset, Tournament
from tournament.pictures import Showing
from tournament.questions import text_of
from vlmreward.rewards.questions import QuestionTemplate


@dataclass(frozen=True)
class Match:
    """Two assets of a prompt that are compared by a criterion."""

    criterion: str
    first: Asset
    second: Asset


@dataclass(frozen=True)
class Query:
    """A question to a judge.

    Attributes:
        key: SHA-256 of all that the answer depends on: judge, question, answers, pictures.
        criterion: name of the criterion.
        text: the question.
        assets: the left and the right asset, or a single one.
    """

    key: str
    criterion: str
    text: str
    assets: tuple[Asset, ...]


def schedule(
    tournament: Tournament, criteria: Sequence[str], *, per_pair: int | None = None, seed: int = 0
) -> list[Match]:
    """The matches of a tournament: every pair of methods, on as many prompts.

    Args:
        tournament: the methods and their assets.
        criteria: names of the criteria by which each chosen pair of assets is compared.
        per_pair: prompts for each pair of methods, drawn without replacement; all by default. A
            larger number adds prompts to those of a smaller one.
        seed: Seed of the draws, which do not depend on the other methods.

    Raises:
        ValueError: two methods have no prompt in common.
    """
    matches = []
    for first, second in itertools.combinations(tournament.methods, 2):
        shared = tournament.common_prompts(first, second)
        if not shared:
            raise ValueError(
                f"{first} and {second} have no prompt in common; expected pictures of some prompts "
                "by both; leave one of them out with --methods"
            )
        words = f"{seed}/{first}/{second}".encode()
        rng = np.random.default_rng(list(hashlib.sha256(words).digest()))
        chosen = sorted(rng.permutation(shared)[:per_pair].tolist())
        matches += [
            Match(name, tournament.assets[first, i], tournament.assets[second, i])
            for name in criteria
            for i in chosen
        ]
    return sorted(matches, key=lambda match: [*criteria].index(match.criterion))


@dataclass(frozen=True)
class Asking:
    """Rules that turn matches into questions.

    Attributes:
        judge: the judge's identity, as plain data.
        mode: "pairwise": two questions with one picture each, in which the assets exchange their
            sides; "pointwise": a question about each asset.
        answers: the two possible answers of the judge.
        questions: templates of the questions, by criterion.
        showing: presentation of the assets.
        prompts: texts of the prompts, indexed by number.
    """

    judge: Mapping[str, str]
    mode: str
    answers: tuple[str, str]
    questions: Mapping[str, QuestionTemplate]
    showing: Showing
    prompts: Sequence[str]

    def queries(self, match: Match) -> tuple[Query, Query]:
        """The two questions about a match; the first is about its first asset or has it at left."""
        pair = match.first, match.second
        sides = (pair, pair[::-1]) if self.mode == "pairwise" else ((pair[0],), (pair[1],))
        first, second = (self._query(match.criterion, assets) for assets in sides)
        return first, second

    def all_queries(self, matches: Sequence[Match]) -> Iterator[Query]:
        """The questions about all matches, each once."""
        seen = set()
        for match in matches:
            for query in self.queries(match):
                if query.key not in seen:
                    seen.add(query.key)
                    yield query

    def _query(self, criterion: str, assets: tuple[Asset, ...]) -> Query:
        prompt = self.prompts[assets[0].prompt_id]
        text = text_of(self.questions[criterion], prompt)
        depends = {
            "judge": dict(self.judge),
            "mode": self.mode,
            "question": text,
            "prompt": prompt,
            "answers": list(self.answers),
            "pictures": [self.showing.digest(asset) for asset in assets],
            "views": self.showing.views,
            "show": self.showing.show,
            "size": self.showing.size,
        }
        words = json.dumps(depends, sort_keys=True).encode()
        return Query(hashlib.sha256(words).hexdigest(), criterion, text, assets)
