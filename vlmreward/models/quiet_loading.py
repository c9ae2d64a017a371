"""Loading by other libraries: one model at a time, without their noise."""

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
    """Without some messages of transformers, diffusers and bitsandbytes, on import above all.

    Their loggers keep their levels and handlers; nothing stays changed behind it.
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
    """For loading a model by transformers or diffusers: one at a time, and quietly.

    Both change global state while they load, so that in a model that is loaded by another thread
    tied weights may be neither tied nor found.

    Args:
        weights: bytes that are loaded, if known. Below 2 GiB the bar "Loading weights" is left out;
            from there on it is shown on a terminal. Bars of downloads are shown in any case.
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
