"""The files that point clouds come in: SemanticKITTI's scans, .ply, .npy, .npz, and meshes in .off.

A fourth number a point is taken as its remission, where the file says so by its kind: .bin, an array of exactly four
columns, a .ply with such a property. Other columns and properties (colours, normals) are left out.
"""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path

import numpy as np

from ..checks import whole
from ..errors import InputError
from ..files.container import one_line, read_bytes, write_beside
from ..files.npy import read_npy, read_npz
from ..files.numbers import to_float32
from .cloud import Cloud
from .off import MESH_SAMPLES, read_mesh, sample_mesh
from .ply import parse_ply, ply_bytes

POINT_BYTES = 16  # of a SemanticKITTI scan: x, y, z and remission


def read_cloud(path: str | Path, *, samples: int | None = None, seed: int = 0) -> Cloud:
    """Return the cloud in the file at ``path``, named after it.

    Its suffix tells its kind: ``.bin`` (SemanticKITTI: float32 x, y, z, remission), ``.ply`` (ascii or binary, of
    either byte order), ``.npy`` or ``.npz`` (an array (n, 3 or more), in an archive the one called points), ``.off``
    (a mesh: 1024 points are drawn from its surface, or ``samples``, each place as likely as any). In other files
    ``samples`` takes as many of the points, in their order, drawn without replacement. ``seed`` decides which.
    Raises InputError, one line with file, rule and value met.
    """
    path = Path(path)
    samples = None if samples is None else whole(samples, "samples", 1)
    seed = whole(seed, "seed", 0)
    suffix = path.suffix.lower()
    try:
        if suffix == ".off":
            mesh = read_mesh(path)
            points = sample_mesh(mesh, MESH_SAMPLES if samples is None else samples, np.random.default_rng(seed))
            return Cloud(points, path.stem)
        if suffix not in _READERS:
            known = ", ".join(CLOUD_SUFFIXES)
            raise InputError(f"a point cloud must be a file ending in {known}, not {one_line(path.suffix)!r}")
        points, remission = _READERS[suffix](path)
        if not len(points):
            raise InputError("a point cloud must have at least one point, and this has none")
        if samples is not None:
            if samples > len(points):
                raise InputError(f"samples must be at most the number of points, {len(points)}, not {samples}")
            kept = np.sort(np.random.default_rng(seed).choice(len(points), samples, replace=False))
            points, remission = points[kept], None if remission is None else remission[kept]
        return Cloud(
            to_float32(points, "points"), path.stem, None if remission is None else to_float32(remission, "remission")
        )
    except InputError as error:
        text = str(error)
        raise InputError(text if text.startswith(f"{path}: ") else f"{path}: {text}") from None


def write_cloud(cloud: Cloud, path: str | Path) -> Path:
    """Return ``path``, which now holds ``cloud`` as its suffix says: ``.npy``, ``.npz``, ``.bin`` or ``.ply``.

    An ``.npy`` has a fourth column where there is a remission; a ``.bin`` always has one, 0 where there is none; a
    ``.ply`` is binary, little-endian. The same cloud gives the same bytes. Raises InputError.
    """
    path = Path(path)
    if path.suffix.lower() not in WRITTEN_SUFFIXES:
        known = ", ".join(WRITTEN_SUFFIXES)
        raise InputError(f"{path}: a point cloud must be written to a file ending in {known}, not {path.suffix!r}")
    return write_beside(path, _WRITERS[path.suffix.lower()](cloud))


def _read_bin(path: Path) -> tuple[np.ndarray, np.ndarray | None]:
    data = read_bytes(path, "a SemanticKITTI scan")
    if len(data) % POINT_BYTES:
        raise InputError(
            f"a SemanticKITTI scan must have {POINT_BYTES} bytes a point (float32 x, y, z, remission), "
            f"and its {len(data)} are no multiple; copy it again"
        )
    table = np.frombuffer(data, "<f4").reshape(-1, 4)
    return table[:, :3], table[:, 3]


def _read_ply(path: Path) -> tuple[np.ndarray, np.ndarray | None]:
    return parse_ply(read_bytes(path, "a .ply file"))


def _read_npy(path: Path) -> tuple[np.ndarray, np.ndarray | None]:
    return _columns(read_npy(path), None)


def _read_npz(path: Path) -> tuple[np.ndarray, np.ndarray | None]:
    arrays = read_npz(path)
    tables = [name for name, array in arrays.items() if array.ndim == 2 and array.shape[1] >= 3]
    name = "points" if "points" in arrays else tables[0] if len(tables) == 1 else None
    if name is None:
        met = one_line(", ".join(f"{name} {array.shape}" for name, array in arrays.items())) or "none"
        raise InputError(f"the archive must hold an array points, or just one of shape (n, 3 or more), not {met}")
    return _columns(arrays[name], arrays.get("remission"))


def _columns(array: np.ndarray, remission: np.ndarray | None) -> tuple[np.ndarray, np.ndarray | None]:
    if array.ndim != 2 or array.shape[1] < 3 or array.dtype.kind not in "iuf":
        raise InputError(f"points must be real numbers of shape (n, 3 or more), not {array.dtype} {array.shape}")
    if remission is None and array.shape[1] == 4:
        remission = array[:, 3]
    if remission is not None and (remission.shape != (len(array),) or remission.dtype.kind not in "iuf"):
        raise InputError(
            f"remission must be real numbers of shape ({len(array)},), one a point, "
            f"not {remission.dtype} {remission.shape}"
        )
    return array[:, :3], remission


def _table(cloud: Cloud, *, is_measured: bool) -> np.ndarray:
    """Return points, and remission where there is one or ``is_measured`` asks for it; little-endian float32."""
    if cloud.remission is None and not is_measured:
        return cloud.points.astype("<f4")
    remission = np.zeros(len(cloud.points), np.float32) if cloud.remission is None else cloud.remission
    return np.column_stack([cloud.points, remission]).astype("<f4")


def _npy_bytes(cloud: Cloud) -> bytes:
    file = io.BytesIO()
    np.lib.format.write_array(file, _table(cloud, is_measured=False), allow_pickle=False)
    return file.getvalue()


def _npz_bytes(cloud: Cloud) -> bytes:
    file = io.BytesIO()
    points = cloud.points.astype("<f4")
    if cloud.remission is None:
        np.savez(file, points=points)
    else:
        np.savez(file, points=points, remission=cloud.remission.astype("<f4"))
    return file.getvalue()


_READERS: dict[str, Callable[[Path], tuple[np.ndarray, np.ndarray | None]]] = {
    ".bin": _read_bin,
    ".ply": _read_ply,
    ".npy": _read_npy,
    ".npz": _read_npz,
}
_WRITERS: dict[str, Callable[[Cloud], bytes]] = {
    ".npy": _npy_bytes,
    ".npz": _npz_bytes,
    ".bin": lambda cloud: _table(cloud, is_measured=True).tobytes(),
    ".ply": lambda cloud: ply_bytes(_table(cloud, is_measured=False)),
}
CLOUD_SUFFIXES = (*_READERS, ".off")
WRITTEN_SUFFIXES = tuple(_WRITERS)
