"""Warnings that point at the caller's own line."""

from __future__ import annotations

import sys
import warnings

__all__ = ["warn"]

_OURS = ("vlmreward", "torch", "contextlib")


def warn(message: str) -> None:
    """Issue a ``UserWarning`` at the nearest frame outside of this project and of torch."""
    level = 1
    frame = sys._getframe(1)
    while frame.f_back and str(frame.f_globals.get("__name__")).startswith(_OURS):
        frame = frame.f_back
        level += 1
    warnings.warn(message, stacklevel=level + 1)
