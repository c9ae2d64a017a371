"""Messages of an example while its slow imports run: that it loads, and one line for Ctrl-C.

A missing package is reported in one line as well. Import this module before the slow ones.
"""

import contextlib
import multiprocessing
import sys
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType

from vlmreward.cli import process

REMEDY = "expected the packages of the examples: python -m pip install -e '.[examples]'"
"""Advice in the message about a missing module."""


@contextlib.contextmanager
def _naming_what_is_missing() -> Iterator[None]:
    """Context in which a missing module ends the process with a message of one line."""

    def hook(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
        missing: BaseException | None = error
        while missing and not isinstance(missing, ModuleNotFoundError):
            missing = missing.__cause__  # diffusers raises a RuntimeError in its place
        if missing:
            print(f"error: {missing}; {REMEDY}", file=sys.stderr)
        else:
            before(kind, error, trace)

    before, sys.excepthook = sys.excepthook, hook
    yield
    sys.excepthook = before


_loading = contextlib.ExitStack()
done = _loading.close
"""Function to call after the last slow import."""

# not where another program, such as a test or a worker, imports an example
_script = Path(sys.argv[0]).resolve()
_example = Path(__file__).resolve().parent in _script.parents and _script.suffix == ".py"
if _example and multiprocessing.parent_process() is None:
    _loading.enter_context(_naming_what_is_missing())
    _loading.enter_context(process.loading())
