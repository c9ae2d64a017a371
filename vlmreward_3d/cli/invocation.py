"""The command line of this process, for messages that say what to type next."""

from __future__ import annotations

import sys
from pathlib import Path

__all__ = ["program_name", "program_words"]


def program_words() -> list[str]:
    """The words with which the command was called, without its arguments.

    `["vlm3d"]`, `["python", "-m", "vlmreward_3d"]`, or `["python", "examples/text_to_3d.py"]`.
    """
    program = Path(sys.argv[0])
    if program.suffix != ".py":
        return ["vlm3d"]
    if program.name == "__main__.py":
        return ["python", "-m", "vlmreward_3d"]
    return ["python", sys.argv[0]]


def program_name() -> str:
    """The last of these words, without its folder, for a usage line."""
    return Path(program_words()[-1]).name
