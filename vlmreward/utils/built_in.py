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
    return sorted({point.name for point in entry_points(group=group)})


def built_in_folder(name: str, group: str) -> Path | None:
    """The folder of a built-in model; None for a name that no package announces.

    Where several packages announce it, the first whose folder is installed: the wheel of vlmreward
    announces all models of the checkout and carries the default ones, and a second distribution
    brings the rest.

    Args:
        name: such as ``builtin/blocks``.
        group: ``VLMS`` or ``DENOISERS``.

    Raises:
        FileNotFoundError: the model is announced, but its folder is not installed.
    """
    folders = [Path(point.load()) for point in entry_points(group=group, name=name)]
    for folder in folders:
        if folder.is_dir():
            return folder
    if folders:
        raise FileNotFoundError(
            f"the weights of {name!r} are not installed; expected a model in {folders[0]}: a "
            "checkout of vlmreward has them, and so does `pip install vlmreward-extra-models`; or "
            "pass a model id or folder"
        )
    return None
