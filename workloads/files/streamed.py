"""Traces and masked weights in .safetensors files: one layer of them at a time is read.

The container's header tells where each tensor lies. What is made of a tensor, and every check, is what reading the file
whole does (`trace_file`, `masked`).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from math import prod
from pathlib import Path
from types import EllipsisType

import msgspec
import numpy as np

from ..blocks import row_blocks
from ..errors import InputError
from ..streamed import StreamedLayers
from ..trace import Layer, Trace
from .container import DTYPES, one_line, size_of
from .drawn import Draw
from .masked import METADATA, PACKED, ROLES, array_of_tensor, layer_of_arrays, layers_by_name, natural
from .numbers import NARROW, narrow_to_float32, read_only, to_float32
from .trace_file import KEY, SHARED, StoredLayer, layer_of_tensors, part_tensors, read_header, whole_trace

STREAMED_FROM = 2**26  # numbers in the arrays of a file whose layers are not kept: 256 MiB in float32
NUMBERS = 2**20  # that are made float32 at a time


@dataclass(frozen=True, slots=True)
class Info:
    """What a tensor is, and where in the file it lies, in bytes; ``parts``: the tensors that make up a weight."""

    dtype: str
    shape: tuple[int, ...]
    start: int
    stop: int
    parts: tuple[str, ...] = ()

    @property
    def ndim(self) -> int:
        """Count the dimensions."""
        return len(self.shape)


class _Tensor(msgspec.Struct):
    dtype: str
    shape: tuple[int, ...]
    data_offsets: tuple[int, int]


class StreamedContainer:
    """A .safetensors file whose header is known and whose tensors are read when they are asked for."""

    def __init__(self, path: Path, kind: str = "a trace file", *, any_dtype: bool = False) -> None:
        """Read the header. Raises InputError, saying that a ``kind`` was wanted, and for what is no whole container.

        ``any_dtype``: tensors that cannot be read are no error; their dtypes come into ``unreadable``.
        """
        from safetensors import SafetensorError, safe_open

        self.path = path
        self.size = size_of(path, kind)
        try:
            with safe_open(path, framework="numpy"):
                pass  # it holds the header to every rule of the container, the length of the file among them
            self._state = self._look()
            with path.open("rb") as file:
                size = int.from_bytes(file.read(8), "little")
                head = msgspec.json.decode(file.read(size), type=dict[str, msgspec.Raw])
            self.metadata = msgspec.json.decode(head.pop("__metadata__", b"{}"), type=dict[str, str])
            described = {name: msgspec.json.decode(raw, type=_Tensor) for name, raw in head.items()}
        except (SafetensorError, msgspec.MsgspecError, OSError, ValueError, OverflowError, RecursionError) as error:
            raise InputError(
                f"{path}: the file must be a whole .safetensors container, and is not ({one_line(error)}); "
                "copy or write it again"
            ) from None
        self.unreadable = {name: tensor.dtype for name, tensor in described.items() if tensor.dtype not in DTYPES}
        unknown = next(iter(self.unreadable), None)
        if unknown is not None and not any_dtype:
            raise InputError(
                f"{path}: tensor {unknown!r} must be one of {', '.join(DTYPES)}, not {described[unknown].dtype}; "
                "convert it"
            )
        self.tensors = {
            name: Info(tensor.dtype, tensor.shape, 8 + size + tensor.data_offsets[0], 8 + size + tensor.data_offsets[1])
            for name, tensor in sorted(described.items())
            if name not in self.unreadable
        }

    @property
    def numbers(self) -> int:
        """Count the numbers in all tensors, two for each in a packed weight."""
        return sum(prod(info.shape) * (1 + name.endswith(PACKED)) for name, info in self.tensors.items())

    def read(self, name: str, *, as_float32: bool = False) -> tuple[str, np.ndarray]:
        """Return the container's name of the dtype, and the values, of the tensor ``name``; read-only.

        ``as_float32``: F32 and float32 where the values can be that, with no room taken for what they were before.
        Raises InputError where the file is no longer the one that was opened.
        """
        dtype, tensor = self.unread(name)
        try:
            if as_float32 and dtype not in ("F32", "BOOL"):
                values = _as_float32(tensor, dtype)
                if values is not None:
                    return "F32", values
            return dtype, tensor[...]
        except MemoryError:
            raise InputError(
                f"{self.path}: tensor {name!r} must fit in memory, and does not; use a machine with more"
            ) from None

    def unread(self, name: str) -> tuple[str, Unread]:
        """Return the container's name of the dtype of the tensor ``name``, and what reads parts of it."""
        return self.tensors[name].dtype, Unread(self, name)

    def part(self, name: str, rows: slice | None) -> np.ndarray:
        """Return the ``rows``, one after another, of the tensor ``name``, or all; read-only. Raises as `read` does."""
        info = self.tensors[name]
        dtype = np.dtype(DTYPES[info.dtype])
        start, shape = 0, info.shape
        if rows is not None:
            start, stop, _ = rows.indices(shape[0])
            shape = (max(stop - start, 0), *shape[1:])
        try:
            if self._look() != self._state:
                raise InputError(f"{self.path}: the file must stay as it is while it is read, and changed; start again")
            offset = info.start + start * prod(shape[1:]) * dtype.itemsize
            return read_only(np.fromfile(self.path, dtype, prod(shape), offset=offset).reshape(shape))
        except (OSError, ValueError) as error:
            raise InputError(
                f"{self.path}: tensor {name!r} must be readable, and is not ({one_line(error)}); copy the file again"
            ) from None

    def _look(self) -> tuple[int, int]:
        found = self.path.stat()
        return found.st_size, found.st_mtime_ns


@dataclass(frozen=True, slots=True)
class Unread:
    """A tensor that is still in its file: what is sliced off its first axis is read."""

    container: StreamedContainer
    name: str

    @property
    def shape(self) -> tuple[int, ...]:
        """Return the lengths of the sides."""
        return self.container.tensors[self.name].shape

    def __getitem__(self, part: slice | EllipsisType, /) -> np.ndarray:
        """Return the elements, or rows, of ``part``; read-only. Raises InputError as `StreamedContainer.read` does."""
        return self.container.part(self.name, None if part is ... else part)


def _as_float32(tensor: Unread, dtype: str) -> np.ndarray | None:
    """Return the values as float32, rounded as `to_float32` does; None where one of them cannot be that."""
    values = np.empty(tensor.shape, np.float32)
    if not values.ndim:
        return None
    for rows in row_blocks(values, NUMBERS):
        try:
            part = tensor[rows]
            values[rows] = narrow_to_float32(part, dtype) if dtype in NARROW else to_float32(part, "")
        except InputError:
            return None
    return read_only(values)


def stream_trace(container: StreamedContainer, most: int = 0) -> Trace:
    """Return the trace that ``container`` holds, every rule checked in one pass.

    Its layers stay in the file where they have ``most`` numbers or more, zeros included; else all are read at once.

    Raises InputError naming file, layer, tensor, rule and value.
    """
    with naming(container.path):
        return _trace(container, most)


def stream_weights(container: StreamedContainer, draw: Draw, most: int = 0) -> Trace:
    """Return the trace of the masked weights in ``container``.

    Its layers stay in the file where they have ``most`` numbers or more; else all are read at once. Raises InputError
    naming file, layer, tensor, rule and value; what is wrong in a layer, when that is read.
    """
    with naming(container.path):
        return _masked(container, draw, most)


def _trace(container: StreamedContainer, most: int) -> Trace:
    header = read_header(container.metadata[KEY])
    shared: dict[str, np.ndarray] = {}
    named = [name for stored in header.layers for name in part_tensors(stored)]
    left = sorted(set(container.tensors) - set(named))

    def load(index: int) -> Layer:
        stored = header.layers[index]
        names = [name for name in part_tensors(stored) if name in container.tensors]
        with naming(container.path):
            gather_shared(stored)
            return layer_of_tensors(stored, {name: container.unread(name) for name in names}, shared)

    def gather_shared(stored: StoredLayer) -> None:
        # A layer on the points of an earlier one, asked for before that one was.
        for array in stored.arrays.values():
            owner = (array.of or "").rpartition(".")[0]
            if array.form == "shared" and array.of not in shared and owner != stored.name:
                earlier = next((i for i, each in enumerate(header.layers) if each.name == owner), None)
                if earlier is not None and any(name in SHARED for name in header.layers[earlier].arrays):
                    load(earlier)

    layers = StreamedLayers([stored.name for stored in header.layers], load)
    numbers = sum(prod(array.shape) for stored in header.layers for array in stored.arrays.values())
    return whole_trace(header, tuple(layers) if numbers < most else layers, left)


def _masked(container: StreamedContainer, draw: Draw, most: int) -> Trace:
    path = container.path
    packed = {name.removesuffix(PACKED) for name in container.tensors if name.endswith(PACKED)}
    infos: dict[str, Info] = {}
    for name in sorted(container.tensors, key=natural):
        base, info = _base(name, packed), container.tensors[name]
        # A packed weight has the two dimensions of a linear layer, whatever those of its parts are.
        known = infos.get(base)
        parts = (*(known.parts if known else ()), name)
        infos[base] = Info(info.dtype, (0, 0) if base in packed else info.shape, info.start, info.stop, parts)
    by_layer = layers_by_name(infos, path.stem)
    names = list(by_layer)
    drawn = [name for name, parts in by_layer.items() if "inputs" not in parts]
    draw.check_needed(drawn)

    def load(index: int) -> Layer:
        tensors = [part for info in by_layer[names[index]].values() for part in info.parts]
        with naming(path):
            arrays = {}
            for name in sorted(tensors, key=natural):
                as_float32 = not name.endswith((PACKED, *METADATA)) and ROLES.get(name.rpartition(".")[2]) != "mask"
                arrays[name] = array_of_tensor(name, *container.read(name, as_float32=as_float32))
            return layer_of_arrays(index, arrays, path.stem, draw)

    provenance: dict[str, object] = {"source": f"masked weights in {path.name}"}
    if drawn:
        provenance["drawn_inputs"] = {"layers": drawn} | draw.provenance()
    layers = StreamedLayers(names, load)
    keep = container.numbers < most
    return Trace(name=path.stem, layers=tuple(layers) if keep else layers, provenance=provenance)


def _base(name: str, packed: Sequence[str] | set[str]) -> str:
    """Return the name of the packed weight that the tensor ``name`` is a part of, else ``name``."""
    for suffix in (PACKED, *METADATA):
        if name.endswith(suffix) and name.removesuffix(suffix) in packed:
            return name.removesuffix(suffix)
    return name


@contextmanager
def naming(path: Path) -> Iterator[None]:
    """Let errors that are raised here name the file at ``path``."""
    try:
        yield
    except InputError as error:
        text = str(error)
        raise InputError(text if text.startswith(f"{path}: ") else f"{path}: {text}") from None
    except MemoryError:
        raise InputError(f"{path}: the trace must fit in memory, and does not; use a machine with more") from None
