"""Samples and their classes, and how a set of them is split in two."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ..errors import InputError


@dataclass(frozen=True, eq=False)
class Data:
    """Samples and their classes: inputs are float32 (samples, ...), labels int64 (samples,) from 0.

    A sample is (features,), (steps, features), (channels, height, width) or (points, 3).
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


def check_fraction(test_fraction: float, samples: int, classes: int = 10) -> None:
    """Raise InputError unless both parts of ``samples`` can hold one of each of the ``classes``."""
    tested = test_fraction * samples
    if not classes <= tested <= samples - classes:
        raise InputError(
            f"test_fraction must leave each of the {classes} classes a sample to train on and one to test, "
            f"not {test_fraction}"
        )
