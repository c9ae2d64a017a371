"""Hook of mkdocs: formulas between dollar signs become MathML, which needs no script.

`pymdownx.arithmatex` finds the formulas and leaves the LaTeX between \\(...\\) or \\[...\\].
"""

from __future__ import annotations

import html
import re

from latex2mathml.converter import convert

_FORMULA = re.compile(
    r'<(span|div) class="arithmatex">\\(?:\(|\[)(.*?)\\(?:\)|\])</\1>', flags=re.DOTALL
)


def on_page_content(content: str, **_: object) -> str:
    """Replace every formula of a page's HTML."""

    def mathml(found: re.Match[str]) -> str:
        block = found[1] == "div"
        formula = convert(html.unescape(found[2]), display="block" if block else "inline")
        return f'<div class="formula">{formula}</div>' if block else formula

    return _FORMULA.sub(mathml, content)
