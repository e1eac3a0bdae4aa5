"""Bytes on disk: reading .safetensors containers whole, writing any file beside its place and renaming it."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Callable, Mapping
from math import prod
from pathlib import Path
from typing import Any, BinaryIO

import msgspec
import numpy as np

from ..errors import InputError

PIPE_BYTES = 2**30  # that are taken from a pipe, or from a file that does not tell its size
# The container's names for what an element is; BF16 and F8 are read as their bits, BOOL as its byte.
DTYPES = {
    "F64": "<f8",
    "F32": "<f4",
    "F16": "<f2",
    "BF16": "<u2",
    "F8_E4M3": "<u1",
    "F8_E5M2": "<u1",
    "I64": "<i8",
    "I32": "<i4",
    "I16": "<i2",
    "I8": "<i1",
    "U64": "<u8",
    "U32": "<u4",
    "U16": "<u2",
    "U8": "<u1",
    "BOOL": "<u1",
}


class Container(msgspec.Struct, frozen=True):
    """What a .safetensors file holds: its metadata, and each tensor with the container's name of its dtype."""

    metadata: dict[str, str]
    tensors: dict[str, tuple[str, np.ndarray]]


class _Head(msgspec.Struct):
    metadata: dict[str, str] = msgspec.field(default_factory=dict, name="__metadata__")


def read_bytes(path: Path, kind: str, most: int | None = None) -> bytes:
    """Return the content of the file at ``path``; raises InputError, saying that a ``kind`` was wanted.

    It may have ``most`` bytes. What comes through a pipe does not tell how much it is, and may be `PIPE_BYTES`; a
    device, which may never end, is no file.
    """
    try:
        size = _size(path, may_be_pipe=True)
        if most is not None and size > most:
            raise InputError(f"{path}: {kind} must have at most {most:,} bytes, not {size:,}; write less of it")
        with path.open("rb") as file:
            data = file.read(size)
            if size and not file.peek(1):
                return data
            return _read_on(file, data, max(size, PIPE_BYTES) if most is None else most, path, kind)
    except InputError:
        raise
    except (OSError, ValueError) as error:
        raise _unreadable(path, kind, _reason(error)) from None
    except MemoryError:
        raise InputError(f"{path}: {kind} must fit in memory, and does not; use a machine with more") from None


def size_of(path: Path, kind: str) -> int:
    """Return the bytes of the file at ``path``; raises InputError where a ``kind`` cannot be read a part at a time."""
    try:
        size = _size(path)
        with path.open("rb"):
            return size
    except (OSError, ValueError) as error:
        raise _unreadable(path, kind, _reason(error)) from None


def _size(path: Path, *, may_be_pipe: bool = False) -> int:
    """Return the bytes that the file at ``path`` has, 0 where it is a pipe; OSError where it is no regular file."""
    found = path.stat()
    if stat.S_ISREG(found.st_mode):
        return found.st_size
    if stat.S_ISDIR(found.st_mode):
        raise IsADirectoryError(None, os.strerror(errno.EISDIR))
    if stat.S_ISFIFO(found.st_mode):
        if may_be_pipe:
            return 0
        raise OSError(None, "it must be a regular file, not a pipe")
    raise OSError(None, "it must be a regular file, not a device")


def _read_on(file: BinaryIO, begun: bytes, most: int, path: Path, kind: str) -> bytes:
    """Return ``begun`` and what ``file`` has besides, of which nobody knows how much it is. Raises InputError."""
    data = bytearray(begun)
    while part := file.read(2**16):
        data += part
        if len(data) > most:
            raise InputError(f"{path}: {kind} must have at most {most:,} bytes, and has more; write less of it")
    return bytes(data)


def _unreadable(path: Path, kind: str, reason: str) -> InputError:
    return InputError(f"{path}: {kind} must be a readable file, and {reason}; check the path")


def write_beside(path: Path, data: bytes) -> Path:
    """Return ``path``, which now holds ``data``: written beside it under another name, then renamed.

    An interrupted or failed write leaves nothing behind and what stood at ``path`` as it was. A link stays one, and
    what it points to is replaced; a device or a pipe is written to, for a rename would put a file in its place.
    Raises InputError.
    """
    return write_with(path, lambda file: file.write(data))


def write_with(path: Path, write: Callable[[BinaryIO], object]) -> Path:
    """Return ``path``, which now holds what ``write`` put into the file that it was given, as `write_beside` does."""
    try:
        target = Path(os.path.realpath(path))
        if target.exists() and not target.is_file():
            with target.open("wb") as file:
                write(file)
            return path
        beside = target.with_name(f".{target.name[:200]}.{os.getpid()}.part")
        try:
            with beside.open("wb") as file:
                write(file)
            beside.replace(target)
        finally:
            beside.unlink(missing_ok=True)
    except (OSError, ValueError) as error:
        raise InputError(
            f"{path}: the output must be writable, and {_reason(error)}; choose a folder and a name that are"
        ) from None
    return path


def read_container(path: Path, kind: str = "a trace file") -> Container:
    """Return metadata and tensors of the .safetensors file at ``path``, read-only views of its bytes.

    Raises InputError for a file that cannot be read or breaks a rule of the container.
    """
    return parse_container(read_bytes(path, kind), path)


def parse_container(data: bytes, path: Path) -> Container:
    """Return metadata and tensors in ``data``, the content of the .safetensors file at ``path``."""
    from safetensors import SafetensorError, deserialize

    try:
        flat: list[tuple[str, Any]] = deserialize(data)  # type: ignore[no-untyped-call]
        head = msgspec.json.decode(data[8 : 8 + int.from_bytes(data[:8], "little")], type=_Head)
    except (SafetensorError, msgspec.MsgspecError, ValueError, OverflowError, RecursionError) as error:
        raise InputError(
            f"{path}: the file must be a whole .safetensors container, and is not ({one_line(error)}); "
            "copy or write it again"
        ) from None
    tensors = {}
    for name, tensor in flat:
        dtype = DTYPES.get(tensor["dtype"])
        if dtype is None:
            raise InputError(
                f"{path}: tensor {name!r} must be one of {', '.join(DTYPES)}, not {tensor['dtype']}; convert it"
            )
        try:
            array = np.frombuffer(tensor["data"], dtype).reshape(tensor["shape"])
        except ValueError as error:  # more dimensions than numpy has, or longer ones
            raise InputError(f"{path}: tensor {name!r} must be an array of numpy's, and {error}; convert it") from None
        array.flags.writeable = False
        tensors[name] = (str(tensor["dtype"]), array)
    return Container(head.metadata, dict(sorted(tensors.items())))


def container_bytes(tensors: Mapping[str, np.ndarray], metadata: dict[str, str]) -> bytes:
    """Return the .safetensors file of ``tensors``; the same bytes each time where ``metadata`` has one key."""
    from safetensors.numpy import save

    return save({name: np.asarray(array, order="C") for name, array in tensors.items()}, metadata)


def container_head(
    tensors: Mapping[str, tuple[str, tuple[int, ...]]], metadata: dict[str, str]
) -> tuple[bytes, dict[str, int]]:
    """Return how the file of `container_bytes` begins, and where in it each tensor does, from names and shapes alone.

    ``tensors``: of each the container's name of its dtype, F32, I32 or U8, and its shape.
    """
    order = ("F32", "I32", "U8")  # as the safetensors library lays them out: so every tensor is aligned
    head: dict[str, Any] = {"__metadata__": metadata}
    begins, end = {}, 0
    for name, (dtype, shape) in sorted(tensors.items(), key=lambda each: (order.index(each[1][0]), each[0])):
        begins[name], end = end, end + prod(shape) * np.dtype(DTYPES[dtype]).itemsize
        head[name] = {"dtype": dtype, "shape": shape, "data_offsets": (begins[name], end)}
    text = msgspec.json.encode(head)
    text += b" " * (-len(text) % 8)
    first = 8 + len(text)
    return len(text).to_bytes(8, "little") + text, {name: first + begin for name, begin in begins.items()}


def one_line(error: object) -> str:
    """Return the text of ``error`` without line breaks and unprintable characters, cut where it goes on and on."""
    text = " ".join(str(error).split())
    text = "".join(c if c.isprintable() else "?" for c in text)
    return text if len(text) <= 200 else text[:197] + "..."


def _reason(error: Exception) -> str:
    return one_line(getattr(error, "strerror", None) or error)
