"""Loading of the images that are named on the command line."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING

from vlmreward.cli import arguments
from vlmreward.cli.common import UsageError, usage_errors
from vlmreward.cli.process import loading

if TYPE_CHECKING:
    from vlmreward.images.io import ImageFile

__all__ = ["add_images", "read"]


def add_images(parser: argparse.ArgumentParser) -> None:
    """The positional arguments."""
    parser.add_argument(
        "images",
        type=arguments.path,
        nargs="+",
        metavar="IMAGE",
        help="files, folders (their images, not those of folders inside) or quoted globs; gray, "
        "16-bit, palette, CMYK and transparent images (over white) are converted, and it is said",
    )


def read(
    patterns: Sequence[str | os.PathLike[str]], *, all_or_nothing: bool
) -> tuple[list[ImageFile], int]:
    """Load images; conversions and unreadable files are reported on stderr.

    Args:
        patterns: files, folders and globs; see ``vlmreward.images.find.find_images``.
        all_or_nothing: raise an error if one of the files cannot be read.

    Returns:
        The images, at least one, and the number of files that could not be read.

    Raises:
        UsageError: no file was found, or none could be read.
    """
    with loading():
        from vlmreward.images.find import find_images
        from vlmreward.images.io import ImageFileError, load_image

    with usage_errors(ImageFileError):
        paths = find_images(patterns)
    images, failed = [], 0
    for path in paths:
        try:
            file = load_image(path)
        except ImageFileError as error:
            if all_or_nothing:
                raise UsageError(
                    f"{error}; all images are views of one object: none is left out"
                ) from error
            if len(paths) == 1:
                raise UsageError(str(error)) from error
            print(f"skipped: {error}", file=sys.stderr)
            failed += 1
            continue
        if file.conversions:
            print(f"{path}: {', '.join(file.conversions)}", file=sys.stderr)
        images.append(file)
    if not images:
        raise UsageError(f"none of the {failed} images can be read; expected at least one")
    return images, failed
