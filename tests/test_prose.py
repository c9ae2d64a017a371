"""Prose of docstrings and documentation: a description begins with a noun, in the field's terms."""

from __future__ import annotations

import ast
import inspect
import re
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
FOLDERS = ("vlmreward", "vlmreward_3d", "examples", "tests", "docs")
PAGES = [*(ROOT / f for f in ("README.md", "CONTRIBUTING.md")), *sorted(ROOT.glob("docs/**/*.md"))]
OPENING = re.compile(
    r"(?:of|what|whether|which|as|how|where|see|likewise|who|whose)\b(?!-)", re.IGNORECASE
)
"""Words that leave out the noun of a description which begins with them."""
OVERRIDE = re.compile(r"See ``[\w.]+``\.")
"""The whole docstring of an override whose parent has the description."""
ENTRY = re.compile(r"^    \*{0,2}\w+:\s+(.+)$", re.MULTILINE)
"""An argument, attribute or error of a Google-style docstring."""
RETIRED = re.compile(
    r"\b(?:see there|nothing of the kind|votes lost|judged from outside|what is more|the like"
    r"|is whose|comes? to rest|falls? silent|for want of|anew|different is|at hand|is begun"
    r"|(?:no|larger) say|no use for|opens the door|gets company|pushes on|by little|a stair"
    r"|down again|learns? on|bit by bit|as there(?! (?:is|are|was|were|has|have|can|may|will)\b))\b"
    r"|(?:^|[.!?:;] )likewise\b(?!-)",
    re.IGNORECASE,
)
"""Metaphors and inversions of former pages, each of which has a plain expression."""
BRITISH = re.compile(
    r"(?i:colour|behaviour|neighbour)|\b(?:[Cc]entr(?:e|es|ed)|[Gg]rey|[Ll]icence|[Ll]abelled)\b"
    r"|(?i:(?:optim|normal|minim|regular|random|token|quant|synchron|initial|recogn|maxim|summar)"
    r"is(?:e|es|ed|er|ing|ations?)\b)"
)
"""Spellings of British English; identifiers and most pages have the American ones."""
CODE = re.compile(r"(`+)(?!`)(.+?)(?<!`)\1(?!`)", re.DOTALL)
"""A code span or a fenced block."""
ITEM = re.compile(r"\s*(?:[-*+]|\d+\.) ")


def documented(node: ast.AST) -> Iterator[ast.stmt]:
    """Statements of a node at the places of its docstring and of its attributes' docstrings."""
    if isinstance(node, (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)):
        yield from node.body[:1]
    if isinstance(node, (ast.Module, ast.ClassDef)):
        pairs = pairwise(node.body)
        yield from (b for a, b in pairs if isinstance(a, (ast.Assign, ast.AnnAssign)))


def docstrings(source: str) -> Iterator[tuple[int, str]]:
    """Line and text of all docstrings in Python source."""
    for node in ast.walk(ast.parse(source)):
        for part in documented(node):
            text = part.value if isinstance(part, ast.Expr) else None
            if isinstance(text, ast.Constant) and isinstance(text.value, str):
                yield part.lineno, inspect.cleandoc(text.value)


def without_nouns(source: str) -> list[tuple[int, str]]:
    """Line and text of descriptions in Python source that begin without their noun."""
    found = []
    for first, text in docstrings(source):
        if OPENING.match(text) and not OVERRIDE.fullmatch(text):
            found.append((first, text.partition("\n")[0]))
        for entry in ENTRY.finditer(text):
            if OPENING.match(entry[1]):
                line = first + text[: entry.start(1)].count("\n")
                found.append((line, " ".join(entry[0].split())))
    return sorted(found)


def units(page: str) -> Iterator[tuple[int, str]]:
    """Line and text of the paragraphs, list items and table cells of a page, without code."""
    start, lines = 0, []
    prose = CODE.sub(lambda found: "CODE" + "\n" * found[0].count("\n"), page)
    for number, line in enumerate([*prose.split("\n"), ""], start=1):
        cells = line.strip().strip("|").split("|") if line.startswith("|") else []
        if lines and (cells or not line.strip() or ITEM.match(line)):
            yield start, " ".join(lines)
            lines = []
        if cells:
            yield from ((number, cell.strip()) for cell in cells)
        elif line.strip():
            start = start if lines else number
            lines.append(ITEM.sub("", line, count=1).strip())


def retired_phrases(page: str) -> list[tuple[int, str]]:
    """Line of the unit, and the phrase with its surroundings, of retired phrases of a page."""
    return [
        (line, text[max(0, found.start() - 40) : found.end() + 40])
        for line, text in units(page)
        for found in RETIRED.finditer(text)
    ]


@pytest.mark.parametrize("folder", FOLDERS)
def test_descriptions_begin_with_their_noun(folder):
    files = sorted((ROOT / folder).rglob("*.py"))
    assert files
    found = [
        f"{file.relative_to(ROOT)}:{line}: {text}"
        for file in files
        for line, text in without_nouns(file.read_text(encoding="utf-8"))
    ]
    assert found == [], "say what the thing is, noun first:\n" + "\n".join(found)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_pages_have_no_retired_phrases(page):
    found = [
        f"{page.relative_to(ROOT)}:{line}: {text}"
        for line, text in retired_phrases(page.read_text(encoding="utf-8"))
    ]
    assert found == [], "use a plain expression:\n" + "\n".join(found)


PLANTED = '''\
"""What a module has."""

SIZE = 3
"""How many there are."""


class Good:
    """Number of things; what is here begins with a noun."""
    width: int = 1
    """Of the layer."""
    async def work(self):
        """As the parent."""
    def override(self):
        """See ``Good.work``."""

def function(size, rate, other, *more):
    """The sum.

    Args:
        size: in pixels, which is fine.
        rate: of a step.
        other:
            Whether it counts.
        *more: likewise.

    Raises:
        ValueError: where it fails.
    """
    "What is no docstring."
'''


def test_planted_descriptions_are_found():
    assert without_nouns(PLANTED) == [
        (1, "What a module has."),
        (4, "How many there are."),
        (10, "Of the layer."),
        (12, "As the parent."),
        (21, "rate: of a step."),
        (23, "other: Whether it counts."),
        (24, "*more: likewise."),
        (27, "ValueError: where it fails."),
    ]


@pytest.mark.parametrize("text", ["See ``A``. And more.", "See A.", "Whose it is.", "Which one"])
def test_exemptions_are_narrow(text):
    assert without_nouns(f'"""{text}"""') == [(1, text)]
    assert without_nouns('"""See ``A``."""\nx = "What"\n"""Asset; how-to, as-is."""\n') == []


PLANTED_PAGE = """\
# Title, see there

A paragraph that comes to
rest here, with `see there` in code.
- Likewise, an item, with blue or likewise red.
- fine, as there are two; see
  there.

| a | nothing of the kind |
| likewise | `anew` |

```python
x = "the like"
```
as there, what is more
"""


def test_planted_phrases_are_found():
    found = retired_phrases(PLANTED_PAGE)
    assert [line for line, _ in found] == [1, 3, 5, 6, 9, 10, 15, 15]
    assert found[1][1] == "A paragraph that comes to rest here, with CODE in code."
    assert retired_phrases("Likewise-minded. It is another like that.\n\n    at times") == []


TEXTS = [
    *PAGES,
    *(p for f in FOLDERS for p in sorted((ROOT / f).rglob("*.py"))),
    *sorted((ROOT / "vlmreward_3d").rglob("README.md")),
]


GIVEN_TO_MODELS = (
    "dull colours",
    "the colours fit",
    "the colours of the object",
    "in its colours?",
)
"""Prompts and questions, whose words are settings of runs and tournaments that exist."""


def test_spelling_is_american():
    allowed = {ROOT / "tests" / name for name in ("test_prose.py", "test_retired_words.py")}
    assert len(TEXTS) > 400
    found = [
        f"{path.relative_to(ROOT)}:{i}: {line.strip()}"
        for path in TEXTS
        if path not in allowed
        for i, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1)
        if BRITISH.search(line) and not any(words in line for words in GIVEN_TO_MODELS)
    ]
    assert not found, "\n".join(found)


@pytest.mark.parametrize("word", ["Colours", "centred", "renormalised", "a grey box", "optimiser"])
def test_british_spellings_are_found(word):
    assert BRITISH.search(word)


@pytest.mark.parametrize("word", ["realistic", "optimistic", "central", "minimal", "Greyson"])
def test_other_words_are_no_british_spellings(word):
    assert not BRITISH.search(word)
