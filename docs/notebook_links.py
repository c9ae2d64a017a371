"""Hook of mkdocs: links of notebooks to sources, as on GitHub, lead to pages of the site."""

from __future__ import annotations

import re

from mkdocs.structure.pages import Page

_LINK = re.compile(r'href="(?![a-z]+:)([^"#]+)\.(?:md|ipynb)(#[^"]*)?"')


def on_page_content(content: str, page: Page, **_: object) -> str:
    """Replace the addresses of sources by those of pages, which are in a folder of their own."""
    if not page.file.src_uri.endswith(".ipynb"):
        return content
    return _LINK.sub(lambda found: f'href="../{found[1]}/{found[2] or ""}"', content)
