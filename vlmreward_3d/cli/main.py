"""Entry point of the command `vlm3d PROMPT ...`."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from vlmreward.cli import process
from vlmreward_3d.cli.invocation import command_line
from vlmreward_3d.cli.options import parse
from vlmreward_3d.cli.requirements import require_extra

__all__ = ["main"]

_BAD_USAGE = 2


@process.speaking()
def main(arguments: Sequence[str] | None = None) -> int:
    """Make a 3D asset from a prompt, and print the names of its files.

    Args:
        arguments: Words of the command line, without the program's name; `sys.argv` by default.

    Returns:
        The exit code: 0 for success, 2 for what cannot be done, 130 after Ctrl-C.
    """
    options = parse(arguments)
    command = command_line(arguments)
    try:
        require_extra()
        # after parsing, so that --help and mistakes answer at once
        with process.loading():
            from vlmreward_3d.cli import run
            from vlmreward_3d.errors import DivergenceError
            from vlmreward_3d.training.trainer import TrainingInterrupted
    except ImportError as error:
        remedy = "" if "; expected" in str(error) else "; expected it: pip install 'vlmreward[3d]'"
        print(f"error: {error}{remedy}", file=sys.stderr)
        return _BAD_USAGE
    try:
        files = run.work(options, command)
    except (TrainingInterrupted, KeyboardInterrupt) as error:
        said = str(error) or "stopped"
        if (options.out / "config.json").exists() and not options.dry_run:
            said += f"; to go on: {command} --resume"
        print(said, file=sys.stderr)
        return process.INTERRUPTED
    except (DivergenceError, ValueError, OSError, ImportError) as error:
        print(f"error: {' '.join(str(error).split())}", file=sys.stderr)
        return _BAD_USAGE
    except (RuntimeError, MemoryError) as error:
        if not process.out_of_memory(error):
            raise
        print("error: no memory left; expected more of it; see --rays-per-chunk", file=sys.stderr)
        return _BAD_USAGE
    for file in files:
        print(file)
    return 0
