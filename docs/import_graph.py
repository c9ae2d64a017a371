"""Draw who imports whom in both packages, as Mermaid graphs in docs/architecture.md.

python docs/import_graph.py            # rewrite the graphs in docs/architecture.md
python docs/import_graph.py --check    # exit with 1 if they are out of date
"""

from __future__ import annotations

import argparse
import ast
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PAGE = ROOT / "docs" / "architecture.md"
PACKAGES = ("vlmreward", "vlmreward_3d")


def modules(package: Path) -> list[Path]:
    """All source files of a package except its own ``__init__``, which re-exports names."""
    return [p for p in sorted(package.rglob("*.py")) if p != package / "__init__.py"]


def imported(path: Path) -> set[str]:
    """Dotted names that a file imports, those inside functions and TYPE_CHECKING included."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            if node.level:
                raise ValueError(f"{path} has a relative import; expected absolute imports")
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
    return names


def edges(package: Path) -> set[tuple[str, str]]:
    """Pairs (importing, imported) of the package's top-level modules and folders."""
    top = {p.relative_to(package).parts[0].removesuffix(".py") for p in modules(package)}
    found = set()
    for path in modules(package):
        here = path.relative_to(package).parts[0].removesuffix(".py")
        for name in imported(path):
            owner, _, rest = name.partition(".")
            there = rest.split(".")[0]
            if owner == package.name and there in top and there != here:
                found.add((here, there))
    return found


def floors(pairs: set[tuple[str, str]]) -> dict[str, int]:
    """The height of each module: 0 imports nothing, others stand above all that they import.

    Raises:
        ValueError: modules import each other in a circle.
    """
    names = {name for pair in pairs for name in pair}
    height = dict.fromkeys(names, 0)
    for _ in range(len(names) + 1):
        changed = False
        for above, below in pairs:
            if height[above] <= height[below]:
                height[above], changed = height[below] + 1, True
        if not changed:
            return height
    raise ValueError(f"modules import each other in a circle: {sorted(height, key=height.get)}")


def mermaid(package: Path) -> str:
    """The stair of a package, lowest floor first; an arrow points to what is imported.

    Raises:
        ValueError: modules import each other in a circle.
    """
    pairs = edges(package)
    floors(pairs)
    # an arrow that follows from two others is left out
    direct = {
        (a, b)
        for a, b in pairs
        if not any((a, c) in pairs and _reaches(c, b, pairs) for _, c in pairs)
    }
    lines = ["```mermaid", "graph BT"]
    lines += [f"  {a} --> {b}" for a, b in sorted(direct)]
    return "\n".join([*lines, "```"])


def _reaches(start: str, goal: str, pairs: set[tuple[str, str]]) -> bool:
    return any(a == start and (b == goal or _reaches(b, goal, pairs)) for a, b in pairs)


def page(text: str) -> str:
    """The page with its graphs made again between the markers of each package."""
    for name in PACKAGES:
        begin, end = f"<!-- graph: {name} -->", f"<!-- end: {name} -->"
        head, _, rest = text.partition(begin)
        _, _, tail = rest.partition(end)
        text = f"{head}{begin}\n\n{mermaid(ROOT / name)}\n\n{end}{tail}"
    return text


def main(arguments: list[str] | None = None) -> int:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--check", action="store_true", help="compare, do not write")
    options = parser.parse_args(arguments)
    old = PAGE.read_text(encoding="utf-8")
    new = page(old)
    if options.check:
        return int(old != new)
    PAGE.write_text(new, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
