"""Shared parts of the commands: options of the model, and reports of mistakes."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from vlmreward.cli import arguments
from vlmreward.cli.process import loading, out_of_memory, usable_device
from vlmreward.utils.output import require_writable, write_atomically

if TYPE_CHECKING:
    Commands = argparse._SubParsersAction[argparse.ArgumentParser]

    from vlmreward.rewards.yes_no import YesNoReward

__all__ = [
    "BAD_USAGE",
    "DONE",
    "PARTLY",
    "UsageError",
    "add_model_options",
    "check_device",
    "command",
    "load_reward",
    "prompts_for",
    "usage_errors",
    "writable",
    "write",
    "writing",
]

DONE, PARTLY, BAD_USAGE = 0, 1, 2
"""Exit codes."""


class UsageError(Exception):
    """Error: a request cannot be carried out; the message names the remedy."""


def command(
    commands: Commands, name: str, *, short: str, about: str, more: str
) -> argparse.ArgumentParser:
    """A parser for one command, whose help keeps its line breaks."""
    return commands.add_parser(
        name,
        help=short,
        description=about,
        epilog=more,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )


def add_model_options(
    parser: argparse.ArgumentParser, *, pixel_mode: str, model: bool = True
) -> None:
    """Add the options of the model, its question and its device."""
    if model:
        parser.add_argument(
            "--model",
            type=arguments.text,
            default="builtin/blocks",
            help="hub id or local folder; default: builtin/blocks, which knows nothing but "
            "colored blocks",
        )
    parser.add_argument(
        "--question",
        type=arguments.text,
        default="yes-no",
        metavar="NAME_OR_TEMPLATE",
        help='a question with {prompt} in it, or a name: "yes-no" (default), "paper/selected", '
        '"paper/A", "paper/B"',
    )
    parser.add_argument(
        "--answers",
        type=arguments.text,
        nargs=2,
        default=("Yes", "No"),
        metavar=("FOR", "AGAINST"),
        help="the two words that are compared; default: Yes No",
    )
    parser.add_argument(
        "--pixel-mode",
        choices=("float", "clamp", "uint8"),
        default=pixel_mode,
        help="how far to follow the 8-bit path of image files: float, not at all; uint8, as the "
        f"model's own processor does; default: {pixel_mode}",
    )
    parser.add_argument("--device", help='"cpu", "cuda", ...; default: the GPU if there is one')
    parser.add_argument(
        "--dtype",
        choices=("float32", "bfloat16", "float16", "float64"),
        help="default: float32 on a CPU, the checkpoint's on a GPU",
    )


@contextmanager
def usage_errors(*kinds: type[Exception]) -> Iterator[None]:
    """Context that raises errors of these types as ``UsageError``, with the same message."""
    try:
        yield
    except kinds as error:
        if out_of_memory(error):
            raise
        raise UsageError(str(error)) from error


def check_device(options: argparse.Namespace) -> None:
    """Check --device before anything is read or loaded.

    Raises:
        UsageError: this machine does not have the device.
    """
    if options.device is not None:
        with loading(), usage_errors(ValueError):
            usable_device(options.device)


def load_reward(options: argparse.Namespace) -> YesNoReward:
    """The reward that the options describe.

    Raises:
        UsageError: the model cannot be loaded, or the question or the answers do not fit.
    """
    with loading():
        import torch

        from vlmreward.rewards.yes_no import YesNoReward

    dtype = getattr(torch, options.dtype) if options.dtype else None
    # RuntimeError: a device that another process has to itself, and the like
    with usage_errors(OSError, TypeError, ValueError, RuntimeError):
        return YesNoReward(
            options.model,
            question=options.question,
            answers=tuple(options.answers),
            pixel_mode=options.pixel_mode,
            device=options.device,
            dtype=dtype,
        )


def prompts_for(question: str, given: list[str]) -> list[str | None]:
    """The prompts to ask about, ``[None]`` for a question without a placeholder.

    Raises:
        UsageError: prompts and question do not fit each other.
    """
    from vlmreward.rewards.questions import NAMED_QUESTIONS, QuestionTemplate

    with usage_errors(ValueError):
        placeholders = QuestionTemplate.of(question).placeholders
    if not all(prompt.strip() for prompt in given):
        raise UsageError("--prompt is empty; expected what to ask about")
    if set(placeholders) - {"prompt"}:
        raise UsageError(
            f"--question has the placeholders {', '.join(placeholders)}; expected {{prompt}} only"
        )
    if placeholders and not given:
        raise UsageError(
            '--prompt is missing; expected what to ask about, e.g. --prompt "a red cube"'
        )
    if given and not placeholders:
        raise UsageError(
            f"--question {question!r} has no {{prompt}} and is not the name of a question "
            f"(expected one of {', '.join(NAMED_QUESTIONS)}): write {{prompt}} into it, or leave "
            "out --prompt"
        )
    return [*given] or [None]


def writable(option: str, path: str | None) -> Path | None:
    """Path of an output file, checked to be writable before the work begins; None stays None.

    Raises:
        UsageError: the file cannot be written.
    """
    if path is None:
        return None
    if not path:
        raise UsageError(f"received an empty {option}; expected the name of a file")
    try:
        require_writable(path)
    except OSError as error:
        raise UsageError(
            f"received {option} {path}, which cannot be written ({error.strerror}); expected the "
            "name of a file in a folder that exists; name another"
        ) from None
    return Path(path)


def write(path: Path | None, text: str) -> None:
    """Write text to a file, atomically, or for None to standard output."""
    if path is None:
        print(text, end="" if text.endswith("\n") else "\n")
        return
    with writing(path):
        write_atomically(path, text)


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """Context around the writing of a file that raises a failure as ``UsageError``."""
    try:
        yield
    except OSError as error:
        raise UsageError(
            f"cannot write {path} ({error.strerror or error}); expected room on a disk that can be "
            "written; name another file"
        ) from error
