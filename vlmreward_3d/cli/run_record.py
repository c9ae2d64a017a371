"""The record of a run, read from its folder."""

from __future__ import annotations

from pathlib import Path

from vlmreward_3d.config import VLM3DConfig
from vlmreward_3d.errors import RunError
from vlmreward_3d.export.report.comparison import RunRecord
from vlmreward_3d.training.run_files import RunFiles, read_object
from vlmreward_3d.training.run_log import RunLog

__all__ = ["read_run"]


def read_run(folder: Path, name: str) -> RunRecord:
    """The record of a run that has at least begun.

    Args:
        folder: Its folder.
        name: Heading of its column.

    Raises:
        RunError: The folder holds no run, or its files are damaged.
    """
    files = RunFiles(folder)
    if not files.config_file.exists():
        raise RunError(f"received {folder}, without config.json; expected the folder of a run")
    read_object(files.config_file, "the settings of a run")
    try:
        config = VLM3DConfig.from_json(files.config_file.read_text(encoding="utf-8"))
    except ValueError as error:
        raise RunError(f"received {files.config_file}: {error}") from None
    state = read_object(files.state_file, "the state of a run") if files.state_file.exists() else {}
    seconds = state.get("seconds")
    known = seconds if isinstance(seconds, (int, float)) else None
    reports = [report for _, report in RunLog(files.metrics_file).read(0)]
    return RunRecord(name, folder, config, reports, known)
