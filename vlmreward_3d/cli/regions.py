"""Regions in words: --region "PROMPT: X,Y,Z to X,Y,Z"."""

from __future__ import annotations

import argparse
import re

from vlmreward_3d.config import RegionConfig

__all__ = ["region"]

_WORDS = re.compile(r"(?s)\s*(?P<prompt>.*\S)\s*:\s*(?P<low>[^:\s]+)\s+to\s+(?P<high>[^:\s]+)\s*")


def region(words: str) -> RegionConfig:
    """The region that words describe.

    Args:
        words: The prompt, a colon, the lowest corner, "to" and the highest corner of the box, each
            as three numbers that are joined by commas.

    Raises:
        argparse.ArgumentTypeError: They do not.
    """
    found = _WORDS.fullmatch(words)
    try:
        if found is None:
            raise ValueError(f"received {words!r}")
        low, high = (tuple(map(float, found[name].split(","))) for name in ("low", "high"))
        return RegionConfig(prompt=found["prompt"], low=low, high=high)  # type: ignore[arg-type]
    except ValueError as error:
        raise argparse.ArgumentTypeError(
            f'{error}; expected "PROMPT: X,Y,Z to X,Y,Z", the lowest and the highest corner of a '
            "box in world units"
        ) from None
