"""numpy's own files, .npy and .npz, without pickle and without believing what a header claims."""

from __future__ import annotations

import io
import zipfile
from math import prod
from pathlib import Path

import numpy as np

from ..errors import InputError
from .container import one_line, read_bytes

BYTES_LIMIT = 2**34  # of one array in an .npz, which its header only claims


def read_npz(path: Path) -> dict[str, np.ndarray]:
    """Return the arrays of the .npz file at ``path`` by name. Raises InputError."""
    data = read_bytes(path, "an .npz file")
    arrays = {}
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            for member in archive.infolist():
                if member.file_size > BYTES_LIMIT:
                    raise ValueError(f"{member.filename} must have at most {BYTES_LIMIT} bytes, not {member.file_size}")
                arrays[member.filename.removesuffix(".npy")] = _parse(archive.read(member))
    except Exception as error:  # zipfile, zlib and numpy raise whatever the damage leads them into
        raise InputError(
            f"{path}: the file must be a whole .npz archive of plain arrays, and is not ({one_line(error)}); "
            "write it again"
        ) from None
    return arrays


def read_npy(path: Path) -> np.ndarray:
    """Return the array of the .npy file at ``path``. Raises InputError."""
    data = read_bytes(path, "an .npy file")
    try:
        return _parse(data)
    except Exception as error:  # numpy's parser of headers raises whatever the damage leads it into
        raise InputError(
            f"{path}: the file must be a whole .npy file of plain numbers, and is not ({one_line(error)}); "
            "write it again"
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
