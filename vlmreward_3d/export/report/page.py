"""Report of a run as one self-contained HTML page: no network, no other file."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path

import numpy as np

from vlmreward_3d.atomic_io import write_atomically
from vlmreward_3d.config import VLM3DConfig
from vlmreward_3d.export.geometry import Geometry
from vlmreward_3d.export.report import html
from vlmreward_3d.export.report.panels import WEIGHT, panels
from vlmreward_3d.export.report.settings import readable_settings, weight_note
from vlmreward_3d.formatting import duration
from vlmreward_3d.vlm3d import StepReport

__all__ = ["save_report"]

_SCRIPT = Path(__file__).parent / "viewer.js"
_LINKED = {".gif", ".glb", ".json", ".jsonl", ".mp4", ".obj", ".ply", ".png"}
"""Suffixes of the files that a run leaves beside the page; one of its checkpoints does not stay."""


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
    provenance: Mapping[str, str] | None = None,
) -> None:
    """Write a page with the run's outcome, pictures, a rotatable model, curves and settings.

    Args:
        path: The .html file. Files of the run that are beside it are linked.
        config: The run's settings.
        reports: Log of the run.
        geometry: The exported model; its notes are listed after `notes`.
        views: The picture of the views, PNG.
        turntable: MP4 or GIF.
        done: Number of steps that were done; None for the number of `reports`.
        seconds: Total time of the steps in seconds; None if unknown.
        notes: Sentences about events of the run, such as retries.
        provenance: The command and the versions that made the asset, by name.

    Raises:
        OSError: A picture cannot be read, or the page not be written.
    """
    done = len(reports) if done is None else done
    files = sorted(file for file in path.parent.iterdir() if file.suffix in _LINKED)
    origin = {name: [_code(value)] for name, value in (provenance or {}).items()}
    settings = {name: [escape(value)] for name, value in readable_settings(config).items()}
    body = f"""<p>{escape(_ending(config, reports, done))}</p>
{_facts(reports, done, seconds)}
{_list([*notes, *geometry.notes])}
<h2>Model</h2>
<div class="grid-2">
{_model(geometry)}
{html.video(turntable, "The radiance field, all around.")}
</div>
<h2>Views</h2>
{html.views(views, "Colors above, world-space normals below.")}
<h2>Curves</h2>
<div class="grid-2">
{_curves(config, reports)}
</div>
{_section("Files", html.file_links(files) if files else "")}
{_section("Made with", html.table("Made with", origin))}
<h2>Configuration</h2>
{html.table("Settings", settings)}"""
    script = _SCRIPT.read_text(encoding="utf-8")
    write_atomically(path, html.document(config.prompt, body, script=script))


def _section(heading: str, content: str) -> str:
    return f"<h2>{heading}</h2>\n{content}" if content else ""


def _code(value: str) -> str:
    return f"<code>{escape(value)}</code>"


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
    attributes = " ".join(f'data-{k}="{html.base64_text(v.tobytes())}"' for k, v in data.items())
    return (
        f'<figure><canvas id="model" tabindex="0" role="img" aria-label="The model" {attributes}>'
        "</canvas>"
        "<figcaption>Drag or use the arrow keys to turn, scroll or pinch to zoom, double-click to "
        "reset.</figcaption>"
        "</figure>"
    )


def _y_up(points: np.ndarray) -> np.ndarray:
    return points[:, [0, 2, 1]] * (1, 1, -1)


def _curves(config: VLM3DConfig, reports: Sequence[StepReport]) -> str:
    return "\n".join(
        html.curve_figure(panel, weight_note(config) if panel.kind == WEIGHT else "")
        for panel in panels(reports)
    )
