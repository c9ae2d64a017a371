"""Models that come with installed packages, announced by entry points."""

from __future__ import annotations

from importlib.metadata import entry_points
from pathlib import Path

__all__ = ["DENOISERS", "VLMS", "built_in_folder", "built_in_names"]

VLMS = "vlmreward.models"
"""Entry points of folders of VLMs, in the format of transformers."""
DENOISERS = "vlmreward_3d.denoisers"
"""Entry points of folders of denoisers, in the format of diffusers."""


def built_in_names(group: str) -> list[str]:
    """Names of the models that installed packages announce, such as ``builtin/blocks``.

    Args:
        group: ``VLMS`` or ``DENOISERS``.
    """
    return sorted(point.name for point in entry_points(group=group))


def built_in_folder(name: str, group: str) -> Path | None:
    """The folder of a built-in model; None for a name that no package announces.

    Args:
        name: such as ``builtin/blocks``.
        group: ``VLMS`` or ``DENOISERS``.

    Raises:
        FileNotFoundError: it is announced, but its folder is not installed.
    """
    for point in entry_points(group=group, name=name):
        folder = Path(point.load())
        if folder.is_dir():
            return folder
        raise FileNotFoundError(
            f"the weights of {name!r} are not installed; expected a model in {folder}: install "
            "from a full checkout, or pass a model id or folder"
        )
    return None
