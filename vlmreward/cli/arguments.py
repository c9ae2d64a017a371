"""Argument types for argparse: a bad value ends in one line, before torch is imported."""

from __future__ import annotations

import argparse
import math
import os
import re
from collections.abc import Callable
from pathlib import Path

__all__ = [
    "above_zero",
    "natural",
    "not_negative",
    "path",
    "port",
    "positive",
    "share",
    "slug",
    "text",
    "threads",
]

_MOST = 10**9


def _whole(low: int, high: int, range_: str) -> Callable[[str], int]:
    """Whole numbers from ``low`` to ``high``, which ``range_`` says in words."""

    def parsed(word: str) -> int:
        # int() itself takes underscores, signs and blanks, and complains about thousands of digits
        if not word.isdecimal() or len(word) > 30 or not low <= int(word) <= high:
            shown = word if len(word) <= 40 else f"{word[:40]}..."
            raise argparse.ArgumentTypeError(
                f"received {shown!r}; expected a whole number {range_}"
            )
        return int(word)

    return parsed


positive = _whole(1, _MOST, ">= 1 (at most 10^9)")
natural = _whole(0, 2**63 - 1, ">= 0 (below 2^63)")
threads = _whole(1, 1024, "from 1 to 1024")
port = _whole(0, 65535, "from 0 to 65535; 0 takes a free port")


def above_zero(word: str) -> float:
    """A finite number above 0."""
    return _real(word, "a number > 0", lambda value: value > 0)


def not_negative(word: str) -> float:
    """A finite number that is at least 0."""
    return _real(word, "a number >= 0", lambda value: value >= 0)


def share(word: str) -> float:
    """A number in [0, 1]."""
    return _real(word, "a number in [0, 1]", lambda value: 0 <= value <= 1)


def _real(word: str, expected: str, holds: Callable[[float], bool]) -> float:
    try:
        value = float(word)
    except ValueError:
        value = math.nan
    if not (math.isfinite(value) and holds(value)):
        raise argparse.ArgumentTypeError(f"received {word!r}; expected {expected}")
    return value


def text(word: str) -> str:
    """A text that is not empty, as Unicode.

    Bytes that the locale cannot decode are in ``sys.argv`` as lone surrogates. They are decoded as
    UTF-8 if possible, for any locale: terminals send UTF-8 under ``LANG=C`` too.
    """
    try:
        word = os.fsencode(word).decode("utf-8")
    except UnicodeError:
        raise argparse.ArgumentTypeError(
            f"received {word!r}, which is not UTF-8; expected text; type it in a UTF-8 terminal"
        ) from None
    if not word.strip():
        raise argparse.ArgumentTypeError(f"received {word!r}; expected some words")
    return word


def slug(words: str, most: int = 60) -> str:
    """Words as part of a file name: letters, digits and hyphens, at most ``most`` of them."""
    return re.sub(r"[^a-z0-9]+", "-", words.lower()).strip("-")[:most]


def path(word: str) -> Path:
    """A path that is not empty; any bytes are accepted."""
    if not word.strip():
        raise argparse.ArgumentTypeError(
            f"received {word!r}; expected a path; name one, or . for here"
        )
    return Path(word)
