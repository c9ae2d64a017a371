"""Atomic writing of a run's files, and a lock that reserves its folder for one process."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import shutil
import socket
import sys
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path

from vlmreward.utils.output import replacing, write_atomically

__all__ = [
    "InUse",
    "link_or_copy",
    "locked",
    "replacing",
    "require_free",
    "write_atomically",
]

_NAME = "in-use.lock"
_FAR = 1 << 30
"""Position of the locked byte, beyond the end: Windows keeps others from reading locked bytes."""


def link_or_copy(source: Path, target: Path) -> None:
    """Give a file a second name, atomically; a copy where the file system has no links.

    Args:
        source: The file.
        target: The other name, which may be taken.

    Raises:
        OSError: The file cannot be written.
    """
    with replacing(target) as temporary:
        temporary.unlink()  # a link takes no name that is taken
        try:
            os.link(source, temporary)
        except OSError:
            shutil.copyfile(source, temporary)


class InUse(ValueError):
    """Error: another process works in the folder."""


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Context that reserves a folder for this process; its file ``in-use.lock`` names the process.

    The lock is the kernel's, on the open file: it ends with the process, however that ends. A file
    that is left over from a killed process locks nothing.

    Args:
        folder: An existing folder.

    Raises:
        InUse: Another process, or another thread of this one, holds the lock.
        OSError: The file cannot be made.
    """
    handle = _acquire(folder)
    try:
        since = datetime.now().astimezone().isoformat(sep=" ", timespec="seconds")
        who = {"pid": os.getpid(), "host": socket.gethostname(), "since": since}
        with contextlib.suppress(OSError):  # a full disk: the lock holds without the words
            os.ftruncate(handle, 0)
            os.lseek(handle, 0, os.SEEK_SET)
            os.write(handle, (json.dumps(who) + "\n").encode())
        yield
    finally:
        if sys.platform != "win32":  # which deletes no open file
            # while it is locked: who opens it from here on sees that it is another one by then
            (folder / _NAME).unlink(missing_ok=True)
        os.close(handle)


def require_free(folder: Path) -> None:
    """Check that `locked` would succeed now; nothing is made.

    Raises:
        InUse: Another process, or another thread of this one, holds the lock.
    """
    with contextlib.suppress(OSError):
        handle = os.open(folder / _NAME, os.O_RDWR)
        try:
            _lock(handle, folder)
        finally:
            os.close(handle)


def _acquire(folder: Path) -> int:
    """The open and locked file."""
    path, until = folder / _NAME, time.monotonic() + 0.5
    while True:
        handle = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
        try:
            _lock(handle, folder)
            with contextlib.suppress(FileNotFoundError):  # deleted by its owner in the meantime
                if os.path.samestat(os.fstat(handle), os.stat(path)):
                    return handle
        except BaseException as error:
            os.close(handle)
            if not isinstance(error, InUse) or time.monotonic() > until:
                raise
            time.sleep(0.05)  # it may be another process that only looks
        else:
            os.close(handle)


def _lock(handle: int, folder: Path) -> None:
    try:
        if sys.platform == "win32":
            import msvcrt

            os.lseek(handle, _FAR, os.SEEK_SET)
            msvcrt.locking(handle, msvcrt.LK_NBLCK, 1)
        else:
            import fcntl

            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        if error.errno in (errno.EWOULDBLOCK, errno.EACCES, errno.EDEADLK):
            raise InUse(
                f"received {folder}, in which another run is going on ({_holder(handle)}); "
                "expected a folder that no process works in; wait for it, stop it, or pass another "
                "--out"
            ) from None
        warnings.warn(
            f"{folder} cannot be locked ({error.strerror}): make sure that no other run uses it",
            stacklevel=4,
        )


def _holder(handle: int) -> str:
    try:
        os.lseek(handle, 0, os.SEEK_SET)
        who = json.loads(os.read(handle, 4096))
        return f"process {who['pid']} on {who['host']}, since {who['since']}"
    except (OSError, ValueError, KeyError, TypeError):
        return "which has just begun"
