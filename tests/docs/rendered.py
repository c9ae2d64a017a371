"""A page of the rendered documentation, as far as the tests look at it."""

from __future__ import annotations

import ast
import posixpath
from dataclasses import dataclass, field
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

VOID = {"area", "br", "col", "hr", "img", "input", "link", "meta", "source", "wbr"}


@dataclass
class Page:
    """Parts of a page; all but links and anchors are those of its article.

    Attributes:
        anchors: ids, of all of the page.
        links: addresses of links and pictures, of all of the page.
        blocks: texts of code blocks.
        prose: text outside of any code.
        tables: rows of texts of cells.
        modules: names of modules that are documented as a whole.
        quotes: number of quoted blocks.
    """

    anchors: set[str] = field(default_factory=set)
    links: list[str] = field(default_factory=list)
    blocks: list[str] = field(default_factory=list)
    prose: str = ""
    tables: list[list[list[str]]] = field(default_factory=list)
    modules: list[str] = field(default_factory=list)
    quotes: int = 0


class _Reader(HTMLParser):
    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.page = Page()
        self.path: list[str] = []

    def handle_starttag(self, tag, attributes):
        values = dict(attributes)
        page = self.page
        if values.get("id"):
            page.anchors.add(values["id"])
        address = values.get({"a": "href", "img": "src"}.get(tag, ""))
        if address is not None:
            page.links.append(address)
        if tag in VOID:
            return
        self.path.append(tag)
        if "article" not in self.path:
            return
        if "doc-module" in (values.get("class") or ""):
            page.modules.append(values.get("id") or "a module")
        if tag == "blockquote":
            page.quotes += 1
        elif tag == "pre":
            page.blocks.append("")
        elif tag == "table":
            page.tables.append([])
        elif tag == "tr" and page.tables:
            page.tables[-1].append([])
        elif tag in ("td", "th") and page.tables and page.tables[-1]:
            page.tables[-1][-1].append("")

    def handle_endtag(self, tag):
        if tag in self.path:
            while self.path.pop() != tag:
                pass

    def handle_data(self, data):
        page = self.page
        if "article" not in self.path:
            return
        if "pre" in self.path:
            page.blocks[-1] += data
        elif "code" not in self.path:
            page.prose += data
        if ("td" in self.path or "th" in self.path) and "pre" not in self.path:
            page.tables[-1][-1][-1] += data


@dataclass
class Site:
    """Pages by their path, and the paths of all files."""

    pages: dict[str, Page]
    files: set[str]


def parse(html: str) -> Page:
    """Read a page."""
    reader = _Reader()
    reader.feed(html)
    reader.close()
    return reader.page


def read(folder: Path) -> Site:
    """Read a rendered site."""
    files = {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}
    # the links of 404.html are those of whatever page was not found
    html = sorted(path for path in files if path.endswith(".html") and path != "404.html")
    pages = {path: parse((folder / path).read_text(encoding="utf-8")) for path in html}
    return Site(pages, files)


def target_of(link: str, path: str, files: set[str]) -> str | None:
    """The file that a link on a page leads to; None for links out of the site."""
    parts = urlsplit(link)
    if parts.scheme or parts.netloc:
        return None
    if not parts.path:
        return path
    target = posixpath.normpath(posixpath.join(posixpath.dirname(path), unquote(parts.path)))
    return target if target in files else posixpath.normpath(f"{target}/index.html")


def broken_links(site: Site) -> list[str]:
    """Links within the site and pictures that lead nowhere."""
    broken = []
    for path, page in site.pages.items():
        for link in page.links:
            target = target_of(link, path, site.files)
            anchor = unquote(urlsplit(link).fragment)
            if target is None:
                continue
            if target not in site.files or (
                anchor and target in site.pages and anchor not in site.pages[target].anchors
            ):
                broken.append(f"{path}: {link}")
    return broken


def faults(page: Page, *, docstrings: bool = False) -> list[str]:
    """List the faults of a rendered page that no author means.

    Args:
        docstrings: the code on the page is that of docstrings.
    """
    # a snippet, a fence, an object, a link, and sections that become "Parameters:" if understood
    marks = ("--8", "``", ":::", ":meth:", ":class:", ":func:", "][", "](", "Args:", "Arguments:")
    found = [f"{mark!r} is left over" for mark in marks if mark in page.prose]
    found += [f"{name} in place of its function" for name in page.modules]
    if docstrings and page.quotes:  # ">>>" outside of a section "Examples:"
        found.append("a quotation")
    for code in page.blocks:
        if not code.strip():
            found.append("an empty code block")
        # a formatter writes "--8 < --" for the marker of a file to include
        if code.replace(" ", "").startswith("--8<--"):
            found.append(f"no file in place of {code.strip()!r}")
        if docstrings and "``" in code:
            found.append(f"marks that are not rendered: {code.strip()!r}")
    for table in page.tables:
        head, *rows = table
        names = [cell.strip() for cell in head]
        if "Type" in names and "Description" in names:
            types = [" ".join(row[names.index("Type")].split()) for row in rows]
            found += [f"a type that is none: {text!r}" for text in types if not _is_type(text)]
    return found


def _is_type(text: str) -> bool:
    try:
        tree = ast.parse(text, mode="eval").body if text else None
    except SyntaxError:
        return False
    return not isinstance(tree, ast.Compare | ast.BoolOp)
