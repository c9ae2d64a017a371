"""A small LRU cache."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable
from typing import TypeVar, cast

__all__ = []

_Made = TypeVar("_Made")


class _LRUCache:
    """Thread-safe cache of results by key, which discards the least recently used.

    A copy of the cache is empty.
    """

    def __init__(self, size: int) -> None:
        self.size = size
        self.kept: OrderedDict[Hashable, object] = OrderedDict()
        self.lock = threading.Lock()

    def __reduce__(self) -> tuple[type[_LRUCache], tuple[int]]:
        return type(self), (self.size,)

    def get_or_create(self, key: Hashable, make: Callable[[], _Made]) -> _Made:
        with self.lock:
            if key in self.kept:
                self.kept.move_to_end(key)
                return cast(_Made, self.kept[key])
        made = make()  # without the lock: it takes long, and may ask for something else
        with self.lock:
            made = cast(_Made, self.kept.setdefault(key, made))
            self.kept.move_to_end(key)
            if len(self.kept) > self.size:
                self.kept.popitem(last=False)
        return made
