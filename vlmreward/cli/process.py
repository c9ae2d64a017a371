"""Process-level parts of a command: output streams, Ctrl-C during imports, the device."""

from __future__ import annotations

import os
import signal
import sys
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

__all__ = ["INTERRUPTED", "loading", "out_of_memory", "speaking", "usable_device"]

INTERRUPTED = 130
"""Exit code after Ctrl-C, as shells give it."""


@contextmanager
def speaking() -> Iterator[None]:
    """Context around a command: its streams print any text, and each warning is one line.

    Characters that standard output and error cannot encode become escapes. It is a decorator of
    ``main`` too.
    """
    for stream in (sys.stdout, sys.stderr):
        reconfigure = getattr(stream, "reconfigure", None)
        if reconfigure is not None:
            reconfigure(errors="backslashreplace")

    def one_line(
        message: Warning | str,
        category: type[Warning],
        filename: str,
        lineno: int,
        line: str | None = None,
    ) -> str:
        return f"warning: {' '.join(str(message).split())}\n"

    formatted = warnings.formatwarning
    warnings.formatwarning = one_line
    try:
        yield
    finally:
        warnings.formatwarning = formatted


@contextmanager
def loading(what: str = "torch and models' libraries") -> Iterator[None]:
    """Context around the first import of torch and other slow imports: a message, and Ctrl-C.

    Python code that is interrupted during an import leaves a traceback, and code that catches the
    interrupt may go on without the module; so Ctrl-C ends the process here, with one line.

    Args:
        what: name of what is loaded, for the message.
    """
    if "torch" in sys.modules:
        yield
        return

    def stop(number: int, frame: FrameType | None) -> None:
        os.write(2, b"\nstopped\n")
        os._exit(INTERRUPTED)

    main = threading.current_thread() is threading.main_thread()
    previous = signal.signal(signal.SIGINT, stop) if main else None
    try:
        print(f"loading {what} ...", file=sys.stderr, flush=True)
        yield
    finally:
        if main:
            signal.signal(signal.SIGINT, previous)


def usable_device(name: str, option: str = "--device") -> str:
    """The name of a device of torch, checked to exist on this machine.

    Args:
        name: "cpu", "cuda", "cuda:1" and the like.
        option: name of the option that the device was given by, for the message.

    Raises:
        ValueError: torch does not know the device, or this machine does not have it.
    """
    import torch

    remedy = f"pass {option} cpu, or leave it out"
    try:
        device = torch.device(name)
    except (RuntimeError, ValueError):
        device = torch.device("meta")
    if device.type == "meta":  # tensors without values
        raise ValueError(f"received {option} {name!r}; expected cpu, cuda or cuda:N; {remedy}")
    if device.type == "cuda":
        count = torch.cuda.device_count() if torch.cuda.is_available() else 0
        if (device.index or 0) >= count:
            seen = "no GPU" if count == 0 else f"{count} GPU{'s' if count > 1 else ''}, from cuda:0"
            raise ValueError(
                f"received {option} {name!r}, but torch sees {seen}; expected a device of this "
                f"machine; {remedy}"
            )
    elif device.type != "cpu":
        try:
            torch.ones(1, device=device).sum().item()
        # torch's kinds of devices fail in as many ways
        except (RuntimeError, AssertionError, ImportError, NotImplementedError):
            raise ValueError(
                f"received {option} {name!r}, on which torch cannot compute here; expected a "
                f"device of this machine; {remedy}"
            ) from None
    return name


def out_of_memory(error: BaseException) -> bool:
    """True if an error says that no memory is left, on a GPU or on the host."""
    if isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError":
        return True
    return isinstance(error, RuntimeError) and "not enough memory" in str(error)
