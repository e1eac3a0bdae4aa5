"""Meshes in the object file format (.off), and points drawn from their surface."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ..checks import whole
from ..errors import InputError
from ..files.container import one_line, read_bytes
from ..files.numbers import to_float32
from .ply import parse_rows

MESH_SAMPLES = 1024  # points of a cloud, as PointNet++ takes them
SAMPLES_LIMIT = 1 << 28
CORNERS_LIMIT = 256  # of a face


@dataclass(frozen=True, eq=False)
class Mesh:
    """``vertices``, float64 (n, 3), and ``triangles``, int64 (m, 3), by the indices of their corners."""

    vertices: np.ndarray
    triangles: np.ndarray


def read_mesh(path: Path) -> Mesh:
    """Return the mesh in the .off file at ``path``, its faces cut into triangles from their first corner.

    Comments, colours after a face, and a size that follows OFF on its line (as in ModelNet40) are read over.
    Raises InputError.
    """
    text = read_bytes(path, "an .off file").decode("latin-1")
    lines = [line for line in (line.partition("#")[0].strip() for line in text.splitlines()) if line]
    if not lines or not lines[0].startswith("OFF"):
        raise InputError(f"an .off file must begin with OFF, not {one_line(lines[0][:20] if lines else '')!r}")
    glued = lines[0][3:].strip()
    lines = [glued, *lines[1:]] if glued else lines[1:]
    size = lines[0].split() if lines else []
    if len(size) not in (2, 3) or not all(re.fullmatch(r"[0-9]{1,15}", word) for word in size):
        met = one_line(lines[0][:80]) if lines else ""
        raise InputError(f"the size must be three whole numbers (vertices, faces, edges), not {met!r}")
    count, faces = int(size[0]), int(size[1])
    if len(lines) - 1 < count + faces:
        raise InputError(
            f"{count} vertices and {faces} faces need a line each, as the size says, not {len(lines) - 1} lines; "
            "copy the file again"
        )
    vertices = to_float32(parse_rows(lines[1 : 1 + count], 3, "vertices"), "vertices").astype(np.float64)
    return Mesh(vertices, _triangles(lines[1 + count : 1 + count + faces], count))


def sample_mesh(mesh: Mesh, samples: int, rng: np.random.Generator) -> np.ndarray:
    """Return ``samples`` points of the surface of ``mesh``, float32 (samples, 3), each place as likely as any.

    Raises InputError where there is no surface.
    """
    count = whole(samples, "samples", 1, SAMPLES_LIMIT)
    origin, first, second = (mesh.vertices[mesh.triangles[:, corner]] for corner in range(3))
    first, second = first - origin, second - origin
    area = np.linalg.norm(np.cross(first, second), axis=1)
    whole_area = area.sum()
    if not 0 < whole_area < np.inf:
        raise InputError("a mesh must have a surface to draw points from, and the area of its faces is 0")
    # A place along the summed areas belongs to the triangle whose span it falls into; one without area has none.
    ends = np.cumsum(area)
    chosen = np.searchsorted(ends, rng.random(count) * ends[-1], side="right")
    chosen = np.minimum(chosen, int(np.flatnonzero(area)[-1]))
    a, b = rng.random((2, count, 1))
    folded = a + b > 1  # the other half of the parallelogram, folded back
    a, b = np.where(folded, 1 - a, a), np.where(folded, 1 - b, b)
    return np.asarray((origin[chosen] + a * first[chosen] + b * second[chosen]).astype(np.float32))


def _triangles(lines: list[str], vertices: int) -> np.ndarray:
    """Return the triangles of the faces in ``lines``, (m, 3), in the faces' order."""
    rows = [line.split() for line in lines]
    wanted = f"a face must be its corners, 3 to {CORNERS_LIMIT}, and the index of each, 0 to {vertices - 1}"
    by_corners: dict[int, list[int]] = {}
    for number, row in enumerate(rows):
        corners = int(row[0]) if re.fullmatch(r"[0-9]{1,3}", row[0]) else 0
        if not 3 <= corners <= CORNERS_LIMIT or len(row) <= corners:
            raise InputError(f"{wanted}, and face {number} is {one_line(lines[number][:80])!r}")
        by_corners.setdefault(corners, []).append(number)
    parts, owners = [np.zeros((0, 3), np.int64)], [np.zeros(0, np.int64)]
    for corners, numbers in by_corners.items():
        try:
            table = np.array([[int(word) for word in rows[number][1 : corners + 1]] for number in numbers], np.int64)
        except (ValueError, OverflowError) as error:
            raise InputError(f"{wanted}, and one is not ({one_line(error)})") from None
        wrong = np.flatnonzero(((table < 0) | (table >= vertices)).any(axis=1))
        if wrong.size:
            number = numbers[int(wrong[0])]
            raise InputError(f"{wanted}, and face {number} is {one_line(lines[number][:80])!r}")
        for corner in range(1, corners - 1):
            parts.append(table[:, [0, corner, corner + 1]])
            owners.append(np.array(numbers, np.int64))
    return np.concatenate(parts)[np.argsort(np.concatenate(owners), kind="stable")]
