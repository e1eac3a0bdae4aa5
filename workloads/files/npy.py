"""numpy's own files, .npy and .npz, without pickle and without believing what a header claims."""

from __future__ import annotations

import io
import zipfile
from math import prod
from pathlib import Path

import numpy as np

from ..errors import InputError
from .container import one_line, read_bytes

UNPACKED_LIMIT = 2**30  # bytes of an .npz that is small: a few kilobytes can claim to hold gigabytes
PACKED_BY = 100  # a larger .npz may unpack to so many times its size; weights of which 98 % are pruned come to 40
METHODS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)  # what numpy writes; others name the memory that they want


def read_npz(path: Path) -> dict[str, np.ndarray]:
    """Return the arrays of the .npz file at ``path`` by name. Raises InputError."""
    data = read_bytes(path, "an .npz file")
    arrays = {}
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            members = archive.infolist()
            _check_sizes(members, len(data))
            for member in members:
                name = member.filename.removesuffix(".npy")
                if name in arrays:
                    raise ValueError(f"names must differ, and {name!r} occurs twice")
                arrays[name] = _parse(archive.read(member))
    except Exception as error:  # zipfile, zlib and numpy raise whatever the damage leads them into
        raise InputError(
            f"{path}: the file must be a whole .npz archive of plain arrays, and is not "
            f"({one_line(error) or type(error).__name__}); write it again"
        ) from None
    return arrays


def _check_sizes(members: list[zipfile.ZipInfo], size: int) -> None:
    """Raise ValueError unless ``members`` of an archive of ``size`` bytes unpack to no more than it can well hold.

    What a member claims bounds what is unpacked of it.
    """
    unpacked, limit = sum(member.file_size for member in members), max(UNPACKED_LIMIT, PACKED_BY * size)
    if unpacked > limit:
        raise ValueError(f"its {size:,} bytes may unpack to {limit:,}, not to {unpacked:,}")
    for member in members:
        if member.compress_type not in METHODS:
            raise ValueError(f"members must be stored or deflated, not packed by method {member.compress_type}")


def read_npy(path: Path) -> np.ndarray:
    """Return the array of the .npy file at ``path``. Raises InputError."""
    data = read_bytes(path, "an .npy file")
    try:
        return _parse(data)
    except Exception as error:  # numpy's parser of headers raises whatever the damage leads it into
        raise InputError(
            f"{path}: the file must be a whole .npy file of plain numbers, and is not "
            f"({one_line(error) or type(error).__name__}); write it again"
        ) from None


def _parse(data: bytes) -> np.ndarray:
    """Return the array in ``data``, an .npy file; nothing is allocated beyond it and nothing unpickled."""
    file = io.BytesIO(data)
    version = np.lib.format.read_magic(file)
    read_header = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}
    if version not in read_header:
        raise ValueError(f".npy version must be 1.0 or 2.0, not {version}")
    shape, is_fortran, dtype = read_header[version](file)
    if dtype.hasobject or dtype.kind not in "biufc":
        raise ValueError(f"arrays must hold plain numbers, not {dtype}")
    if min(shape, default=0) < 0 or prod(shape) * dtype.itemsize != len(data) - file.tell():
        raise ValueError(f"shape {shape} of {dtype} must take the {len(data) - file.tell()} bytes there are")
    flat = np.frombuffer(data, dtype, offset=file.tell())
    return flat.reshape(shape[::-1]).T if is_fortran else flat.reshape(shape)
