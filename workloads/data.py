"""Data sets, split into training and test samples: what a recipe names under ``data``."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from .errors import InputError
from .extras import need


@dataclass(frozen=True, eq=False)
class Data:
    """Samples and their classes: inputs are float32 (samples, features) in [0, 1], labels int64 (samples,)."""

    train_inputs: np.ndarray
    train_labels: np.ndarray
    test_inputs: np.ndarray
    test_labels: np.ndarray


def digits(test_fraction: float, seed: int) -> Data:
    """Return scikit-learn's digits: 1,797 images of 8 x 8 pixels, 10 classes, every class split alike.

    Grey levels 0..16 become 0..1 by division alone: the empty pixels, half of all, stay exactly 0.
    """
    need("train", "sklearn")
    from sklearn.datasets import load_digits
    from sklearn.model_selection import train_test_split

    images, labels = load_digits(return_X_y=True)
    tested = test_fraction * len(labels)
    if not 10 <= tested <= len(labels) - 10:
        raise InputError(
            f"test_fraction must leave each of the 10 classes a sample to train on and one to test, not {test_fraction}"
        )
    inputs = (images / 16).astype(np.float32)
    train_x, test_x, train_y, test_y = train_test_split(
        inputs, labels.astype(np.int64), test_size=test_fraction, random_state=seed, stratify=labels
    )
    return Data(train_x, train_y, test_x, test_y)


DATA: dict[str, Callable[[float, int], Data]] = {"digits": digits}


def load_data(name: str, *, test_fraction: float = 0.2, seed: int = 0) -> Data:
    """Return the data set ``name``, split by ``seed``. Raises InputError that lists the known ones."""
    if name not in DATA:
        raise InputError(f"unknown data {name!r}; known: {', '.join(DATA)}")
    return DATA[name](test_fraction, seed)
