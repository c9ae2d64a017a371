"""Files of a run: written whole or not at all, and by one process at a time."""

from __future__ import annotations

from vlmreward.output import replacing, write_atomically

__all__ = ["replacing", "write_atomically"]
