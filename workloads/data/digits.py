"""Handwritten digits of 8 x 8 pixels, which scikit-learn brings along."""

from __future__ import annotations

import numpy as np

from ..extras import need
from .samples import Data, check_fraction


def digits(test_fraction: float, seed: int) -> Data:
    """Return scikit-learn's digits: 1,797 images of 8 x 8 pixels as 64 numbers, 10 classes, every class split alike.

    Grey levels 0..16 become 0..1 by division alone: the empty pixels, half of all, stay exactly 0.
    """
    need("train", "sklearn")
    from sklearn.datasets import load_digits
    from sklearn.model_selection import train_test_split

    images, labels = load_digits(return_X_y=True)
    check_fraction(test_fraction, len(labels))
    inputs = (images / 16).astype(np.float32)
    train_x, test_x, train_y, test_y = train_test_split(
        inputs, labels.astype(np.int64), test_size=test_fraction, random_state=seed, stratify=labels
    )
    return Data(train_x, train_y, test_x, test_y)


def digits_images(test_fraction: float, seed: int) -> Data:
    """Return the digits, split as `digits` are, as images (1, 8, 8)."""
    return _shaped(digits(test_fraction, seed), (1, 8, 8))


def digits_rows(test_fraction: float, seed: int) -> Data:
    """Return the digits, split as `digits` are, as sequences (8, 8): the rows from top to bottom."""
    return _shaped(digits(test_fraction, seed), (8, 8))


def _shaped(data: Data, shape: tuple[int, ...]) -> Data:
    return Data(
        data.train_inputs.reshape(-1, *shape),
        data.train_labels,
        data.test_inputs.reshape(-1, *shape),
        data.test_labels,
    )
