"""Code blocks and inline code of Markdown files, with the files that they include."""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cache
from pathlib import Path

ROOT = Path(__file__).parents[2]
PAGES = [
    str(path.relative_to(ROOT))
    for pattern in (
        *("README.md", "CONTRIBUTING.md", ".packaging/extra_models/README.md", "docs/**/*.md"),
        "vlmreward_3d/blocks/weights/*/README.md",
    )
    for path in sorted(ROOT.glob(pattern))
]

_INCLUDE = re.compile(r'^--8<-- "(.+)"$', re.MULTILINE)
_FENCE = re.compile(r"^( *)(`{3,}|~{3,}) *(?:\{ *\.?)?([\w+-]*)[^`\n]*$")
_SPAN = re.compile(r"(`+)(?!`)(.+?)(?<!`)\1(?!`)", re.DOTALL)


@dataclass(frozen=True)
class Block:
    """A fenced block: the page, the line on which its code begins, its language and its code."""

    page: str
    line: int
    language: str
    code: str

    def __str__(self) -> str:
        return f"{self.page}:{self.line}"


@cache
def text_of(page: str) -> str:
    """The Markdown of a page, with the files that it includes."""
    source = (ROOT / page).read_text(encoding="utf-8")
    return _INCLUDE.sub(lambda found: (ROOT / found[1]).read_text(encoding="utf-8"), source)


def split(text: str, page: str = "") -> tuple[list[Block], str]:
    """The fenced blocks of a text, and the text without them.

    Raises:
        ValueError: a fence is not closed.
    """
    blocks, prose = [], []
    opened, start, code = None, 0, []
    for number, line in enumerate(text.splitlines(), start=1):
        found = _FENCE.match(line)
        if opened is None and found:
            opened, start, code = found, number + 1, []
        elif opened is None:
            prose.append(line)
        elif line.strip() == opened[2]:
            blocks.append(Block(page, start, opened[3], "\n".join(code) + "\n"))
            opened = None
        else:
            code.append(line.removeprefix(opened[1]))
    if opened is not None:
        raise ValueError(f"{page}:{start - 1}: this fence is not closed")
    return blocks, "\n".join(prose)


@cache
def blocks_of(page: str) -> tuple[Block, ...]:
    """The fenced blocks of a page."""
    return tuple(split(text_of(page), page)[0])


@cache
def spans_of(page: str) -> tuple[str, ...]:
    """The inline code of a page, on one line each."""
    prose = split(text_of(page), page)[1]
    return tuple(" ".join(found[1].split()) for found in _SPAN.findall(prose))


ALL = [block for page in PAGES for block in blocks_of(page)]
