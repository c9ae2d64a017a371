"""The page of a tournament: ratings, wins, and all comparisons with their pictures."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any
from urllib.parse import quote

from tournament.layout import Asset
from tournament.results import Comparison, Table
from tournament.svg import intervals
from vlmreward.utils.output import write_atomically

_HERE = Path(__file__).parent
_POLICY = (
    "default-src 'none'; img-src 'self' file: data:; style-src 'unsafe-inline'; "
    "script-src 'unsafe-inline'"
)


def save_page(
    path: Path,
    *,
    tables: Sequence[Table],
    found: Sequence[Comparison],
    questions: Mapping[str, str],
    prompts: Sequence[str],
    pictures: Mapping[Asset, Path],
    summary: Mapping[str, Any],
) -> Path:
    """Write a page that makes no network requests; its pictures are files beside it.

    Args:
        path: the .html file.
        tables: ratings, a table for each criterion.
        found: outcomes, in the order in which they are listed.
        questions: templates by criterion.
        prompts: texts by their numbers.
        pictures: paths of the assets' pictures, relative to the page's folder.
        summary: the judge, its bias and its cost, as in ``ratings.json``.

    Returns:
        The file.
    """
    style, script = ((_HERE / name).read_text(encoding="utf-8") for name in ("page.css", "page.js"))
    sections = "\n".join(_criterion(table, questions[table.criterion]) for table in tables)
    cards = "\n".join(_card(one, prompts, pictures) for one in found)
    write_atomically(
        path,
        f"""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy" content="{_POLICY}">
<title>Arena</title>
<style>
{style}</style>
</head>
<body>
<main>
<h1>Arena</h1>
<p>Bradley-Terry ratings in Elo points, with 95 % intervals over the prompts.</p>
{_facts(summary)}
{sections}
<h2>Comparisons</h2>
{_filter(tables, found, prompts)}
<p id="shown" role="status"></p>
<ul class="matches">
{cards}
</ul>
<button id="more" type="button" hidden>Show more</button>
</main>
<script>
{script}</script>
</body>
</html>
""",
    )
    return path


def _facts(summary: Mapping[str, Any]) -> str:
    cost, bias = summary["cost"], summary["position_bias"]
    judge = summary["judge"]
    facts = {
        "Judge": " at ".join(filter(None, [judge["name"], judge.get("url")])),
        "Questions about": "pairs" if summary["mode"] == "pairwise" else "single assets",
        "Comparisons": str(summary["comparisons"]),
        "Without an answer": str(summary["without_answer"]),
        "Questions": str(cost["questions"]),
        "Seconds": f"{cost['seconds']:.1f}",
    }
    if bias is not None:
        facts["P(left is better)"] = f"{bias['left']:.1%}"
        facts["Inconsistent"] = f"{bias['inconsistent']:.1%}"
    for name in ("input_tokens", "output_tokens"):
        if cost[name] is not None:
            facts[name.replace("_", " ").capitalize()] = str(cost[name])
    pairs = "".join(
        f"<div><dt>{escape(name)}</dt><dd>{escape(value)}</dd></div>"
        for name, value in facts.items()
    )
    return f'<dl class="facts">{pairs}</dl>'


def _criterion(table: Table, question: str) -> str:
    note = f"<p>{escape(table.note)}</p>" if table.note else ""
    return f"""<section>
<h2>{escape(table.criterion.capitalize())}</h2>
<p>{escape(question)}</p>
{note}
<div class="card">{intervals(table)}</div>
<div class="card">{_ratings(table)}</div>
<div class="card">{_wins(table)}</div>
</section>"""


def _ratings(table: Table) -> str:
    values = table.ratings
    rows = "".join(
        f'<tr><th scope="row">{escape(table.marked(i))}</th><td>{values.elo[i]:.0f}</td>'
        f"<td>{values.low[i]:.0f}</td><td>{values.high[i]:.0f}</td></tr>"
        for i in table.ranking
    )
    return (
        "<table><caption>Ratings</caption>"
        f"<tr>{_heads(['Method', 'Elo', 'Low', 'High'])}</tr>{rows}</table>"
    )


def _wins(table: Table) -> str:
    order = table.ranking
    names = [table.methods[i] for i in order]
    rows = "".join(
        f'<tr><th scope="row">{escape(table.methods[i])}</th>'
        + "".join(
            "<td>–</td>" if i == j else f"<td>{table.wins[i, j]:g} : {table.wins[j, i]:g}</td>"
            for j in order
        )
        + "</tr>"
        for i in order
    )
    return (
        "<table><caption>Wins of the row's method : wins of the column's; a draw counts for both"
        f"</caption><tr>{_heads(['', *names])}</tr>{rows}</table>"
    )


def _heads(names: Sequence[str]) -> str:
    return "".join(
        f'<th scope="col">{escape(name)}</th>' if name else "<td></td>" for name in names
    )


def _filter(tables: Sequence[Table], found: Sequence[Comparison], prompts: Sequence[str]) -> str:
    ids = sorted({x.match.first.prompt_id for x in found})
    methods = tables[0].methods
    fields = {
        "criterion": ("Criterion", [(x.criterion, x.criterion) for x in tables]),
        "prompt": ("Prompt", [(str(i), prompts[i]) for i in ids]),
        "method": ("Method", [(x, x) for x in methods]),
        "other": ("and method", [(x, x) for x in methods]),
    }
    parts = []
    for name, (label, options) in fields.items():
        choices = "".join(
            f'<option value="{escape(value)}">{escape(text)}</option>' for value, text in options
        )
        parts.append(
            f'<label for="by-{name}">{label}<select id="by-{name}" name="{name}">'
            f'<option value="">all</option>{choices}</select></label>'
        )
    return f'<form id="filter" hidden>{"".join(parts)}</form>'


def _card(one: Comparison, prompts: Sequence[str], pictures: Mapping[Asset, Path]) -> str:
    match = one.match
    prompt = prompts[match.first.prompt_id]
    sides = "".join(
        _side(asset, prompt, pictures[asset], won=one.result == sign)
        for asset, sign in ((match.first, -1), (match.second, 1))
    )
    said = f"P({match.first.method} is better by {match.criterion}) = {one.probability:.1%}"
    if one.lefts is not None:
        said += f"; at the left {one.lefts[0]:.1%}, at the right {1 - one.lefts[1]:.1%}"
    if one.result == 0:
        said += "; a draw"
    data = {
        "criterion": match.criterion,
        "prompt": str(match.first.prompt_id),
        "first": match.first.method,
        "second": match.second.method,
    }
    marks = " ".join(f'data-{name}="{escape(value)}"' for name, value in data.items())
    return (
        f'<li class="card" {marks}><h3>{escape(prompt)}</h3><div class="sides">{sides}</div>'
        f"<p>{escape(said)}</p></li>"
    )


def _side(asset: Asset, prompt: str, picture: Path, *, won: bool) -> str:
    alt = f"Renders of {prompt!r} by {asset.method}"
    mark = ' class="winner"' if won else ""
    return (
        f'<figure{mark}><img src="{quote(picture.as_posix())}" alt="{escape(alt)}" loading="lazy">'
        f"<figcaption>{escape(asset.method)}{' – won' if won else ''}</figcaption></figure>"
    )
