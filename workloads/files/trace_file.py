"""Gossamer's own trace file: one .safetensors container, arrays as tensors, the rest as JSON in its metadata.

The metadata key is ``gossamer.trace``. A tensor ``fc1.weight.bitmap`` is the part ``bitmap`` of the array ``weight`` of
the layer ``fc1``; `sparse` tells the forms. The header carries the trace's sha256, so that a changed bit is noticed.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, MutableMapping, Sequence
from dataclasses import fields
from math import prod
from pathlib import Path
from typing import Annotated, Any, BinaryIO, Literal

import msgspec
import numpy as np

from ..errors import InputError
from ..patterns import Pattern
from ..streamed import StreamedLayers
from ..trace import ARRAYS, DTYPES, VERSION, Layer, Trace, check_name
from .container import Container, container_bytes, container_head, one_line, read_container, write_beside, write_with
from .sparse import Part, dense, pack, part_names, unpack

KEY = "gossamer.trace"
SUFFIX = ".safetensors"
# "kept" is a mask that holds exactly the weights that are not zero: it has no tensor.
VALUES: dict[type[np.generic], str] = {np.float32: "F32", np.int32: "I32"}  # the container's names
SHARED = ("coordinates", "output_coordinates")  # the layers of a network lie on few sets of points
_Side = Annotated[int, msgspec.Meta(ge=0, le=2**40)]


class _Array(msgspec.Struct, forbid_unknown_fields=True, omit_defaults=True):
    form: Literal["dense", "bitmap", "gaps", "kept", "shared"]
    shape: Annotated[tuple[_Side, ...], msgspec.Meta(max_length=16)]
    of: str | None = None  # of a shared array: the "layer.array" that holds the same


class _Pattern(msgspec.Struct, forbid_unknown_fields=True, omit_defaults=True):
    kind: str
    n: int | None = None
    m: int | None = None
    axis: int | None = None
    pe_count: int | None = None
    scope: str | None = None
    block: tuple[int, int] | None = None


class StoredLayer(msgspec.Struct, forbid_unknown_fields=True):
    """What the header tells of a layer."""

    name: str
    op: str
    attributes: dict[str, Any]
    pattern: _Pattern
    arrays: dict[str, _Array]


class Header(msgspec.Struct, forbid_unknown_fields=True):
    """What a trace file tells beside its tensors."""

    version: int
    name: str
    provenance: dict[str, Any]
    sha256: str
    layers: list[StoredLayer]


class _Version(msgspec.Struct):
    version: int


def save_trace(trace: Trace, path: str | Path) -> Path:
    """Return ``path`` after writing ``trace`` there; the same trace gives the same bytes.

    Of a trace whose layers stay in their file one is in memory at a time: they are gone through twice, for the sizes
    that the head tells and for what follows it. Raises InputError for a name without ``.safetensors`` and for a place
    that cannot be written.
    """
    path = check_place(path)
    if isinstance(trace.layers, StreamedLayers):
        return _save_streamed(trace, path)
    tensors: dict[str, np.ndarray] = {}
    seen: dict[bytes, str] = {}
    layers = [_store_layer(layer, tensors, seen) for layer in trace.layers]
    return write_beside(path, container_bytes(tensors, _metadata(trace, layers)))


def check_place(path: str | Path) -> Path:
    """Return ``path``, where a trace may be written. Raises InputError for a name without ``.safetensors``."""
    path = Path(path)
    if path.suffix != SUFFIX:
        raise InputError(f"{path}: the name of a trace file must end in {SUFFIX}, not {path.suffix!r}; rename it")
    return path


def _save_streamed(trace: Trace, path: Path) -> Path:
    layers: list[StoredLayer] = []
    sizes: dict[str, tuple[str, tuple[int, ...]]] = {}
    seen: dict[bytes, str] = {}
    for layer in trace.each_layer():
        tensors: dict[str, np.ndarray] = {}
        layers.append(_store_layer(layer, tensors, seen))
        sizes |= {name: (VALUES.get(array.dtype.type, "U8"), array.shape) for name, array in tensors.items()}
        del layer, tensors  # or they would be in memory together with the next
    head, begins = container_head(sizes, _metadata(trace, layers))

    def write(file: BinaryIO) -> None:
        file.write(head)
        again: dict[bytes, str] = {}
        for layer in trace.layers:
            tensors: dict[str, np.ndarray] = {}
            _store_layer(layer, tensors, again)
            for name, array in tensors.items():
                file.seek(begins[name])
                file.write(np.ascontiguousarray(array).data)
            del layer, tensors

    return write_with(path, write)


def _metadata(trace: Trace, layers: list[StoredLayer]) -> dict[str, str]:
    header = Header(VERSION, trace.name, dict(trace.provenance), trace.sha256, layers)
    return {KEY: msgspec.json.encode(header, order="deterministic").decode()}


def load_trace_file(path: str | Path) -> Trace:
    """Return the trace in the file at ``path``, every rule checked.

    Raises InputError naming file, layer, tensor, rule and value.
    """
    path = Path(path)
    return trace_of_container(read_container(path), path)


def trace_of_container(container: Container, path: Path) -> Trace:
    """Return the trace that ``container``, read from ``path``, holds."""
    text = container.metadata.get(KEY)
    if text is None:
        raise InputError(
            f"{path}: a trace file must carry the metadata key {KEY}, and has none; give plain weights to load_trace"
        )
    try:
        return _read_trace(read_header(text), container.tensors)
    except InputError as error:
        raise InputError(f"{path}: {error}") from None
    except MemoryError:
        raise InputError(f"{path}: the trace must fit in memory, and does not; use a machine with more") from None


def read_header(text: str) -> Header:
    """Return the header of a trace file from the text of its metadata. Raises InputError."""
    try:
        version = msgspec.json.decode(text, type=_Version).version
        if version > VERSION:
            raise InputError(f"version must be at most {VERSION}, not {version}: the file is newer; upgrade gossamer")
        if version < 1:
            raise InputError(f"version must be at least 1, not {version}; write the file again")
        return msgspec.json.decode(text, type=Header)
    except (msgspec.MsgspecError, UnicodeError, RecursionError) as error:
        raise InputError(
            f"the metadata {KEY} must be the header of a trace, and is not ({one_line(error)}); write the file again"
        ) from None


def _read_trace(header: Header, tensors: Mapping[str, tuple[str, np.ndarray]]) -> Trace:
    left: dict[str, tuple[str, Part]] = dict(tensors)
    shared: dict[str, np.ndarray] = {}
    layers = tuple(layer_of_tensors(stored, left, shared) for stored in header.layers)
    return whole_trace(header, layers, list(left))


def whole_trace(header: Header, layers: Sequence[Layer], left: list[str]) -> Trace:
    """Return the trace of ``layers``; ``left``: tensors of the file that its header does not name.

    Raises InputError where there are any, and where the content is not the one whose hash the header has.
    """
    if left:
        raise InputError(f"every tensor must be named in the header, and {left[0]!r} is not; remove it")
    trace = Trace(name=header.name, layers=layers, provenance=header.provenance)
    if trace.sha256 != header.sha256:
        raise InputError(
            f"the content must have the sha256 in its header, {header.sha256[:12]!r}..., not {trace.sha256[:12]}...: "
            "the file is damaged or was edited; copy it again"
        )
    return trace


def part_tensors(stored: StoredLayer) -> list[str]:
    """Return the names of all tensors that the layer may consist of, as its header says."""
    forms = ((name, array.form) for name, array in stored.arrays.items() if name in ARRAYS)
    return [
        f"{stored.name}.{name}.{part}"
        for name, form in forms
        if form != "kept" and form != "shared"
        for part in part_names(form, DTYPES.get(name, np.float32))
    ]


def _store_layer(layer: Layer, tensors: dict[str, np.ndarray], seen: dict[bytes, str]) -> StoredLayer:
    arrays = {}
    for name in ARRAYS:
        array = layer.array(name)
        if array is None:
            continue
        if name == "mask" and np.array_equal(array, layer.kept != 0):
            arrays[name] = _Array("kept", array.shape)
            continue
        if name in SHARED:
            first = seen.setdefault(hashlib.sha256(array.data).digest(), f"{layer.name}.{name}")
            if first != f"{layer.name}.{name}":
                arrays[name] = _Array("shared", array.shape, first)
                continue
        if name in ("bias", "codebook", "peephole") or DTYPES.get(name) is np.int32:
            form, parts = dense(array)
        else:
            form, parts = pack(array, nibbles=_in_nibbles(name, layer.codebook))
        arrays[name] = _Array(form, array.shape)
        tensors |= {f"{layer.name}.{name}.{part}": value for part, value in parts.items()}
    pattern = _Pattern(**{f.name: getattr(layer.pattern, f.name) for f in fields(Pattern)})
    return StoredLayer(layer.name, layer.op, dict(layer.attributes), pattern, arrays)


def layer_of_tensors(
    stored: StoredLayer, tensors: MutableMapping[str, tuple[str, Part]], shared: dict[str, np.ndarray]
) -> Layer:
    """Return the layer that ``stored`` tells of, its parts taken out of ``tensors``. Raises InputError.

    ``shared``: the coordinates of the layers before it, by name, to which its own are added.
    """
    check_name("layer name", stored.name)
    where = f"layer {stored.name}"
    unknown = set(stored.arrays) - set(ARRAYS)
    if unknown:
        raise InputError(f"{where}: arrays must be of {', '.join(ARRAYS)}, not {min(unknown)!r}; remove it")
    arrays: dict[str, np.ndarray] = {}
    for name in ("codebook", *ARRAYS):  # the codebook first: its size tells how codes are packed
        array = stored.arrays.get(name)
        if array is None or name in arrays or array.form == "kept":
            continue
        if array.form == "shared":
            if name not in SHARED or array.of not in shared or shared[array.of].shape != array.shape:
                raise InputError(
                    f"{where}: tensor {name}: form shared must name coordinates of an earlier layer, of shape "
                    f"{array.shape}, not {array.of!r}; write it again"
                )
            arrays[name] = shared[array.of]
            continue
        try:
            arrays[name] = _read_array(stored.name, name, array, tensors, arrays.get("codebook"))
        except InputError as error:
            raise InputError(f"{where}: tensor {name}: {error}; the file is damaged, write it again") from None
        if name in SHARED:
            shared[f"{stored.name}.{name}"] = arrays[name]
    for name, array in stored.arrays.items():
        if array.form == "kept":
            kept = arrays.get("codes", arrays.get("weight"))
            if name != "mask" or kept is None or kept.shape != array.shape:
                raise InputError(
                    f"{where}: tensor {name}: form kept is for a mask of the weight's shape; write it again"
                )
            arrays[name] = kept != 0
    if "inputs" not in arrays and stored.op != "sparse_conv3d":
        raise InputError(f"{where}: inputs are needed, and the file has none; write it again")
    try:
        pattern = Pattern(**msgspec.structs.asdict(stored.pattern))
    except InputError as error:
        raise InputError(f"{where}: {error}") from None
    return Layer(name=stored.name, op=stored.op, attributes=stored.attributes, pattern=pattern, **arrays)


def _read_array(
    layer: str, name: str, array: _Array, tensors: MutableMapping[str, tuple[str, Part]], codebook: np.ndarray | None
) -> np.ndarray:
    assert array.form != "kept" and array.form != "shared"
    dtype = DTYPES.get(name, np.float32)
    if dtype is np.int32 and array.form != "dense":
        raise InputError(f"whole numbers must have form dense, not {array.form}")
    if dtype is np.bool_ and array.form == "dense":
        raise InputError("a mask must have form bitmap, gaps or kept, not dense")
    parts = {}
    for part in part_names(array.form, dtype):
        met, values = tensors.pop(f"{layer}.{name}.{part}", (None, None))
        wanted = VALUES.get(dtype, "U8") if part == "values" else "U8"
        if values is None or met != wanted:
            raise InputError(f"part {part} must be there as {wanted}, and is {met or 'missing'}")
        parts[part] = values
    if prod(array.shape) == 0:
        raise InputError(f"every side must be at least 1, not {array.shape}")
    return unpack(array.form, array.shape, parts, dtype, nibbles=_in_nibbles(name, codebook))


def _in_nibbles(name: str, codebook: np.ndarray | None) -> bool:
    return name in ("codes", "bias_codes") and codebook is not None and codebook.size <= 16
