"""Imported before what takes seconds: an example says at once that it loads, and answers Ctrl-C."""

import contextlib
import multiprocessing
import sys
from pathlib import Path

from vlmreward.cli import process

_loading = contextlib.ExitStack()
done = _loading.close
"""To be called when all is imported."""

# not where another program, such as a test or a worker, imports an example
_script = Path(sys.argv[0]).resolve()
_example = _script.parent == Path(__file__).resolve().parent and _script.suffix == ".py"
if _example and multiprocessing.parent_process() is None:
    _loading.enter_context(process.loading())
