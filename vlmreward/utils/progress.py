"""Progress bars that stay readable where they are not on a terminal."""

from __future__ import annotations

import sys
import time
from typing import TextIO

from tqdm import tqdm

__all__ = ["progress_bar"]

_SECONDS = 10.0
"""Least number of seconds between two lines in a file."""


class _Lines:
    """A stream that turns tqdm's repeated drawing into occasional lines."""

    def __init__(self, stream: TextIO) -> None:
        self.stream = stream
        self.drawn = self.written = ""
        self.due = 0.0

    def write(self, text: str) -> None:
        self.drawn = text.strip() or self.drawn
        ended = text == "\n"  # which tqdm writes behind the last state
        if self.drawn != self.written and (ended or time.monotonic() >= self.due):
            self.stream.write(f"{self.drawn}\n")
            self.stream.flush()
            self.written = self.drawn
            self.due = time.monotonic() + _SECONDS

    def flush(self) -> None:
        """Only lines that are not yet due are held back."""


def progress_bar(*arguments: object, **options: object) -> tqdm:
    """tqdm on standard error: a bar on a terminal, elsewhere a line at most every 10 seconds.

    Args:
        *arguments: arguments of tqdm.
        **options: options of tqdm; outside a terminal, bars with ``leave=False`` are not shown.
    """
    stream = sys.stderr
    if stream is None:  # closed by the caller
        return tqdm(*arguments, **options | {"disable": True})
    if stream.isatty():
        return tqdm(*arguments, **{"file": stream} | options)
    if options.get("leave") is False:
        options["disable"] = True
    plain: dict[str, object] = {"file": _Lines(stream), "mininterval": 1.0, "ncols": 0}
    return tqdm(*arguments, **options | plain)
