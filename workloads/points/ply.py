"""The polygon file format (.ply), as far as it holds points: ascii, and binary of either byte order.

Source: Turk, "The PLY Polygon File Format", Stanford, 1994.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from ..errors import InputError
from ..files.container import one_line

FORMATS = {"ascii": "", "binary_little_endian": "<", "binary_big_endian": ">"}
TYPES = {
    "char": "i1", "uchar": "u1", "short": "i2", "ushort": "u2", "int": "i4", "uint": "u4", "float": "f4",
    "int8": "i1", "uint8": "u1", "int16": "i2", "uint16": "u2", "int32": "i4", "uint32": "u4", "float32": "f4",
    "double": "f8", "float64": "f8",
}  # fmt: skip
REMISSION = ("remission", "intensity", "reflectance")
HEADER_LIMIT = 1 << 16  # bytes


@dataclass
class _Element:
    """A kind of thing that a file lists: how many, and the properties of each; a list has no fixed size."""

    name: str
    count: int
    properties: list[tuple[str, str]] = field(default_factory=list)
    has_list: bool = False


def parse_ply(data: bytes) -> tuple[np.ndarray, np.ndarray | None]:
    """Return the vertices in ``data``, a .ply file: (n, 3), and their remission where there is such a property.

    The vertices may be followed by anything; before them only elements without lists. Nothing is allocated for a
    count that the file has no bytes for. Raises InputError.
    """
    order, elements, body = _parse_header(data)
    vertices = next((element for element in elements if element.name == "vertex"), None)
    names = [] if vertices is None else [name for name, _ in vertices.properties]
    if vertices is None or not {"x", "y", "z"} <= set(names) or vertices.has_list or len(set(names)) < len(names):
        raise InputError(
            "a .ply file must have an element vertex with the properties x, y and z, each once, and no list"
        )
    before = elements[: elements.index(vertices)]
    if any(element.has_list for element in before):
        raise InputError("the vertices of a .ply file must come before elements with lists; write them first")
    if order is None:
        table = _ascii_rows(body, sum(element.count for element in before), vertices.count, len(names))
        columns = dict(zip(names, table.T, strict=True))
    else:
        start = sum(element.count * _row(element, order).itemsize for element in before)
        row = _row(vertices, order)
        if vertices.count * row.itemsize > len(body) - start:
            raise InputError(
                f"{vertices.count} vertices of {row.itemsize} bytes are needed, as the header says, "
                f"and {max(0, len(body) - start)} bytes are left; copy the file again"
            )
        records = np.frombuffer(body, row, vertices.count, start) if vertices.count else np.zeros(0, row)
        columns = {name: records[name] for name in names}
    remission = next((columns[name] for name in REMISSION if name in columns), None)
    return np.stack([columns[axis] for axis in "xyz"], axis=1), remission


def ply_bytes(table: np.ndarray) -> bytes:
    """Return a binary little-endian .ply file of ``table``, float32 (n, 3), or (n, 4) with a remission."""
    names = ("x", "y", "z", "remission")[: table.shape[1]]
    properties = "".join(f"property float {name}\n" for name in names)
    head = f"ply\nformat binary_little_endian 1.0\nelement vertex {len(table)}\n{properties}end_header\n"
    return head.encode() + table.astype("<f4").tobytes()


def _parse_header(data: bytes) -> tuple[str | None, list[_Element], bytes]:
    """Return the byte order (None for ascii), the elements and what follows the header."""
    if data[:3] != b"ply" or data[3:4] not in (b"\n", b"\r"):
        raise InputError(f"a .ply file must begin with a line 'ply', not {one_line(data[:20].decode('latin-1'))!r}")
    order: str | None = ""
    elements: list[_Element] = []
    at = 0
    while True:
        end = data.find(b"\n", at, HEADER_LIMIT)
        if end < 0:
            raise InputError(f"the header must end with a line 'end_header' within {HEADER_LIMIT} bytes, and does not")
        line = data[at:end].decode("latin-1")
        at = end + 1
        words = line.split()
        if words == ["end_header"]:
            break
        if not words or words[0] in ("ply", "comment", "obj_info"):
            continue
        if words[0] == "format" and len(words) == 3 and words[1] in FORMATS and words[2] == "1.0":
            order = FORMATS[words[1]] or None
        elif words[0] == "element" and len(words) == 3 and words[2].isascii() and words[2].isdecimal():
            elements.append(_Element(words[1], int(words[2][:18])))
        elif words[0] == "property" and elements and len(words) == 3 and words[1] in TYPES:
            elements[-1].properties.append((words[2], TYPES[words[1]]))
        elif words[:2] == ["property", "list"] and elements and len(words) == 5 and {*words[2:4]} <= set(TYPES):
            elements[-1].has_list = True
        else:
            raise InputError(
                "a line of the header must be a format (ascii or binary, 1.0), an element NAME COUNT or a property "
                f"TYPE NAME, not {one_line(line[:80])!r}"
            )
    if order == "":
        raise InputError(f"the header must name the format, one of {', '.join(FORMATS)}, and does not")
    return order, elements, data[at:]


def _row(element: _Element, order: str) -> np.dtype[np.void]:
    return np.dtype([(f"{i}" if element.name != "vertex" else name, order + kind)
                     for i, (name, kind) in enumerate(element.properties)])  # fmt: skip


def _ascii_rows(body: bytes, skipped: int, count: int, width: int) -> np.ndarray:
    """Return ``count`` lines of ``width`` numbers, float64, after ``skipped`` ones; blank lines do not count."""
    lines = [line for line in body.decode("latin-1").splitlines() if line.strip()]
    if len(lines) < skipped + count:
        raise InputError(
            f"{skipped + count} lines up to the last vertex are needed, as the header says, not {len(lines)}; "
            "copy the file again"
        )
    return parse_rows(lines[skipped : skipped + count], width, "vertices")


def parse_rows(lines: list[str], width: int, what: str) -> np.ndarray:
    """Return ``lines`` of ``width`` numbers each, float64 (lines, width). Raises InputError naming ``what``."""
    if not lines:
        return np.zeros((0, width))
    try:
        table = np.loadtxt(lines, np.float64, comments=None, ndmin=2)
    except (ValueError, OverflowError) as error:
        raise InputError(f"{what} must be numbers, {width} a line, and are not ({one_line(error)})") from None
    if table.shape[1] != width:
        raise InputError(f"{what} must be {width} numbers a line, not {table.shape[1]}")
    return table
