"""The data sets by name."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from ..checks import whole
from ..errors import InputError
from .cad import cad_clouds
from .cifar import cifar10
from .digits import digits, digits_images, digits_rows
from .mnist import fashion_mnist, mnist
from .mnist1d import mnist1d
from .samples import Data

SPLIT: dict[str, Callable[[float, int], Data]] = {
    "digits": digits,
    "digits-images": digits_images,
    "digits-rows": digits_rows,
    "mnist1d": mnist1d,
    "cad": cad_clouds,
}
"""Those that are at hand, and split on demand."""
FOLDERS: dict[str, Callable[[Path], Data]] = {"mnist": mnist, "fashion-mnist": fashion_mnist, "cifar-10": cifar10}
"""Those in a folder that the user has, and split as they were published."""
DATA: dict[str, Callable[..., Data]] = {**SPLIT, **FOLDERS}


def load_data(name: str, *, test_fraction: float = 0.2, seed: int = 0, folder: str | Path | None = None) -> Data:
    """Return the data set ``name``, split by ``seed``, or, of those in a ``folder``, as it was published.

    ``test_fraction`` and ``seed`` say nothing to the latter. Raises InputError that lists the known ones, or the files
    that the folder must hold.
    """
    if name not in DATA:
        raise InputError(f"unknown data {name!r}; known: {', '.join(DATA)}")
    if name in SPLIT:
        if folder is not None:
            raise InputError(f"data {name} comes with the package and takes no folder, and was given {folder}")
        return SPLIT[name](test_fraction, whole(seed, "seed", 0, 2**32 - 1))
    if folder is None:
        raise InputError(f"data {name} must come from a folder of yours, and none was given; give one as data_folder")
    return FOLDERS[name](Path(folder))
