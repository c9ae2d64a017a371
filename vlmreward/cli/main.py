"""Entry point and parser of ``vlmreward COMMAND ...``."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence

from vlmreward import __version__
from vlmreward.cli import doctor, explain, score
from vlmreward.cli.common import BAD_USAGE, UsageError
from vlmreward.cli.process import INTERRUPTED, out_of_memory, speaking

__all__ = ["main"]

_ABOUT = """\
A vision-language model (VLM) as a differentiable reward: the log-odds of its answer to your
question about images, log P(Yes) - log P(No). Above 0 means Yes, 0 is undecided, and +2.2 or -2.2
is 90 % sure.
"""
_EXAMPLES = """\
examples:
  vlmreward doctor builtin/blocks
  vlmreward score renders/*.png --prompt "a red cube" --prompt "a blue sphere"
  vlmreward explain front.png back.png --prompt "a red cube" --out why.png

Each command has a --help of its own, with examples and exit codes. In Python:
  from vlmreward import YesNoReward, doctor, explain
"""


def parser() -> argparse.ArgumentParser:
    """The parser of all commands."""
    whole = argparse.ArgumentParser(
        prog="vlmreward",
        description=_ABOUT,
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    whole.add_argument("--version", action="version", version=f"vlmreward {__version__}")
    commands = whole.add_subparsers(dest="command", metavar="COMMAND", required=True)
    for module in (doctor, score, explain):
        module.add(commands)
    return whole


@speaking()
def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command.

    Args:
        arguments: words of the command line, without the program's name; ``sys.argv`` by default.

    Returns:
        The exit code: 0 for success, 2 for bad usage, 130 after Ctrl-C; 1 as each command says.
    """
    options = parser().parse_args(arguments)
    try:
        return options.run(options)
    except UsageError as error:
        message = " ".join(str(error).split())
        print(f"vlmreward {options.command}: error: {message}", file=sys.stderr)
        return BAD_USAGE
    except (RuntimeError, MemoryError) as error:
        if not out_of_memory(error):
            raise
        where = "GPU " if type(error).__name__ == "OutOfMemoryError" else ""
        message = f"no {where}memory left: try --dtype bfloat16, --device cpu or smaller images"
        print(f"vlmreward {options.command}: error: {message}", file=sys.stderr)
        return BAD_USAGE
    except KeyboardInterrupt:
        print("stopped", file=sys.stderr)
        return INTERRUPTED
    except BrokenPipeError:  # the reader, such as head, has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
