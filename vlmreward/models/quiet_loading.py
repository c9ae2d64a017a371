"""Contexts for loading models by other libraries: one at a time, without their log messages."""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterator
from contextlib import contextmanager

from transformers.utils import logging as transformers_logging

__all__ = ["loading", "quiet"]

_LARGE = 2**31
"""Bytes of weights from which on the progress of loading is shown on a terminal."""
_NOISE = (
    ("transformers.modeling_utils", "LOAD REPORT"),  # becomes an error here
    ("diffusers.models.modeling_utils", "Some weights of"),  # likewise
    ("diffusers.models.modeling_utils", "An error occurred while trying to fetch"),  # likewise
    ("transformers.image_utils", "The channel dimension is ambiguous"),  # it is the first one here
    # bitsandbytes, which diffusers imports, wants a package that nothing here needs
    ("bitsandbytes.backends.cpu.ops", "Failed to load CPU gemm_4bit_forward"),
)
"""Messages of other libraries that say nothing to a user of this one, with their loggers."""
_LOADING = threading.RLock()


class _DropMessages(logging.Filter):
    """Drops the messages that hold a text."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.text = text

    def filter(self, record: logging.LogRecord) -> bool:
        return self.text not in record.getMessage()


@contextmanager
def quiet() -> Iterator[None]:
    """Context that drops some log messages of transformers, diffusers and bitsandbytes.

    The loggers keep their levels and handlers, and nothing stays changed afterwards.
    """
    filters = [(logging.getLogger(name), _DropMessages(text)) for name, text in _NOISE]
    for logger, one in filters:
        logger.addFilter(one)
    try:
        yield
    finally:
        for logger, one in filters:
            logger.removeFilter(one)


@contextmanager
def loading(weights: int | None = None) -> Iterator[None]:
    """Context for loading a model by transformers or diffusers: one at a time, and quietly.

    Both libraries change global state while they load, so that a model that another thread loads
    at the same time could lack its tied weights.

    Args:
        weights: size of the weights in bytes; None if unknown. Below 2 GiB the bar "Loading
            weights" is left out; from 2 GiB on it is shown on a terminal. Download bars are always
            shown.
    """
    hidden = {"disable": True if weights is not None and weights < _LARGE else None}
    with _LOADING, quiet():
        before = transformers_logging.set_tqdm_hook(
            lambda make, arguments, options: make(*arguments, **{**options, **hidden})
        )
        try:
            yield
        finally:
            transformers_logging.set_tqdm_hook(before)
