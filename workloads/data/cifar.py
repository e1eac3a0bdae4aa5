"""CIFAR-10 from a folder of the user's, in its binary version: no pickle is ever opened."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from ..errors import InputError
from ..files.container import read_bytes
from .samples import Data

SIDE, CLASSES = 32, 10
RECORD = 1 + 3 * SIDE * SIDE  # a label, then red, green and blue, each row by row
TRAIN = tuple(f"data_batch_{i}.bin" for i in range(1, 6))
TEST = "test_batch.bin"


def cifar10(folder: Path) -> Data:
    """Return CIFAR-10: images (3, 32, 32), the published 50,000 to train on and 10,000 to test.

    Each colour has mean 0 and deviation 1 over the training images. ``folder`` holds the files of the binary version;
    so may ``cifar-10-batches-bin`` in it. Raises InputError naming the file, or those expected.
    Source: Krizhevsky, Learning Multiple Layers of Features from Tiny Images, 2009.
    """
    names = (*TRAIN, TEST)
    places = (folder, folder / "cifar-10-batches-bin")
    place = next((p for p in places if all((p / name).is_file() for name in names)), None)
    if place is None:
        pickled = any((p / "data_batch_1").is_file() for p in (folder, folder / "cifar-10-batches-py"))
        rule = "the binary version is needed, and this is the one for Python, which is pickled; " if pickled else ""
        raise InputError(
            f"{folder}: the folder of cifar-10 must hold {', '.join(names)}, and does not; {rule}"
            "unpack cifar-10-binary.tar.gz and give its folder"
        )
    train = [_read(place / name) for name in TRAIN]
    images, labels = (np.concatenate([batch[i] for batch in train]) for i in (0, 1))
    test_images, test_labels = _read(place / TEST)
    mean = images.mean(axis=(0, 2, 3), dtype=np.float64, keepdims=True)
    deviation = np.maximum(images.std(axis=(0, 2, 3), dtype=np.float64, keepdims=True), 1e-6)
    inputs = [((each - mean.astype(np.float32)) / deviation.astype(np.float32)) for each in (images, test_images)]
    return Data(inputs[0], labels, inputs[1], test_labels)


def _read(path: Path) -> tuple[np.ndarray, np.ndarray]:
    """Return the images, float32 (count, 3, 32, 32) in 0..255, and labels in one file."""
    data = read_bytes(path, "a batch of cifar-10")
    if len(data) == 0 or len(data) % RECORD:
        raise InputError(f"{path}: the file must hold whole records of {RECORD} bytes, not {len(data)}; copy it again")
    records = np.frombuffer(data, np.uint8).reshape(-1, RECORD)
    labels = records[:, 0].astype(np.int64)
    if labels.max() >= CLASSES:
        raise InputError(f"{path}: labels must be below {CLASSES}, not {labels.max()}; copy the file again")
    return records[:, 1:].reshape(-1, 3, SIDE, SIDE).astype(np.float32), labels
