"""Write the tables of model families in README.md and docs/ from what the families declare.

python docs/family_tables.py            # rewrite the tables
python docs/family_tables.py --check    # exit with 1 if they are out of date
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterable
from pathlib import Path

from vlmreward.models.families import FAMILIES, VLMFamily, members
from vlmreward.processors import COUNTERPARTS, ImageProcessor

ROOT = Path(__file__).resolve().parents[1]


def names() -> str:
    """All models that have a family, for a sentence."""
    *most, last = [member.name for member in members().values()]
    return f"{', '.join(most)} and {last}"


def _table(rows: Iterable[Iterable[str]]) -> str:
    head, *body = [f"| {' | '.join(row)} |" for row in rows]
    return "\n".join([head, "|---" * (head.count("|") - 1) + "|", *body])


def _code(words: Iterable[str]) -> str:
    return ", ".join(f"`{word}`" for word in dict.fromkeys(words))


def _shared(family: type[VLMFamily]) -> str:
    if family.is_causal:
        return "images and common text"
    return "image features" if family.accepts_image_features else "nothing: one batch"


def families() -> str:
    """A row for every family."""
    rows = [("family", "`model_type`", "several images", "K questions in one look share")]
    rows += [
        (
            ", ".join(member.name for member in family.members),
            _code(member.model_type for member in family.members),
            family.several_images,
            _shared(family),
        )
        for family in FAMILIES
    ]
    last = "any other `AutoModelForImageTextToText` with a chat template"
    return _table([*rows, (last, "", "if its processor does", "nothing: one batch")])


def _users(processor: type[ImageProcessor]) -> str:
    found = [m.name for m in members().values() if m.image_processor in processor.hf_classes]
    return ", ".join([*found, *[processor.other_models] * bool(processor.other_models)])


def image_processors() -> str:
    """A row for every image processor of ours."""
    rows = [("models", "Hugging Face class", "what is particular")]
    return _table(
        [*rows, *[(_users(p), _code(sorted(p.hf_classes)), p.summary) for p in COUNTERPARTS]]
    )


BLOCKS = {
    "README.md": {"families": names},
    "docs/reward.md": {"families": families},
    "docs/processors.md": {"image processors": image_processors},
}
"""Functions that make the text between ``<!-- NAME -->`` and ``<!-- end: NAME -->``, by page."""


def page(path: str) -> str:
    """A page with its tables made again."""
    text = (ROOT / path).read_text(encoding="utf-8")
    for name, make in BLOCKS[path].items():
        begin, end = f"<!-- {name} -->", f"<!-- end: {name} -->"
        head, found, rest = text.partition(begin)
        _, closed, tail = rest.partition(end)
        if not (found and closed):
            raise ValueError(f"{path} lacks {begin} or {end}; expected both around what is written")
        made = make()
        # a comment at the beginning of a line would end the paragraph that a sentence is in
        around = "\n" if "\n" in made else ""
        text = f"{head}{begin}{around}{made}{around}{end}{tail}"
    return text


def main(arguments: list[str] | None = None) -> int:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--check", action="store_true", help="compare, do not write")
    options = parser.parse_args(arguments)
    pages = {path: page(path) for path in BLOCKS}
    old = {path: (ROOT / path).read_text(encoding="utf-8") for path in pages}
    if options.check:
        return int(old != pages)
    for path, text in pages.items():
        (ROOT / path).write_text(text, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
