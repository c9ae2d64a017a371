"""One page about several runs: what differs in their settings, their outcomes, pictures, curves."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path

from vlmreward_3d.atomic_io import write_atomically
from vlmreward_3d.config import VLM3DConfig
from vlmreward_3d.export.report.html import curve_figure, document, table, video, views
from vlmreward_3d.export.report.panels import Panel, panels
from vlmreward_3d.export.report.settings import readable_settings
from vlmreward_3d.formatting import duration
from vlmreward_3d.vlm3d import StepReport

__all__ = ["RunRecord", "save_comparison"]

_MOST_RUNS = 6
"""Number of runs whose curves have colors of their own."""


@dataclass(frozen=True)
class RunRecord:
    """A run as its folder tells it.

    Attributes:
        name: Heading of its column.
        folder: The folder.
        config: Its settings.
        reports: Its log.
        seconds: Duration of all steps together; None where it is not known.
    """

    name: str
    folder: Path
    config: VLM3DConfig
    reports: Sequence[StepReport]
    seconds: float | None

    @property
    def turntable(self) -> Path | None:
        """The turntable, MP4 or GIF, if the run has been exported."""
        files = (self.folder / name for name in ("turntable.mp4", "turntable.gif"))
        return next((file for file in files if file.exists()), None)


def save_comparison(path: Path, runs: Sequence[RunRecord]) -> None:
    """Write a page that shows runs side by side and needs nothing but itself.

    Args:
        path: The .html file.
        runs: Two to six runs, with different names.

    Raises:
        ValueError: There are fewer or more runs, or two have one name.
        OSError: A picture cannot be read, or the page not be written.
    """
    names = [run.name for run in runs]
    if not 2 <= len(runs) <= _MOST_RUNS:
        raise ValueError(f"received {len(runs)} runs; expected two to {_MOST_RUNS}")
    if len(set(names)) < len(names):
        raise ValueError(f"received runs named {', '.join(names)}; expected different names")
    body = f"""<h2>Outcome</h2>
{table("Outcomes", _outcomes(runs), names)}
<h2>Differences of the settings</h2>
{_differences(runs, names)}
<h2>Models</h2>
<div class="grid-2">
{_turntables(runs)}
</div>
<h2>Views</h2>
<div class="stack">
{_views(runs)}
</div>
<h2>Curves</h2>
<div class="grid-2">
{_curves(runs)}
</div>"""
    write_atomically(path, document(_title(runs), body))


def _title(runs: Sequence[RunRecord]) -> str:
    prompts = dict.fromkeys(run.config.prompt for run in runs)
    return f"{len(runs)} runs: {', '.join(prompts)}"


def _outcomes(runs: Sequence[RunRecord]) -> dict[str, list[str]]:
    """Cells by the row's name: steps, time, and the last value of each metric."""
    finals = [
        {name: value for report in run.reports for name, value in report.headline.items()}
        for run in runs
    ]
    rows = {
        "Prompt": [escape(run.config.prompt) for run in runs],
        "Steps done": [f"{len(run.reports)} of {run.config.steps}" for run in runs],
        "Time of all steps": [
            "not known" if run.seconds is None else duration(run.seconds) for run in runs
        ],
    }
    for name in dict.fromkeys(name for final in finals for name in final):
        rows[f"Final {name}"] = [f"{final[name]:.3g}" if name in final else "-" for final in finals]
    return rows


def _differences(runs: Sequence[RunRecord], names: Sequence[str]) -> str:
    settings = [readable_settings(run.config) for run in runs]
    rows: dict[str, list[str]] = {}
    for name in dict.fromkeys(name for one in settings for name in one):
        values = [one.get(name, "-") for one in settings]
        if len(set(values)) > 1:
            rows[name] = [escape(value) for value in values]
    return table("Settings", rows, names) if rows else "<p>All settings are the same.</p>"


def _turntables(runs: Sequence[RunRecord]) -> str:
    return "\n".join(
        video(run.turntable, run.name)
        if run.turntable
        else f"<p>{escape(run.name)} has no turntable: it has not been exported.</p>"
        for run in runs
    )


def _views(runs: Sequence[RunRecord]) -> str:
    return "\n".join(
        views(file, run.name, run.name)
        if (file := run.folder / "views.png").exists()
        else f"<p>{escape(run.name)} has no views: it has not been exported.</p>"
        for run in runs
    )


def _curves(runs: Sequence[RunRecord]) -> str:
    """A figure for each metric, with a curve for each run."""
    merged: dict[str, Panel] = {}
    for run in runs:
        for panel in panels(run.reports):
            for metric, points in panel.series.items():
                title = f"{panel.title} ({metric})"
                one = Panel(panel.kind, title, log=panel.log, limits=panel.limits)
                merged.setdefault(metric, one).series[run.name] = points
    return "\n".join(curve_figure(panel) for panel in merged.values())
