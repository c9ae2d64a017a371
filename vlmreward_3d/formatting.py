"""Formatting of numbers as text."""

from __future__ import annotations

__all__ = ["duration"]


def duration(seconds: float) -> str:
    """A time such as "1 h 44 min" or "20 min 50 s", rounded to seconds."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min {rest} s"
