"""Checks that a bad input is refused soon, in one line that names what is expected, without loss.

A table of calls has rows ``(name, expression, exception, message)``: the expression is evaluated
with the names of `bad_objects.names`, and has to raise that exception with a message in which the
pattern is found. A table of commands has rows ``(name, command line, exit code, message)`` and is
run in a folder of keepsakes, none of which may change. What a command writes on purpose keeps the
kind and the mode of what was there.
"""

from __future__ import annotations

import contextlib
import hashlib
import importlib
import io
import os
import re
import shlex
import signal
import stat
import subprocess
import sys
import threading
import traceback
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
SECONDS = 20
"""Time limit of a row in seconds."""

Kinds = type[Exception] | tuple[type[Exception], ...]
Call = tuple[str, str, Kinds, str]
Command = tuple[str, str, int, str]


class Late(BaseException):
    """A row took too long. No ``Exception``: nothing is to catch it on its way."""


@contextlib.contextmanager
def time_limit(seconds: float = SECONDS) -> Iterator[None]:
    def ring(*_: object) -> None:
        raise Late

    before = signal.signal(signal.SIGALRM, ring)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


# --- calls


def judge_call(row: Call, names: dict[str, Any]) -> str | None:
    """Fault in the answer to a call, a word for its kind and the details; None if it is right."""
    _, expression, kind, message = row
    try:
        with time_limit(), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            value = eval(expression, names)
    except Late:
        return f"late: nothing after {SECONDS} s"
    except Exception as error:
        return _wrong_with(error, kind, message)
    return f"silent: returned {value!r:.200}"


def _wrong_with(error: Exception, kind: Kinds, message: str) -> str | None:
    said = str(error)
    shown = f"{type(error).__name__}: {said[:500]}"
    if not isinstance(error, kind):
        return f"traceback: {shown}; expected {kind}"
    # what the operating system refuses is said in its words, wherever it was asked
    by_system = isinstance(error, OSError) and error.errno is not None
    # an accident inside torch may have the right type too
    place = Path(traceback.extract_tb(error.__traceback__)[-1].filename)
    if not by_system and not any(
        (ROOT / part) in place.parents for part in ("vlmreward", "vlmreward_3d", "examples")
    ):
        return f"traceback: raised in {place}: {shown}"
    wrong = _wrong_with_line(said, message, r"" if by_system else "expected")
    return wrong and f"message: {wrong}"


def _wrong_with_line(said: str, message: str, remedy: str) -> str | None:
    if "\n" in said:
        return f"several lines: {said[:500]!r}"
    if not re.search(remedy, said):
        return f"does not say what is expected: {said!r}"
    if not re.search(message, said):
        return f"{said!r} does not match {message!r}"
    return None


# --- commands


def fill(folder: Path, pictures: Path) -> None:
    """Make the keepsakes: files of several modes, links of both kinds, a pipe, folders."""
    for picture in pictures.iterdir():
        (folder / picture.name).symlink_to(picture)
    (folder / "note.txt").write_text("keep me\n")
    (folder / "private.csv").write_text("a,b\n1,2\n")
    (folder / "private.csv").chmod(0o600)
    (folder / "tool.sh").write_text("#!/bin/sh\n")
    (folder / "tool.sh").chmod(0o755)
    os.link(folder / "note.txt", folder / "hard.txt")
    (folder / "link.png").symlink_to("note.txt")
    (folder / "dangling").symlink_to("nowhere")
    os.mkfifo(folder / "pipe")
    for name, number in (("null", 3), ("full", 7)):
        try:  # whoever may make devices could also lose those of /dev
            os.mknod(folder / f"device-{name}", 0o666 | stat.S_IFCHR, os.makedev(1, number))
        except OSError:
            (folder / f"device-{name}").symlink_to(f"/dev/{name}")
    for name in ("full", "empty"):
        (folder / name).mkdir()
    (folder / "full" / "inside.txt").write_text("keep me too\n")


def snapshot(folder: Path) -> dict[str, tuple[Any, ...]]:
    """Everything below a folder: kind, mode, identity and content."""
    found = {}
    for path in sorted(folder.rglob("*")):
        status = path.lstat()
        entry: tuple[Any, ...] = (stat.S_IFMT(status.st_mode), stat.S_IMODE(status.st_mode))
        if path.is_symlink():
            entry += (os.readlink(path),)
        elif stat.S_ISCHR(status.st_mode):
            entry += (status.st_rdev,)
        elif path.is_file():
            content = hashlib.sha256(path.read_bytes()).hexdigest()
            entry += (status.st_ino, status.st_mtime_ns, content)
        found[str(path.relative_to(folder))] = entry
    return found


def judge_command(row: Command, folder: Path) -> str | None:
    """Run a command in a folder; as `judge_call`, with "destroyed" and "litter" besides."""
    _, line, expected, message = row
    program, *words = shlex.split(line)
    before = snapshot(folder)
    ended, out, err = _run(program, words, folder)
    after = snapshot(folder)
    changed = [name for name in before if after.get(name) != before[name]]
    if changed:
        return f"destroyed: {', '.join(changed)} ({ended}, {err[-300:]!r})"
    if isinstance(ended, Late):
        return f"late: nothing after {SECONDS} s"
    if isinstance(ended, BaseException):
        return f"traceback: {type(ended).__name__}: {str(ended)[:500]}"
    if "Traceback" in err + out:
        return f"traceback: printed {err[-500:]!r}"
    if ended == 0:
        return f"silent: exit code 0, {(out + err)[-300:]!r}"
    if ended != expected:
        return f"code: {ended}; expected {expected} ({err[-300:]!r})"
    litter = [n for n in after if n not in before and after[n][0] != stat.S_IFDIR]
    if litter:
        return f"litter: {', '.join(litter)}"
    if out.strip():
        return f"message: something on stdout: {out[-300:]!r}"
    return _wrong_with_stderr(err, message)


def _wrong_with_stderr(err: str, message: str) -> str | None:
    lines = [part for part in re.split(r"[\r\n]+", err) if part.strip()]
    if lines and lines[0].startswith("usage:"):  # argparse's, of several lines
        lines = lines[next((i for i, part in enumerate(lines) if "error:" in part), 0) :]
    if not lines or "error: " not in lines[-1]:
        return f"message: no error at the end of {err[-500:]!r}"
    others = [part for part in lines[:-1] if not re.search(_NOTES, part)]
    if others:
        return f"message: more than one line: {others}"
    wrong = _wrong_with_line(lines[-1], message, f"expected|{_ARGPARSE}")
    return wrong and f"message: {wrong}"


def judge_output(name: str, command: str, folder: Path) -> str | None:
    """Run a command that writes to a keepsake: its kind and mode stay, and the contents arrive."""
    kept = folder / name
    program, *words = shlex.split(f"{command} {name}")
    before = snapshot(folder)
    received: list[bytes] = []
    reader = threading.Thread(target=lambda: received.append(kept.read_bytes()), daemon=True)
    if kept.is_fifo():
        reader.start()
    ended, _, err = _run(program, words, folder)
    if kept.is_fifo():
        reader.join(SECONDS)
    elif kept.is_file():
        received.append(kept.read_bytes())
    if ended != 0:
        return f"code: {ended!r} ({err[-300:]!r})"
    after = snapshot(folder)
    target = Path(os.path.realpath(kept)).name
    others = [n for n in before if n not in (name, target) and after.get(n) != before[n]]
    # of a file the kind and the mode, of anything else all that is known
    length = 2 if stat.S_ISREG(before[name][0]) else None
    if others or after[name][:length] != before[name][:length]:
        return f"destroyed: {', '.join(others or [name])}: {before[name]} -> {after[name]}"
    if received and b"picture.png" not in received[0]:
        return f"message: {received[0][:300]!r} arrived"
    return None


def judge_process(
    words: Sequence[bytes | str], folder: Path, message: str, **environment: str
) -> str | None:
    """Result of `judge_command` in a process of its own, with other environment variables."""
    before = snapshot(folder)
    done = subprocess.run(
        [sys.executable, *words],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(ROOT), **environment},
        capture_output=True,
        timeout=60,
    )
    if snapshot(folder) != before:
        return "destroyed: something"
    err = done.stderr.decode(errors="replace")
    if "Traceback" in err:
        return f"traceback: {err[-500:]!r}"
    if done.returncode != 2:
        return f"code: {done.returncode} ({err[-300:]!r})"
    return _wrong_with_stderr(err, message)


def _run(program: str, words: Sequence[str], folder: Path) -> tuple[Any, str, str]:
    """Exit code, or the exception that a user would see; and what was printed."""
    out, err = io.StringIO(), io.StringIO()
    kept, here = sys.argv, Path.cwd()
    main = importlib.import_module(_PROGRAMS.get(program, program)).main
    try:
        os.chdir(folder)
        sys.argv = [program, *words]
        with (
            contextlib.redirect_stdout(out),
            contextlib.redirect_stderr(err),
            warnings.catch_warnings(),
            time_limit(),
        ):
            warnings.simplefilter("ignore")
            ended: Any = main() or 0
    except SystemExit as stop:
        ended = stop.code if isinstance(stop.code, int) else 1
        if isinstance(stop.code, str):
            err.write(stop.code)
    except (Exception, Late) as error:
        ended = error
    finally:
        os.chdir(here)
        sys.argv = kept
    return ended, out.getvalue(), err.getvalue()


_PROGRAMS = {"vlmreward": "vlmreward.cli"}
_NOTES = r"^skipped: |^loading .* \.\.\.$|\d+/\d+ \["
"""Lines before the error: an image that is left out, what is loaded, a bar."""
_ARGPARSE = r"\(choose from |are required: |unrecognized arguments: |not allowed with argument "
"""Wording by which argparse says what it expects."""
