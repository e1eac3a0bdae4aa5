"""Batches in an order that depends on seed, particle and epoch alone: of arrays, or of a loader of the user's."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import torch

from ..errors import InputError

Batch = tuple[torch.Tensor, torch.Tensor]

GATHERED = 64  # batches that are shuffled at a time: one gather is cheaper than many, and bounds the memory


class Batches(Protocol):
    """Batches of (inputs, labels) to train on; ``len`` is their number in an epoch."""

    def __len__(self) -> int: ...

    def epoch(self, seed: int, particle: int, epoch: int) -> Iterator[Batch]:
        """Return the batches of one epoch, the same each time for the same numbers."""
        ...


@dataclass(frozen=True, eq=False)
class ArrayBatches:
    """Shuffled batches of arrays held in memory; the last one of an epoch may be smaller."""

    inputs: torch.Tensor
    labels: torch.Tensor
    batch_size: int

    def __len__(self) -> int:
        return math.ceil(len(self.inputs) / self.batch_size)

    def epoch(self, seed: int, particle: int, epoch: int) -> Iterator[Batch]:
        """Yield every sample once. Particle 0 has the order that a run without particles has."""
        # Trailing zeros do not change what numpy makes of a seed.
        order = np.random.default_rng((seed, epoch, particle)).permutation(len(self.inputs))
        index = torch.from_numpy(order).to(self.inputs.device)
        for chunk in torch.split(index, self.batch_size * GATHERED):
            yield from self._cut(self.inputs[chunk], self.labels[chunk])

    def in_order(self) -> Iterator[Batch]:
        """Yield every sample once, as they come."""
        return self._cut(self.inputs, self.labels)

    def _cut(self, inputs: torch.Tensor, labels: torch.Tensor) -> Iterator[Batch]:
        return zip(torch.split(inputs, self.batch_size), torch.split(labels, self.batch_size), strict=True)


@dataclass(frozen=True, eq=False)
class LoaderBatches:
    """The batches of any iterable that can be gone through again, as torch's DataLoader; ``size`` of them.

    The generators of the loader and its sampler, where they have one, are seeded before each pass as torch's own is, so
    that what the loader draws depends on seed, particle and epoch; what other generators draw is beyond this.
    """

    loader: Iterable[Any]
    size: int
    device: str = "cpu"

    @classmethod
    def of(cls, loader: Iterable[Any], device: str, what: str) -> LoaderBatches:
        """Return the batches of ``loader``, counted. Raises InputError, naming ``what``, for one that has none."""
        try:
            size = len(loader)  # type: ignore[arg-type]
        except TypeError:
            with _seeded(loader, 0):
                size = 0 if isinstance(loader, Iterator) else sum(1 for _ in loader)
        if size == 0:
            raise InputError(f"{what} must be an iterable of (inputs, labels) that can be gone through again and again")
        return cls(loader, size, device)

    def __len__(self) -> int:
        return self.size

    def epoch(self, seed: int, particle: int, epoch: int) -> Iterator[Batch]:
        """Yield what the loader does, on the device. torch's own generator is seeded by the caller."""
        with _seeded(self.loader, mixed(seed, particle, epoch)):
            for batch in self.loader:
                try:
                    inputs, labels = (torch.as_tensor(each) for each in batch)
                except (TypeError, ValueError, RuntimeError):
                    raise InputError(
                        f"a loader must give pairs (inputs, labels) of arrays, not {type(batch).__name__}"
                    ) from None
                yield inputs.to(self.device), labels.to(self.device)


def mixed(*numbers: int) -> int:
    """Return one seed of several numbers."""
    return int(np.random.SeedSequence(numbers).generate_state(1, np.uint64)[0] >> np.uint64(1))


@contextmanager
def _seeded(loader: Iterable[Any], number: int) -> Iterator[None]:
    """Seed the generators that the loader and its sampler hold, and put them back as they were."""
    holders = (loader, getattr(loader, "sampler", None))
    found = {id(g): g for g in (getattr(holder, "generator", None) for holder in holders)}
    generators = [generator for generator in found.values() if isinstance(generator, torch.Generator)]
    before = [generator.get_state() for generator in generators]
    for generator in generators:
        generator.manual_seed(number)
    try:
        yield
    finally:
        for generator, state in zip(generators, before, strict=True):
            generator.set_state(state)
