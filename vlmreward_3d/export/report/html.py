"""Parts of pages that need nothing but themselves: no network, no other file."""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path
from urllib.parse import quote

from vlmreward_3d.export.report.panels import Panel
from vlmreward_3d.export.report.svg import curves

__all__ = [
    "base64_text",
    "curve_figure",
    "data_uri",
    "document",
    "file_links",
    "table",
    "video",
    "views",
]

_HERE = Path(__file__).parent
_POLICY = (
    "default-src 'none'; img-src data:; media-src data:; style-src 'unsafe-inline'; "
    "script-src 'unsafe-inline'"
)
_TYPES = {".png": "image/png", ".gif": "image/gif", ".mp4": "video/mp4"}


def document(title: str, body: str, *, script: str = "") -> str:
    """A whole page.

    Args:
        title: Its title, as plain text.
        body: HTML below the heading, which repeats the title.
        script: JavaScript at the end of the page.
    """
    style = (_HERE / "style.css").read_text(encoding="utf-8")
    ending = f"<script>\n{script}</script>\n" if script else ""
    return f"""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy" content="{_POLICY}">
<title>{escape(title)}</title>
<style>
{style}</style>
</head>
<body>
<main>
<h1>{escape(title)}</h1>
{body}
</main>
{ending}</body>
</html>
"""


def table(label: str, rows: Mapping[str, Sequence[str]], head: Sequence[str] = ()) -> str:
    """A table with a heading for each row.

    Args:
        label: Plain name of the table, for screen readers.
        rows: HTML of the cells, by the row's plain name.
        head: Plain headings of the columns, without that of the rows.
    """
    columns = "".join(f'<th scope="col">{escape(name)}</th>' for name in head)
    top = f"<thead><tr><td></td>{columns}</tr></thead>" if head else ""
    body = "".join(
        f'<tr><th scope="row">{escape(name)}</th>'
        + "".join(f"<td>{cell}</td>" for cell in cells)
        + "</tr>"
        for name, cells in rows.items()
    )
    # the focus lets a keyboard scroll a table that is wider than the page
    return (
        f'<figure class="wide" tabindex="0" role="region" aria-label="{escape(label)}">'
        f"<table>{top}<tbody>{body}</tbody></table></figure>"
    )


def curve_figure(panel: Panel, note: str = "") -> str:
    """Curves with their legend, and a note in plain text below it."""
    names = " ".join(
        f'<span class="key-{i}">{escape(name)}</span>' for i, name in enumerate(panel.series)
    )
    drawn = curves(panel.series, label=panel.title, log=panel.log, limits=panel.limits)
    below = f"<br>{escape(note)}" if note else ""
    return (
        f"<figure>{drawn}<figcaption>{escape(panel.title)} over the steps: {names}{below}"
        "</figcaption></figure>"
    )


def video(path: Path, caption: str) -> str:
    """A turntable, MP4 or GIF, inside the page."""
    uri, label = data_uri(path), escape(caption)
    if path.suffix == ".mp4":
        shown = (
            f'<video src="{uri}" aria-label="{label}" controls autoplay muted loop playsinline>'
            "</video>"
        )
    else:
        shown = f'<img class="shown" src="{uri}" alt="{label}">'
    return f"<figure>{shown}<figcaption>{label}</figcaption></figure>"


def views(path: Path, caption: str, name: str = "the asset") -> str:
    """The picture of a run's views, colors above normals, which scrolls on narrow pages.

    Args:
        path: The PNG file.
        caption: Text below it.
        name: Name of the asset or run, for those who cannot see it.
    """
    shown = escape(name)
    return (
        f'<figure><div class="wide" tabindex="0" role="region" aria-label="Views of {shown}">'
        f'<img src="{data_uri(path)}" alt="Eight views of {shown}: colors above, normals below">'
        f"</div><figcaption>{escape(caption)}</figcaption></figure>"
    )


def file_links(files: Sequence[Path]) -> str:
    """Links to files that are beside the page, with their sizes."""
    items = "".join(
        f'<li><a href="{quote(file.name)}">{escape(file.name)}</a> {_size(file)}</li>'
        for file in files
    )
    return f'<ul class="files">{items}</ul>'


def data_uri(path: Path) -> str:
    """A picture or film as the address of itself."""
    return f"data:{_TYPES[path.suffix]};base64,{base64_text(path.read_bytes())}"


def base64_text(data: bytes) -> str:
    """Bytes as text."""
    return base64.b64encode(data).decode()


def _size(file: Path) -> str:
    size = file.stat().st_size
    return f"{size / 1e6:.1f} MB" if size >= 1e5 else f"{size / 1e3:.1f} kB"
