"""Files of a tournament's results, and the settings of a folder of results."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tournament.layout import Asset
from tournament.matches import Asking
from tournament.pictures import Showing, save_png
from tournament.questions import CRITERIA
from tournament.results import Comparison, Table
from vlmreward.utils.output import write_atomically

SETTINGS, ANSWERS = "settings.json", "answers.jsonl"
COMPARISONS, SCORES, RATINGS = "comparisons.json", "scores.json", "ratings.json"
_THUMBNAIL = 192


def claim(out: Path, asking: Asking) -> None:
    """Note the judge and its questions in a folder, or refuse one that has others.

    Ratings by two judges, or by two wordings, are not comparable. Criteria may be added.

    Args:
        out: an existing folder.
        asking: the judge and its questions.

    Raises:
        ValueError: the folder holds answers of another judge or to other questions.
    """
    path = out / SETTINGS
    ours: dict[str, Any] = {
        "judge": dict(asking.judge),
        "mode": asking.mode,
        "answers": list(asking.answers),
        "views": asking.showing.views,
        "show": asking.showing.show,
        "size": asking.showing.size,
    }
    texts = {name: question.template for name, question in asking.questions.items()}
    if path.exists():
        try:
            theirs = json.loads(path.read_text(encoding="utf-8"))
            known = dict(theirs.pop("questions"))
        except (ValueError, KeyError, TypeError, AttributeError):
            raise ValueError(
                f"{path} is damaged; expected the settings of a tournament; pass another --out"
            ) from None
        for name, value in ours.items():
            if theirs.get(name) != value:
                _refuse(out, name, theirs.get(name), value)
        for name, value in texts.items():
            if known.get(name, value) != value:
                _refuse(out, f"question about {name}", known[name], value)
        texts = known | texts
    _write(path, ours | {"questions": texts})


def _refuse(out: Path, name: str, there: object, received: object) -> None:
    raise ValueError(
        f"{out} holds comparisons with the {name} {json.dumps(there)}, received "
        f"{json.dumps(received)}; expected the same, as ratings of different judges or questions "
        "do not mix; pass another --out"
    )


def write_results(
    out: Path, found: Sequence[Comparison], tables: Sequence[Table], summary: Mapping[str, Any]
) -> list[Path]:
    """Write ``comparisons.json`` and ``scores.json`` as GPTEval3D does, and ``ratings.json``.

    Args:
        out: an existing folder.
        found: outcomes.
        tables: ratings, a table for each criterion.
        summary: the rest of ``ratings.json``.

    Returns:
        The three files.
    """
    results: dict[str, list[dict[str, Any]]] = {}
    for one in found:
        match = one.match
        results.setdefault(str(CRITERIA[match.criterion].number), []).append(
            {"m1": match.first.method, "m2": match.second.method, "result": one.result}
        )
    scores = {
        str(CRITERIA[x.criterion].number): {
            "scores": [round(float(value), 4) for value in x.ratings.elo],
            "methods": list(x.methods),
            "ranking": [x.methods[i] for i in x.ranking],
        }
        for x in tables
    }
    ratings = {x.criterion: x.plain() for x in tables}
    _write(out / COMPARISONS, results)
    _write(out / SCORES, scores)
    _write(out / RATINGS, {**summary, "criteria": ratings})
    return [out / COMPARISONS, out / SCORES, out / RATINGS]


def write_thumbnails(out: Path, found: Sequence[Comparison], showing: Showing) -> dict[Asset, Path]:
    """Small pictures of the compared assets, as they were shown.

    Returns:
        Their paths, relative to the folder. Names contain a digest of the frames, so that a
        picture that is there is not made again.
    """
    assets = dict.fromkeys(a for x in found for a in (x.match.first, x.match.second))
    paths = {}
    for asset in assets:
        name = f"{asset.prompt_id}-{showing.digest(asset)[:12]}.png"
        paths[asset] = Path("thumbnails", asset.method, name)
        file = out / paths[asset]
        if not file.exists():
            file.parent.mkdir(parents=True, exist_ok=True)
            size = _THUMBNAIL // round(showing.views**0.5)
            save_png(file, showing.grid(asset, size))
    return paths


def _write(path: Path, data: object) -> None:
    write_atomically(path, json.dumps(data, indent=1, ensure_ascii=False) + "\n")
