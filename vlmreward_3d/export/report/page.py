"""Report of a run as one self-contained HTML page: no network, no other file."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterable, Sequence
from html import escape
from pathlib import Path
from typing import Any

import numpy as np

from vlmreward_3d.atomic_io import write_atomically
from vlmreward_3d.config import VLM3DConfig
from vlmreward_3d.export.geometry import Geometry
from vlmreward_3d.export.report.panels import panels
from vlmreward_3d.export.report.svg import curves
from vlmreward_3d.formatting import duration
from vlmreward_3d.schedule import Schedule
from vlmreward_3d.vlm3d import StepReport

__all__ = ["save_report"]

_HERE = Path(__file__).parent
_POLICY = (
    "default-src 'none'; img-src data:; media-src data:; style-src 'unsafe-inline'; "
    "script-src 'unsafe-inline'"
)
_TYPES = {".png": "image/png", ".gif": "image/gif", ".mp4": "video/mp4"}


def save_report(
    path: Path,
    config: VLM3DConfig,
    reports: Sequence[StepReport],
    geometry: Geometry,
    views: Path,
    turntable: Path,
    *,
    done: int | None = None,
    seconds: float | None = None,
    notes: Sequence[str] = (),
) -> None:
    """Write a page with the run's outcome, pictures, a rotatable model, curves and settings.

    Args:
        path: The .html file.
        config: The run's settings.
        reports: Log of the run.
        geometry: The exported model; its notes are listed after `notes`.
        views: The picture of the views, PNG.
        turntable: MP4 or GIF.
        done: Number of steps that were done; None for the number of `reports`.
        seconds: Total time of the steps in seconds; None if unknown.
        notes: Sentences about events of the run, such as retries.

    Raises:
        OSError: A picture cannot be read, or the page not be written.
    """
    style, script = (
        (_HERE / name).read_text(encoding="utf-8") for name in ("style.css", "viewer.js")
    )
    prompt = escape(config.prompt)
    done = len(reports) if done is None else done
    write_atomically(
        path,
        f"""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy" content="{_POLICY}">
<title>{prompt}</title>
<style>
{style}</style>
</head>
<body>
<main>
<h1>{prompt}</h1>
<p>{escape(_ending(config, reports, done))}</p>
{_facts(reports, done, seconds)}
{_list([*notes, *geometry.notes])}
<h2>Model</h2>
<div class="grid-2">
{_model(geometry)}
{_turntable(turntable)}
</div>
<h2>Views</h2>
<figure><div class="wide"><img src="{_data_uri(views)}" alt="Rendered views"></div>
<figcaption>Colours above, world-space normals below.</figcaption></figure>
<h2>Curves</h2>
<div class="grid-2">
{_curves(reports)}
</div>
<h2>Configuration</h2>
<figure>{_table(config)}</figure>
</main>
<script>
{script}</script>
</body>
</html>
""",
    )


def _ending(config: VLM3DConfig, reports: Sequence[StepReport], done: int) -> str:
    how = "Finished" if done == config.steps else f"Ended before its {config.steps} steps"
    names = dict.fromkeys(name.partition("/")[0] for r in reports for name in r.headline)
    return f"{how}: {done} steps, guided by {', '.join(names) or 'nothing'}."


def _facts(reports: Sequence[StepReport], done: int, seconds: float | None) -> str:
    facts = {"Steps": str(done)}
    final = {name: value for report in reports for name, value in report.headline.items()}
    facts |= {f"Final {name}": f"{value:.3g}" for name, value in final.items()}
    if seconds is not None:
        facts["Time of all steps"] = duration(seconds)
        if done:
            facts["Time per step"] = f"{seconds / done:.2f} s"
    pairs = "".join(
        f"<div><dt>{escape(name)}</dt><dd>{escape(value)}</dd></div>"
        for name, value in facts.items()
    )
    return f'<dl class="facts">{pairs}</dl>'


def _list(notes: Sequence[str]) -> str:
    if not notes:
        return ""
    return f"<ul>{''.join(f'<li>{escape(note)}</li>' for note in notes)}</ul>"


def _model(geometry: Geometry) -> str:
    surface = geometry.surface
    if surface is None and geometry.files:
        names = ", ".join(f"<code>{escape(file.name)}</code>" for file in geometry.files)
        return (
            "<p>The model has no mesh to turn here; viewers of its format open "
            f"{names}, beside this page.</p>"
        )
    if surface is None:
        return "<p>The field has no surface, so that there is no mesh to turn.</p>"
    import trimesh

    mesh = trimesh.Trimesh(surface.vertices, surface.faces, process=False)
    low, high = mesh.bounds
    centered = surface.vertices - (low + high) / 2
    centered /= np.linalg.norm(centered, axis=1).max()
    data = {
        "position": _y_up(centered).astype("<f4"),
        "normal": np.round(127 * _y_up(mesh.vertex_normals)).astype(np.int8),
        "color": np.round(255 * surface.rgb).astype(np.uint8),
        "faces": surface.faces.astype("<u4"),
    }
    attributes = " ".join(f'data-{k}="{_base64(v.tobytes())}"' for k, v in data.items())
    return (
        f'<figure><canvas id="model" tabindex="0" aria-label="The model" {attributes}></canvas>'
        "<figcaption>Drag to turn, scroll or pinch to zoom, double-click to reset.</figcaption>"
        "</figure>"
    )


def _y_up(points: np.ndarray) -> np.ndarray:
    return points[:, [0, 2, 1]] * (1, 1, -1)


def _turntable(path: Path) -> str:
    uri = _data_uri(path)
    if path.suffix == ".mp4":
        shown = f'<video src="{uri}" controls autoplay muted loop playsinline></video>'
    else:
        shown = f'<img class="shown" src="{uri}" alt="Turntable">'
    return f"<figure>{shown}<figcaption>The radiance field, all around.</figcaption></figure>"


def _curves(reports: Sequence[StepReport]) -> str:
    return "\n".join(
        f"<figure>{curves(panel.series, log=panel.log, limits=panel.limits)}"
        f"<figcaption>{escape(panel.title)}: {_legend(panel.series)}</figcaption></figure>"
        for panel in panels(reports)
    )


def _legend(series: Iterable[str]) -> str:
    names = (f'<span class="key-{i}">{escape(name)}</span>' for i, name in enumerate(series))
    return " ".join(names)


def _table(config: VLM3DConfig) -> str:
    rows = []
    for name, value in config.flat().items():
        rows.append(f"<tr><th>{escape(name)}</th><td>{escape(_setting(value))}</td></tr>")
    return f"<table>{''.join(rows)}</table>"


def _setting(value: Any) -> str:
    """A value of the configuration's JSON in a form for readers."""
    if isinstance(value, str):
        return value or "(empty)"
    if not isinstance(value, dict):
        return json.dumps(value)
    return str(Schedule(value["points"]))


def _data_uri(path: Path) -> str:
    return f"data:{_TYPES[path.suffix]};base64,{_base64(path.read_bytes())}"


def _base64(data: bytes) -> str:
    return base64.b64encode(data).decode()
