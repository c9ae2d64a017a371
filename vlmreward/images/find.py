"""Search for image files by names, folders and glob patterns."""

from __future__ import annotations

import glob
import os
from collections.abc import Sequence
from pathlib import Path

from vlmreward.images.io import ImageFileError

__all__ = ["SUFFIXES", "find_images"]

SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".webp", ".bmp", ".gif", ".tif", ".tiff", ".ppm"})
"""Endings of the files that are read in a folder; a file that is named itself may have any."""


def find_images(patterns: Sequence[str | os.PathLike[str]]) -> list[Path]:
    """Image files of a list of files, folders and globs, without duplicates.

    The order is that of the list, and alphabetical within each item.

    Args:
        patterns: paths of files; paths of folders, for the images directly in them (see
            ``SUFFIXES``); or globs (``**`` too).

    Raises:
        TypeError: not a list of paths.
        ImageFileError: an item matches no file.
    """
    if isinstance(patterns, (str, os.PathLike)) or not all(
        isinstance(pattern, (str, os.PathLike)) for pattern in patterns
    ):
        raise TypeError(f"patterns is {patterns!r}; expected a list of paths or globs")
    found: dict[Path, None] = {}
    for given in patterns:
        pattern = os.fspath(given)
        path = Path(pattern)
        if path.is_dir():
            files = sorted(p for p in path.iterdir() if p.suffix.lower() in SUFFIXES)
            if not files:
                raise ImageFileError(
                    f"no images in the folder {path}; expected files ending in "
                    f"{', '.join(sorted(SUFFIXES))}"
                )
        elif path.exists() or not glob.has_magic(pattern):
            files = [path]
        else:
            files = sorted(Path(p) for p in glob.glob(pattern, recursive=True) if os.path.isfile(p))
            if not files:
                raise ImageFileError(f"nothing matches {pattern!r}; expected image files")
        found.update(dict.fromkeys(files))
    return list(found)
