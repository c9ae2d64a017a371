"""The command line of this process, for messages that say what to type next."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Sequence
from pathlib import Path

__all__ = ["command_line", "program_name", "program_words"]

_EXISTING = ("--resume", "--overwrite")
"""Options about a run that is there already."""


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


def command_line(arguments: Sequence[str] | None = None) -> str:
    """The command of this run for a shell, without options about a run that is there already.

    Args:
        arguments: Words behind the program's; `sys.argv` by default.
    """
    given = sys.argv[1:] if arguments is None else arguments
    return shlex.join([*program_words(), *(word for word in given if word not in _EXISTING)])
