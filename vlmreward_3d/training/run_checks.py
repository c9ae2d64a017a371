"""Checks that a folder can be used for a run; they change nothing in it."""

from __future__ import annotations

import json
import tempfile

from vlmreward_3d.config import VLM3DConfig
from vlmreward_3d.errors import RunError
from vlmreward_3d.training.checkpoint import load_checkpoint
from vlmreward_3d.training.run_files import RunFiles, read_object

__all__ = ["require_same_run", "require_unused", "require_writable"]


def require_writable(files: RunFiles) -> None:
    """Make the folder, and check that files can be made in it.

    Raises:
        RunError: The folder cannot be made or written.
    """
    try:
        files.path.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=files.path):
            pass
    except OSError as error:
        raise RunError(
            f"cannot write to {files.path} ({error.strerror}); expected a folder that exists "
            "or can be made; pass another --out"
        ) from None


def require_unused(files: RunFiles) -> None:
    """Check that the folder holds no run.

    Raises:
        RunError: The folder holds a run.
    """
    if files.config_file.exists() or files.checkpoint_file.exists():
        raise RunError(
            f"{files.path} already holds a run ({files.describe()}); expected a new or empty "
            "folder; pass --resume to go on with it, --overwrite to replace it, or another "
            "--out"
        )


def require_same_run(files: RunFiles, config: VLM3DConfig) -> None:
    """Check that the folder holds a run of the same configuration.

    Raises:
        RunError: The folder holds no run, or one of another configuration.
    """
    if files.checkpoint_file.exists():
        theirs = load_checkpoint(files.checkpoint_file).config
    elif files.config_file.exists():
        _require_no_steps(files)
        theirs = json.dumps(read_object(files.config_file, "the settings of a run"))
    else:
        raise RunError(
            f"{files.path} holds nothing to resume; expected checkpoint.safetensors; check "
            "--out, or leave out --resume to start"
        )
    try:
        differences = config.differences(theirs)
    except ValueError as error:
        raise RunError(
            f"{files.path} holds a run that cannot go on: {error}; start again with "
            "--overwrite, or pass another --out"
        ) from None
    if differences:
        raise RunError(
            f"{files.path} holds a run of another configuration ({'; '.join(differences)}); "
            "expected the same one; repeat the first command's options, or pass another --out"
        )


def _require_no_steps(files: RunFiles) -> None:
    """Refuse a folder whose log has steps but whose checkpoint is missing."""
    if not files.metrics_file.exists() or not files.metrics_file.stat().st_size:
        return
    remedy = "start again with --overwrite, or in another folder"
    if files.good_file.exists():
        remedy = f"copy {files.good_file.name} to that name to go on from there"
    raise RunError(
        f"{files.checkpoint_file} is missing, though metrics.jsonl tells of steps; expected the "
        f"checkpoint of the run; {remedy}"
    )
