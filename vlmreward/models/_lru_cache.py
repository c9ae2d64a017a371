"""A small LRU cache."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable
from typing import Any

__all__ = []


class _LRUCache:
    """Results by key, for several threads; forgets what was not asked for longest.

    A copy begins empty.
    """

    def __init__(self, size: int) -> None:
        self.size = size
        self.kept: OrderedDict[Any, Any] = OrderedDict()
        self.lock = threading.Lock()

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.size,)

    def get_or_create(self, key: Any, make: Callable[[], Any]) -> Any:
        with self.lock:
            if key in self.kept:
                self.kept.move_to_end(key)
                return self.kept[key]
        made = make()  # without the lock: it takes long, and may ask for something else
        with self.lock:
            made = self.kept.setdefault(key, made)
            self.kept.move_to_end(key)
            if len(self.kept) > self.size:
                self.kept.popitem(last=False)
        return made
