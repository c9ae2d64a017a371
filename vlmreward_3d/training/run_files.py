"""The files in the folder of a run."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from vlmreward_3d.errors import RunError

__all__ = ["RESULTS", "STATE", "RunFiles", "read_object"]

STATE = (
    "checkpoint.safetensors",
    "last-good.safetensors",
    "config.json",
    "state.json",
    "metrics.jsonl",
    "preview.png",
)
"""Files that a run continues from, beside TensorBoard's folder."""

RESULTS = (
    "views.png",
    "turntable.mp4",
    "turntable.gif",
    "mesh.glb",
    "mesh_textured.glb",
    "mesh.obj",
    "mesh.ply",
    "splats.ply",
    "reward.png",
    "report.html",
)
"""Files that `export_all` may write into a run's folder."""


class RunFiles:
    """Paths in the folder of a run.

    Args:
        path: The folder.
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    @property
    def config_file(self) -> Path:
        """The settings of the run."""
        return self.path / "config.json"

    @property
    def metrics_file(self) -> Path:
        """One JSON object a step: "step" and its metrics by name."""
        return self.path / "metrics.jsonl"

    @property
    def checkpoint_file(self) -> Path:
        """The latest checkpoint, with everything that is needed to continue."""
        return self.path / "checkpoint.safetensors"

    @property
    def good_file(self) -> Path:
        """The latest checkpoint at which no failure mode was seen."""
        return self.path / "last-good.safetensors"

    @property
    def state_file(self) -> Path:
        """Progress of the run, for readers; the run itself does not read it."""
        return self.path / "state.json"

    def describe(self) -> str:
        """The prompt and the progress of the run in the folder, for messages."""
        try:
            state = read_object(self.state_file, "the state of a run")
            prompt = read_object(self.config_file, "the settings of a run")["prompt"]
            how_far = "finished" if state["finished"] else f"step {state['step']}"
            return f"{prompt!r}, {how_far} of {state['steps']} steps"
        except (RunError, KeyError):
            return "unfinished"


def read_object(file: Path, expected: str) -> dict[str, Any]:
    """The object in a JSON file.

    Args:
        file: The file.
        expected: Its content in words, for the message.

    Raises:
        RunError: The file cannot be read or holds no object.
    """
    try:
        read = json.loads(file.read_bytes().decode("utf-8"))
        if isinstance(read, dict):
            return read
        what = f"whose JSON is a {type(read).__name__}"
    except OSError as error:
        what = f"which cannot be read ({error.strerror})"
    except (ValueError, RecursionError) as error:  # not UTF-8 or not JSON
        what = f"which does not read as JSON ({error})"
    raise RunError(
        f"received {file}, {what}; expected {expected}, an object; mend it, start again with "
        "--overwrite, or pass another --out"
    )
