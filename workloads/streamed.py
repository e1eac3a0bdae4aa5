"""Layers that stay in their file: each is read when it is asked for, and not kept."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import overload

from .layer import Layer


class StreamedLayers(Sequence[Layer]):
    """The layers of a trace larger than one would keep in memory: ``load`` makes the one at an index, every time anew.

    ``names`` are known without reading any. Whoever goes through the layers holds one at a time, as long as it lets go
    of each before it takes the next.
    """

    def __init__(self, names: Sequence[str], load: Callable[[int], Layer]) -> None:
        self.names = tuple(names)
        self._load = load

    def __len__(self) -> int:
        return len(self.names)

    @overload
    def __getitem__(self, index: int) -> Layer: ...
    @overload
    def __getitem__(self, index: slice) -> tuple[Layer, ...]: ...
    def __getitem__(self, index: int | slice) -> Layer | tuple[Layer, ...]:
        if isinstance(index, slice):
            return tuple(self._load(each) for each in range(len(self))[index])
        return self._load(range(len(self))[index])

    def __iter__(self) -> Iterator[Layer]:
        for index in range(len(self)):
            yield self._load(index)
