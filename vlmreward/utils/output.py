"""Atomic writing of files: a reader sees the old or the new contents, never a part."""

from __future__ import annotations

import contextlib
import errno
import os
import re
import secrets
import shutil
import stat
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

__all__ = ["replacing", "require_writable", "write_atomically"]

_DESCRIPTORS = re.compile(r"/dev/fd|/proc/(self|thread-self|\d+)(/task/\d+)?/fd")


@contextmanager
def replacing(path: str | os.PathLike[str]) -> Iterator[Path]:
    """A temporary path, with the suffix of ``path``, whose contents go to ``path`` on success.

    A new or regular file is replaced as a whole: its data are on the disk before the name changes,
    so even after a crash ``path`` is either the old file or the whole new one. Its mode is kept,
    its owner too where this process may set it. A symbolic link stays, and its target is written;
    another hard link keeps the old contents. A device, a pipe, an open descriptor such as
    /dev/stdout, and a regular file in a folder that cannot be written are written themselves, once
    all data are known.

    Args:
        path: the file.

    Raises:
        OSError: the file cannot be written; the file and its folder are unchanged.
    """
    path = Path(path)
    require_writable(path)
    known = _status(path)
    if _descriptor(path) is not None or not _replaceable(path, known):
        with tempfile.TemporaryDirectory() as folder:
            draft = Path(folder, f"draft{path.suffix}")
            yield draft
            with draft.open("rb") as source, _opened(path) as sink:
                shutil.copyfileobj(source, sink)
        return
    target = Path(os.path.realpath(path))
    draft = target.with_name(f".{path.stem[:40]}-{secrets.token_hex(4)}.partial{path.suffix}")
    try:
        _create_like(draft, known)
        yield draft
        with draft.open("rb") as file:
            os.fsync(file.fileno())
        os.replace(draft, target)
    finally:
        draft.unlink(missing_ok=True)
    with contextlib.suppress(OSError):  # systems on which a folder cannot be opened or synchronized
        folder_handle = os.open(target.parent, os.O_RDONLY)
        try:
            os.fsync(folder_handle)
        finally:
            os.close(folder_handle)


def write_atomically(path: str | os.PathLike[str], data: bytes | str) -> None:
    """Write a whole file at once: readers see the old contents or the new ones, never a part.

    The contents go into a temporary file in the same folder, which then takes the name; see
    ``replacing``.

    Args:
        path: the file.
        data: bytes; or text, which is written as UTF-8, without translation of line ends. Lone
            surrogates, which stand for bytes of file names that are not UTF-8, are written as
            escapes, the form in which JSON reads them back.

    Raises:
        OSError: the file cannot be written.
    """
    encoded = data.encode(errors="backslashreplace") if isinstance(data, str) else data
    with replacing(path) as draft:
        draft.write_bytes(encoded)


def require_writable(path: str | os.PathLike[str]) -> None:
    """Check that a file can be written, before the work begins; nothing is opened or made.

    Args:
        path: the file, existing or not.

    Raises:
        OSError: the file cannot be written: a folder, a missing folder, missing permission.
    """
    path = Path(path)
    known = _status(path)
    if known is None:
        folder = Path(os.path.realpath(path)).parent if path.is_symlink() else path.parent
        if not folder.is_dir():
            raise FileNotFoundError(errno.ENOENT, f"there is no folder {folder}", str(path))
        if not os.access(folder, os.W_OK | os.X_OK):
            raise PermissionError(errno.EACCES, f"the folder {folder} is read-only", str(path))
    elif stat.S_ISDIR(known.st_mode):
        raise IsADirectoryError(errno.EISDIR, "it is a folder", str(path))
    elif _descriptor(path) is None and not os.access(path, os.W_OK):
        raise PermissionError(errno.EACCES, "permission denied", str(path))


def _status(path: Path) -> os.stat_result | None:
    """Status of the file that a path leads to; None if there is none yet."""
    try:
        return os.stat(path)
    except FileNotFoundError:
        return None


def _replaceable(path: Path, known: os.stat_result | None) -> bool:
    if known is None:
        return True
    folder = Path(os.path.realpath(path)).parent
    return stat.S_ISREG(known.st_mode) and os.access(folder, os.W_OK | os.X_OK)


def _descriptor(path: Path) -> int | None:
    """The number of the open descriptor of this process that a path such as /dev/stdout is.

    Its own name must not be replaced: what a shell has redirected is the open file.
    """
    for _ in range(40):  # links
        folder = os.path.realpath(path.parent)
        if _DESCRIPTORS.fullmatch(folder) and path.name.isdecimal():
            own = {"/dev/fd", "/proc/self/fd", f"/proc/{os.getpid()}/fd"}
            return int(path.name) if folder in own else None
        if not path.is_symlink():
            return None
        path = path.parent / os.readlink(path)
    return None


def _opened(path: Path) -> BinaryIO:
    """The file itself, opened for writing from its beginning."""
    descriptor = _descriptor(path)
    if descriptor is None:
        # without O_CREAT: a pipe that is gone is no new file
        return os.fdopen(os.open(path, os.O_WRONLY | os.O_TRUNC), "wb")
    for stream in (sys.stdout, sys.stderr):
        if stream is not None:  # closed by the caller
            stream.flush()  # what was said before comes before
    return os.fdopen(os.dup(descriptor), "wb")


def _create_like(draft: Path, known: os.stat_result | None) -> None:
    """Create an empty file with the owner and mode of the file that it will replace."""
    handle = os.open(draft, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o666)
    os.close(handle)
    if known is None:
        return
    if hasattr(os, "chown"):
        with contextlib.suppress(PermissionError):
            os.chown(draft, known.st_uid, known.st_gid)
    os.chmod(draft, stat.S_IMODE(known.st_mode))
