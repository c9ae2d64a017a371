"""The criteria of GPTEval3D, and our own wording of the questions about them."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from vlmreward.rewards.questions import NAMED_QUESTIONS, QuestionTemplate

MODES = {"pairwise": ("1", "2"), "pointwise": ("Yes", "No")}
"""Answers by mode: a question is about two assets, or about one."""

_BOTH = (
    "The picture shows two 3D objects, object 1 in its left half and object 2 in its right half, "
    "each from several sides. Both were made for the description: {{prompt}}. {question} Answer "
    "with 1 or 2 alone."
)


@dataclass(frozen=True)
class Criterion:
    """A criterion by which assets are compared.

    Attributes:
        number: key in GPTEval3D's files.
        better: the question about two assets, without the frame ``_BOTH``.
        good: the question about one asset, whose answer is Yes for a good one.
    """

    number: int
    better: str
    good: str


CRITERIA = {
    "alignment": Criterion(
        0,
        "Which object is closer to the description?",
        "Do these images show {prompt}? Answer Yes or No.",
    ),
    "plausibility": Criterion(
        1,
        "Which object has the sounder shape, without floating pieces, holes or a repeated front?",
        "Is the object geometrically sound and consistent? Answer Yes or No.",
    ),
    "coherence": Criterion(
        2,
        "On which object do the colours fit the shape better, part by part?",
        "Do the colours of the object fit its shape, part by part? Answer Yes or No.",
    ),
    "texture": Criterion(
        3,
        "Which object has the finer and more lifelike details in its colours?",
        "Does the object have fine and lifelike details in its colours? Answer Yes or No.",
    ),
    "geometry": Criterion(
        4,
        "Which object has the finer and more lifelike details in its shape?",
        "Does the object have fine and lifelike details in its shape? Answer Yes or No.",
    ),
    "overall": Criterion(
        5,
        "All in all, which object is the better one for the description?",
        NAMED_QUESTIONS["paper/selected"],
    ),
}
"""Criteria by name, in the order of GPTEval3D."""


def questions(
    names: Sequence[str], mode: str, file: Path | None = None
) -> dict[str, QuestionTemplate]:
    """The questions about some criteria.

    Args:
        names: keys of ``CRITERIA``.
        mode: a key of ``MODES``.
        file: JSON of an object with texts by criterion, in which ``{prompt}`` stands for the
            prompt; they replace ours.

    Raises:
        OSError: the file cannot be read.
        ValueError: the file is not such an object.
    """
    own = {} if file is None else _read(file)
    found = {}
    for name in sorted({*names}, key=[*CRITERIA].index):
        criterion = CRITERIA[name]
        ours = _BOTH.format(question=criterion.better) if mode == "pairwise" else criterion.good
        found[name] = QuestionTemplate(own.get(name, ours))
        others = {*found[name].placeholders} - {"prompt"}
        if others:
            raise ValueError(
                f"{file}: {name} has the placeholder {others.pop()!r}; expected {{prompt}} alone"
            )
    return found


def _read(file: Path) -> dict[str, str]:
    try:
        found = json.loads(file.read_bytes().decode("utf-8-sig"))
    except OSError as error:
        raise OSError(f"cannot read {file} ({error.strerror}); expected a JSON file") from None
    except (ValueError, RecursionError):
        raise ValueError(f"{file} does not read as JSON; expected texts by criterion") from None
    if not isinstance(found, dict) or not all(isinstance(x, str) for x in found.values()):
        raise ValueError(f"{file} holds no texts by name; expected an object of questions")
    unknown = [name for name in found if name not in CRITERIA]
    if unknown:
        raise ValueError(
            f"{file} asks about {unknown[0]!r}; expected some of {', '.join(CRITERIA)}"
        )
    return found


def text_of(question: QuestionTemplate, prompt: str) -> str:
    """The question about assets of a prompt."""
    return question.format(**dict.fromkeys(question.placeholders, prompt))
