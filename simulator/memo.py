"""What several simulations of one trace have in common is worked out once."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Hashable
from typing import Any

from ..workloads.trace import Trace


class Memo:
    """Keep the values that were built last, each under a key that names all it depends on.

    A model asks ``memo(key, build)`` for anything that does not depend on every field of its config (an encoding does
    not depend on the queue depth); a sweep hands the same memo to all its points. Whoever simulates owns it.
    """

    def __init__(self, size: int = 32) -> None:
        self._size = size
        self._values: OrderedDict[Hashable, Any] = OrderedDict()

    @classmethod
    def for_trace(cls, trace: Trace) -> Memo:
        """Return a memo that holds what a model keeps of every layer, and of a previous machine beside the present."""
        return cls(16 * len(trace.layers))

    def __call__(self, key: Hashable, build: Callable[[], Any]) -> Any:
        """Return the value under ``key``, made by ``build`` where it is not there; the least used one makes room."""
        if key in self._values:
            self._values.move_to_end(key)
            return self._values[key]
        value = self._values[key] = build()
        if len(self._values) > self._size:
            self._values.popitem(last=False)
        return value

    def clear(self) -> None:
        """Forget all values."""
        self._values.clear()
