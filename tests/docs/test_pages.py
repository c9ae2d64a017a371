"""The documentation as mkdocs renders it, and what its text says about the repository."""

import importlib
import re

import pytest
from fences import PAGES, ROOT, blocks_of, spans_of, split, text_of
from rendered import Site, broken_links, faults, parse, target_of

DOCS = [page for page in PAGES if page.startswith("docs/")]


def html_of(page: str) -> str:
    """Path of a page in the built site."""
    name = page.removeprefix("docs/").removesuffix(".md")
    return "index.html" if name == "index" else f"{name}/index.html"


@pytest.mark.parametrize("page", DOCS)
def test_a_page_has_nothing_that_its_author_did_not_mean(site, page):
    assert faults(site.pages[html_of(page)], docstrings=page.startswith("docs/api/")) == []


def test_links_and_pictures_lead_somewhere(site):
    assert sum(len(page.links) for page in site.pages.values()) > 500
    assert broken_links(site) == []


def test_every_page_is_in_the_navigation(site):
    targets = [
        {target_of(link, path, site.files) for link in page.links}
        for path, page in site.pages.items()
    ]
    assert {html_of(page) for page in DOCS} <= set.intersection(*targets)


@pytest.mark.parametrize("page", [page for page in DOCS if blocks_of(page)])
def test_code_is_rendered_as_it_is_written(site, page):
    shown = {code.strip() for code in site.pages[html_of(page)].blocks}
    assert [str(b) for b in blocks_of(page) if b.code.strip() not in shown] == []


@pytest.mark.parametrize(("name", "least"), [("README.md", 10), ("CONTRIBUTING.md", 6)])
def test_links_of_pages_outside_of_docs_lead_somewhere(name, least, site):
    links = re.findall(r"\]\((?!https?:)([^)]+)\)", text_of(name))
    assert len(links) > least
    for link in links:
        path, _, anchor = link.partition("#")
        assert (ROOT / path).exists(), link
        if anchor:
            assert anchor in site.pages[html_of(path)].anchors, link


def test_what_mkdocs_leaves_broken_is_found():
    page = parse(
        """<article><p>--8<-- "a.py" and :meth:<code>x</code> [y][vlmreward.y]</p>
        <pre><code><span>--8</span> <span>&lt;</span> --"clip.py"</code></pre>
        <pre><code> </code></pre><pre>``x``</pre>
        <blockquote>f(2)</blockquote>
        <div class="doc doc-object doc-module" id="m"></div>
        <table><tr><th>Type</th><th>Description</th></tr>
        <tr><td><code>Tensor | None</code></td><td>fine</td></tr>
        <tr><td>P, 3), the rest</td><td>a line with a colon</td></tr></table></article>
        <pre></pre><a href="b/#there">1</a><a href="b/#nowhere">2</a><a href="c/">3</a>
        <a href="https://example.org/">4</a><img src="d.png">"""
    )
    assert len(faults(page, docstrings=True)) == 9
    other = parse('<h1 id="there">b</h1><a href="../">home</a>')
    site = Site({"index.html": page, "b/index.html": other}, {"index.html", "b/index.html"})
    assert broken_links(site) == ["index.html: b/#nowhere", "index.html: c/", "index.html: d.png"]


def test_fences_are_split_from_the_text():
    text = "a\n```python title='x'\nb\n```\n- c\n\n  ``` {.bash}\n  d\n  ```\n~~~\n```\n~~~\n"
    blocks, prose = split(text)
    assert [(b.line, b.language, b.code) for b in blocks] == [
        (3, "python", "b\n"),
        (8, "bash", "d\n"),
        (11, "", "```\n"),
    ]
    assert prose == "a\n- c\n"
    with pytest.raises(ValueError, match="not closed"):
        split("```\na\n")


@pytest.mark.parametrize("page", PAGES)
def test_files_and_names_in_the_text_exist(page):
    for span in spans_of(page):
        if re.fullmatch(r"(docs|examples|tests|vlmreward|vlmreward_3d)/[\w./-]*", span):
            assert (ROOT / span).exists(), span
        if re.fullmatch(r"vlmreward(_3d)?(\.\w+)+", span):
            found = importlib.import_module(span.partition(".")[0])
            for name in span.split(".")[1:]:
                if not hasattr(found, name):
                    importlib.import_module(f"{found.__name__}.{name}")
                found = getattr(found, name)
