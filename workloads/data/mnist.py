"""MNIST and FashionMNIST from a folder of the user's: the four IDX files as they are published, packed or not."""

from __future__ import annotations

import gzip
import io
import zlib
from math import prod
from pathlib import Path

import numpy as np

from ..errors import InputError
from ..files.container import one_line, read_bytes
from .samples import Data

UNPACKED_LIMIT = 2**28  # bytes of a file; the largest published one has 47,040,016
STEMS = ("train-images-idx3-ubyte", "train-labels-idx1-ubyte", "t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte")


def mnist(folder: Path) -> Data:
    """Return MNIST: images (1, 28, 28) with grey levels 0..1, the published 60,000 to train on and 10,000 to test.

    ``folder`` holds its files; so may ``raw`` or ``MNIST/raw`` in it, where torchvision puts them.
    """
    return load_idx(folder, "mnist", "MNIST")


def fashion_mnist(folder: Path) -> Data:
    """Return FashionMNIST: clothes in place of digits, in the same files as MNIST; torchvision's folder works too."""
    return load_idx(folder, "fashion-mnist", "FashionMNIST")


def load_idx(folder: Path, name: str, title: str) -> Data:
    """Return the data in the four IDX files of ``folder``; raises InputError naming the file, or those expected."""
    places = (folder, folder / "raw", folder / title / "raw")
    found = next((there for place in places if len(there := _find(place)) == len(STEMS)), None)
    if found is None:
        raise InputError(
            f"{folder}: the folder of {name} must hold {', '.join(STEMS)}, each as it is or as .gz, and does not; "
            "give the folder that does"
        )
    train, test = _pair(found[0], found[1]), _pair(found[2], found[3])
    if train[0].shape[1:] != test[0].shape[1:] or 0 in train[0].shape:
        raise InputError(
            f"{found[2]}: images must be as large as those to train on, {train[0].shape[2:]}, with no side 0, "
            f"not {test[0].shape[2:]}; copy the files again"
        )
    return Data(*train, *test)


def read_idx(path: Path, dimensions: int) -> np.ndarray:
    """Return the bytes in an IDX file, packed where its name ends in .gz, as an array of so many dimensions.

    Raises InputError. Source: the description of the format at the site of MNIST, LeCun et al.
    """
    data = read_bytes(path, "an IDX file")
    if path.suffix == ".gz":
        try:
            with gzip.open(io.BytesIO(data)) as file:
                data = file.read(UNPACKED_LIMIT + 1)
        except (OSError, EOFError, zlib.error) as error:
            raise InputError(f"{path}: the file must be packed by gzip, and {one_line(error)}; copy it again") from None
        if len(data) > UNPACKED_LIMIT:
            raise InputError(f"{path}: the file must unpack to at most {UNPACKED_LIMIT:,} bytes, and has more")
    magic = bytes([0, 0, 8, dimensions])  # 8: unsigned bytes
    if data[:4] != magic:
        raise InputError(f"{path}: an IDX file of bytes must begin with {magic.hex()}, not {data[:4].hex()!r}")
    begin = 4 + 4 * dimensions
    if len(data) < begin:
        raise InputError(f"{path}: the head of the file must take {begin} bytes, not {len(data)}; copy it again")
    shape = tuple(int(side) for side in np.frombuffer(data[4:begin], ">u4"))
    if len(data) - begin != prod(shape):
        raise InputError(
            f"{path}: the file must hold {'x'.join(map(str, shape))} bytes behind its head, not {len(data) - begin}; "
            "copy it again"
        )
    return np.frombuffer(data, np.uint8, offset=begin).reshape(shape)


def _pair(images: Path, labels: Path) -> tuple[np.ndarray, np.ndarray]:
    """Return the images in one file, float32 (count, 1, height, width), and their labels in another."""
    grey, classes = read_idx(images, 3), read_idx(labels, 1)
    if len(grey) != len(classes) or len(grey) == 0:
        raise InputError(
            f"{labels}: there must be a label for each of the {len(grey)} images, not {len(classes)}; "
            "copy the files again"
        )
    return grey[:, None] / np.float32(255), classes.astype(np.int64)


def _find(folder: Path) -> list[Path]:
    """Return the files of the stems that there are; some copies write train-images.idx3-ubyte."""
    found = []
    for stem in STEMS:
        dotted = stem.replace("-idx", ".idx")
        names = (stem, f"{stem}.gz", dotted, f"{dotted}.gz")
        found += [folder / name for name in names if (folder / name).is_file()][:1]
    return found
