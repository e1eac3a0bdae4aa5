"""Samples and their classes, and how a set of them is split in two."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ..errors import InputError


@dataclass(frozen=True, eq=False)
class Data:
    """Samples and their classes: inputs are float32 (samples, ...), labels int64 (samples,) from 0.

    A sample is (features,), (steps, features) or (channels, height, width).
    """

    train_inputs: np.ndarray
    train_labels: np.ndarray
    test_inputs: np.ndarray
    test_labels: np.ndarray

    @property
    def shape(self) -> tuple[int, ...]:
        """Return the shape of one sample."""
        return self.train_inputs.shape[1:]

    @property
    def classes(self) -> int:
        """Count the classes: the largest label and those below it."""
        return int(max(self.train_labels.max(), self.test_labels.max())) + 1


def check_fraction(test_fraction: float, samples: int) -> None:
    """Raise InputError unless both parts of ``samples`` can hold one of each of 10 classes."""
    tested = test_fraction * samples
    if not 10 <= tested <= samples - 10:
        raise InputError(
            f"test_fraction must leave each of the 10 classes a sample to train on and one to test, not {test_fraction}"
        )
