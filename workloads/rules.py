"""The rules that every layer of a trace keeps, each with the one line that is said where it is broken."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from .blocks import first_where
from .errors import InputError
from .layer_fields import LayerFields
from .limits import SIZE_LIMIT, room
from .lstm_rules import check_lstm, check_lstm_pattern

VERSION = 1
OPS = {  # op: dimensions of its weight
    "linear": 2, "conv2d": 4, "lstm": 2, "matmul": 3, "sparse_conv3d": 3, "point_op": 0,
}  # fmt: skip
UNTRAINED = ("matmul", "point_op")  # what stands for their weight is no weight that training could prune
DEFAULTS: dict[str, dict[str, Any]] = {
    "conv2d": {"stride": (1, 1), "padding": (0, 0), "dilation": (1, 1), "groups": 1},
    "sparse_conv3d": {"kernel_size": 3, "stride": 1, "tensor_stride": 1, "transposed": False, "builds_map": True},
}
POINT_OPS = {
    "quantise": ("voxel_size",), "fps": ("samples",), "knn": ("k",), "ball_query": ("k", "radius", "order"),
}  # fmt: skip
ATTRIBUTE_LIMIT = 2**16  # no network pads or strides further; a damaged number would ask for all memory there is
COORDINATE_LIMIT = 2**20 - 2**16  # a coordinate and a shift by any kernel fit in the 21 bits that a key gives an axis
ARRAYS = (
    "weight", "bias", "mask", "codes", "bias_codes", "codebook", "inputs",
    "coordinates", "output_coordinates", "queries", "gather", "projection", "peephole",
)  # fmt: skip
DTYPES: dict[str, type[np.generic]] = {
    "mask": np.bool_, "codes": np.uint8, "bias_codes": np.uint8,
    "coordinates": np.int32, "output_coordinates": np.int32, "gather": np.int32,
}  # fmt: skip
OWNERS = {
    "coordinates": ("sparse_conv3d",), "output_coordinates": ("sparse_conv3d",),
    "queries": ("point_op",), "gather": ("linear",), "projection": ("lstm",), "peephole": ("lstm",),
}  # fmt: skip


def check_layer(layer: LayerFields) -> None:
    """Raise InputError for the first rule that ``layer`` breaks; the message names layer, tensor, rule and value."""
    check_name("layer name", layer.name)
    where = f"layer {layer.name}"
    if layer.op not in OPS:
        raise InputError(f"{where}: op must be one of {', '.join(OPS)}, not {layer.op!r}")
    _check_flat(layer.attributes, where)
    _check_arrays(layer, where)
    _check_shapes(layer, where)
    _check_mask(layer, where)
    if layer.op == "point_op":
        return
    if layer.op == "lstm":
        check_lstm_pattern(layer, where)
        return
    kept = layer.weight if layer.codes is None else layer.codes
    layer.pattern.check(kept if layer.mask is None else layer.mask, where)


def check_name(what: str, name: object) -> None:
    """Raise InputError unless ``name``, the value of ``what``, is text that fits in a line of a table."""
    if not isinstance(name, str) or not name or not name.isprintable():
        raise InputError(f"{what} must be a nonempty string of printable characters, not {name!r}")


def plain_json(value: object, place: str) -> Any:
    """Return ``value``, tuples made lists; raises InputError, naming ``place``, for what JSON does not carry."""
    if value is None or isinstance(value, bool | str):
        if isinstance(value, str) and any("\ud800" <= c <= "\udfff" for c in value):
            raise InputError(f"{place} must be text that UTF-8 can write, not {value!r}")
        return str(value) if isinstance(value, str) else value
    if isinstance(value, int) and -(2**63) <= value < 2**63:
        return int(value)
    if isinstance(value, float) and math.isfinite(value):
        return float(value)
    if isinstance(value, Mapping) and all(isinstance(key, str) and key.isprintable() for key in value):
        return {str(key): plain_json(item, f"{place}.{key}") for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain_json(item, f"{place}[{i}]") for i, item in enumerate(value)]
    raise InputError(f"{place} must be plain JSON data (finite numbers, text, lists, dicts by name), not {value!r:.80}")


def _check_flat(attributes: Mapping[str, Any], where: str) -> None:
    for name, value in attributes.items():
        items = value if isinstance(value, list | tuple) else (value,)
        if any(isinstance(item, list | tuple | dict) for item in items):
            raise InputError(
                f"{where}: attribute {name} must be one value or a list of values, not lists in one another"
            )


def _check_arrays(layer: LayerFields, where: str) -> None:
    if layer.op == "point_op":
        for name in ("weight", "bias", "mask", "codes", "bias_codes", "codebook"):
            if layer.__dict__[name] is not None:
                raise InputError(f"{where}: point_op takes no {name}; leave it out")
    elif (layer.weight is None) == (layer.codes is None):
        have = "neither" if layer.weight is None else "both"
        raise InputError(f"{where}: exactly one of weight and codes must be given, not {have}")
    for name in ARRAYS:
        array = layer.__dict__[name]
        if array is None:
            if name == "inputs" and layer.op != "sparse_conv3d":
                raise InputError(f"{where}: inputs are needed; draw some where none were recorded, as load_trace does")
            continue
        if layer.op not in OWNERS.get(name, (layer.op,)):
            raise InputError(f"{where}: only {OWNERS[name][0]} takes {name}, not {layer.op}; leave it out")
        dtype = np.dtype(DTYPES.get(name, np.float32))
        if not isinstance(array, np.ndarray) or array.dtype != dtype:
            met = getattr(array, "dtype", type(array).__name__)
            raise InputError(f"{where}: tensor {name} must be {dtype}, not {met}; convert it with astype('{dtype}')")
        place = first_where(_is_beyond, array) if dtype == np.float32 else None
        if place is not None:
            rule = "at most 2^48 in size" if np.isfinite(array[place]) else "finite"
            raise InputError(
                f"{where}: tensor {name} must be {rule}, and holds {array[place]} at {place}; replace such values"
            )


def _is_beyond(part: np.ndarray) -> np.ndarray:
    return np.asarray(~(np.abs(part) <= SIZE_LIMIT))  # true of what is not a number too


def _check_shapes(layer: LayerFields, where: str) -> None:
    if layer.op == "point_op":
        _check_point_op(layer, where)
        return
    kept = layer.weight if layer.codes is None else layer.codes
    assert kept is not None
    if kept.ndim != OPS[layer.op]:
        raise InputError(f"{where}: the weight of {layer.op} must have {OPS[layer.op]} dimensions, not {kept.shape}")
    if 0 in kept.shape:
        raise InputError(f"{where}: every side of the weight must be at least 1, not {kept.shape}")
    checks: dict[str, Callable[[LayerFields, tuple[int, ...], str], None]] = {
        "linear": _check_linear, "conv2d": _check_conv2d, "lstm": check_lstm, "matmul": _check_matmul,
        "sparse_conv3d": _check_sparse_conv,
    }  # fmt: skip
    checks[layer.op](layer, kept.shape, where)
    if layer.inputs is not None and layer.inputs.size == 0:
        raise InputError(f"{where}: inputs must hold at least one sample and no empty side, not {layer.inputs.shape}")
    for name in ("bias", "bias_codes"):
        array = getattr(layer, name)
        if array is not None and array.shape != kept.shape[:1]:
            raise InputError(f"{where}: {name} must be ({kept.shape[0]},), one an output, not {array.shape}")
    if layer.mask is not None and layer.mask.shape != kept.shape:
        raise InputError(f"{where}: mask must have the weight's shape {kept.shape}, not {layer.mask.shape}")
    if layer.bias is not None and layer.codes is not None:
        raise InputError(f"{where}: a layer with codes must give its bias as bias_codes, and gives it as bias")
    if layer.codes is None:
        for name in ("codebook", "bias_codes"):
            if getattr(layer, name) is not None:
                raise InputError(f"{where}: {name} must come with codes, and there are none; leave it out")
    else:
        _check_codes(layer, where)


def _check_linear(layer: LayerFields, shape: tuple[int, ...], where: str) -> None:
    inputs = layer.inputs.shape
    if len(inputs) < 2 or inputs[-1] != shape[1]:
        raise InputError(f"{where}: inputs must be (batch, ..., {shape[1]}) to meet weight {shape}, not {inputs}")
    if layer.gather is not None and (layer.gather.shape != inputs[:-1] or (layer.gather < 0).any()):
        met = layer.gather.shape if layer.gather.shape != inputs[:-1] else layer.gather.min()
        raise InputError(f"{where}: gather must be {inputs[:-1]} row numbers from 0, not {met}")
    _check_known(layer, ("chain", "chain_index", "samples"), where)
    _check_samples(layer, len(layer.inputs), "inputs", where)
    if "chain" not in layer.attributes and "chain_index" not in layer.attributes:
        return
    chain: Any = layer.attributes.get("chain")
    index: Any = layer.attributes.get("chain_index")
    widths = isinstance(chain, (tuple, list)) and all(_is_side(width, 1) for width in chain)
    if not (widths and _is_int(index) and 0 <= index < len(chain) - 1):
        raise InputError(
            f"{where}: chain must be the widths of layers and chain_index one of these, "
            f"not {chain!r:.80} and {index!r:.80}"
        )
    if tuple(chain[index : index + 2]) != (shape[1], shape[0]):
        raise InputError(f"{where}: chain must say {shape[1]}, {shape[0]} at {index}, as the weight does, not {chain}")


def _check_matmul(layer: LayerFields, shape: tuple[int, ...], where: str) -> None:
    inputs = layer.inputs.shape
    if len(inputs) != 3 or inputs[0] != shape[0] or inputs[2] != shape[2]:
        raise InputError(f"{where}: inputs must be ({shape[0]}, rows, {shape[2]}) to meet weight {shape}, not {inputs}")
    for name in ("bias", "codes", "mask"):
        if getattr(layer, name) is not None:
            raise InputError(f"{where}: matmul takes no {name}, its operands are activations; leave it out")
    _check_known(layer, ("samples",), where)
    _check_samples(layer, shape[0], "products", where)


def _check_samples(layer: LayerFields, count: int, what: str, where: str) -> None:
    """Raise InputError unless attribute samples says to how many samples ``count`` inputs or products belong."""
    if "samples" not in layer.attributes and layer.op != "matmul":
        return
    samples: Any = layer.attributes.get("samples")
    if not _is_int(samples) or samples < 1 or count % samples:
        raise InputError(
            f"{where}: samples must be a whole number that divides the {count} {what}, not {samples!r:.80}"
        )


def _check_sparse_conv(layer: LayerFields, shape: tuple[int, ...], where: str) -> None:
    _check_known(layer, tuple(DEFAULTS["sparse_conv3d"]), where)
    attributes = DEFAULTS["sparse_conv3d"] | dict(layer.attributes)
    for name, limit in (("kernel_size", 31), ("stride", 64), ("tensor_stride", 2**15)):
        if not (_is_int(attributes[name]) and 1 <= attributes[name] <= limit):
            raise InputError(f"{where}: {name} must be a whole number from 1 to {limit}, not {attributes[name]!r:.80}")
    for name in ("transposed", "builds_map"):
        if not isinstance(attributes[name], bool):
            raise InputError(f"{where}: {name} must be true or false, not {attributes[name]!r:.80}")
    if shape[2] != attributes["kernel_size"] ** 3:
        raise InputError(
            f"{where}: kernel_size {attributes['kernel_size']} needs a weight of {attributes['kernel_size'] ** 3} "
            f"offsets, not {shape[2]}"
        )
    for name in ("coordinates", "output_coordinates"):
        array = getattr(layer, name)
        if array is None:
            if name == "coordinates":
                raise InputError(f"{where}: coordinates are needed, one row a point")
            if attributes["stride"] > 1:
                raise InputError(
                    f"{where}: output_coordinates are needed where stride is {attributes['stride']}, not 1"
                )
            continue
        if array.ndim != 2 or array.shape[1] != 3 or len(array) == 0:
            raise InputError(f"{where}: {name} must be (points, 3) of at least one point, not {array.shape}")
        if int(np.abs(array.astype(np.int64)).max()) > COORDINATE_LIMIT:
            raise InputError(
                f"{where}: {name} must lie within +-{COORDINATE_LIMIT}, not {array.min()} to {array.max()}; "
                "use larger voxels"
            )
        _check_different(array, name, where)
    assert layer.coordinates is not None
    if layer.inputs is not None and layer.inputs.shape != (len(layer.coordinates), shape[1]):
        raise InputError(
            f"{where}: inputs must be ({len(layer.coordinates)}, {shape[1]}), one row a point, not {layer.inputs.shape}"
        )


def _check_different(points: np.ndarray, name: str, where: str) -> None:
    x, y, z = (points[:, axis].astype(np.int64) + 2**20 for axis in range(3))
    keys = x << 42 | y << 21 | z
    if (keys[1:] > keys[:-1]).all():  # as voxels usually come
        return
    keys.sort()
    twice = np.flatnonzero(keys[1:] == keys[:-1])
    if twice.size:
        key = int(keys[twice[0]])
        point = [(key >> shift & 2**21 - 1) - 2**20 for shift in (42, 21, 0)]
        raise InputError(f"{where}: {name} must all differ, and {point} occurs twice")


def _check_point_op(layer: LayerFields, where: str) -> None:
    kind: Any = layer.attributes.get("kind")
    if not isinstance(kind, str) or kind not in POINT_OPS:
        raise InputError(f"{where}: kind must be one of {', '.join(POINT_OPS)}, not {kind!r:.80}")
    _check_known(layer, ("kind", *POINT_OPS[kind]), where)
    if layer.inputs.ndim != 2 or layer.inputs.size == 0:
        raise InputError(f"{where}: inputs must be (points, dimensions), one at least, not {layer.inputs.shape}")
    count, dimensions = layer.inputs.shape
    for name in POINT_OPS[kind]:
        value: Any = layer.attributes.get(name)
        if name in ("k", "samples"):
            if not _is_int(value) or not 1 <= value <= count:
                raise InputError(
                    f"{where}: {name} must be a whole number from 1 to the {count} points, not {value!r:.80}"
                )
        elif name == "order":
            if value not in ("nearest", "index"):
                raise InputError(f"{where}: order must be nearest or index, not {value!r:.80}")
        elif not isinstance(value, (int, float)) or isinstance(value, bool) or not 0 < value < math.inf:
            raise InputError(f"{where}: {name} must be a number above 0, not {value!r:.80}")
    asked = count if layer.queries is None else len(layer.queries)
    if "k" in POINT_OPS[kind] and asked * layer.attributes["k"] > room(layer.inputs.size):
        raise InputError(
            f"{where}: {asked} points must have at most {room(layer.inputs.size)} neighbours in all, not "
            f"{layer.attributes['k']} each; take a smaller k"
        )
    if kind == "quantise" and dimensions != 3:
        raise InputError(f"{where}: inputs of quantise must be (points, 3), not {layer.inputs.shape}")
    queries = layer.queries
    if queries is not None and (
        kind not in ("knn", "ball_query") or queries.shape[1:] != (dimensions,) or not queries.size
    ):
        raise InputError(
            f"{where}: queries must be (points, {dimensions}), of knn or ball_query, not {queries.shape} of {kind}"
        )


def _check_known(layer: LayerFields, known: tuple[str, ...], where: str) -> None:
    unknown = set(layer.attributes) - set(known)
    if unknown:
        met = ", ".join(sorted(map(repr, unknown)))
        raise InputError(f"{where}: {layer.op} knows the attributes {', '.join(known)}, not {met}")


def _check_conv2d(layer: LayerFields, shape: tuple[int, ...], where: str) -> None:
    _check_known(layer, (*DEFAULTS["conv2d"], "samples"), where)
    attributes = DEFAULTS["conv2d"] | dict(layer.attributes)
    for name, least in (("stride", 1), ("padding", 0), ("dilation", 1)):
        pair = attributes[name]
        if not (isinstance(pair, (tuple, list)) and len(pair) == 2 and all(_is_side(v, least) for v in pair)):
            raise InputError(
                f"{where}: {name} must be two whole numbers from {least} to {ATTRIBUTE_LIMIT}, not {pair!r:.80}"
            )
    groups = attributes["groups"]
    if not _is_int(groups) or groups < 1 or shape[0] % groups:
        raise InputError(
            f"{where}: groups must be a whole number that divides the {shape[0]} outputs, not {groups!r:.80}"
        )
    channels = shape[1] * groups
    if layer.inputs.ndim != 4 or layer.inputs.shape[1] != channels:
        raise InputError(
            f"{where}: inputs must be (batch, {channels}, height, width) to meet weight {shape}, "
            f"not {layer.inputs.shape}"
        )
    _check_samples(layer, len(layer.inputs), "inputs", where)
    patches = len(layer.inputs) * channels * shape[2] * shape[3]
    for side in range(2):
        have = layer.inputs.shape[2 + side] + 2 * attributes["padding"][side]
        need = attributes["dilation"][side] * (shape[2 + side] - 1) + 1
        if have < need:
            raise InputError(f"{where}: the kernel must fit the padded input, and needs {need} of {have} cells")
        patches *= (have - need) // attributes["stride"][side] + 1
    if patches > room(layer.inputs.size):
        raise InputError(
            f"{where}: the input under the kernel, at all its places, must come to at most {room(layer.inputs.size)} "
            f"numbers, not {patches}; take less padding, or fewer samples"
        )


def _check_codes(layer: LayerFields, where: str) -> None:
    assert layer.codes is not None
    book = layer.codebook
    if book is None or book.ndim != 1 or not 2 <= book.size <= 256:
        met = None if book is None else book.shape
        raise InputError(f"{where}: codes need a codebook of 2 to 256 entries in one dimension, not {met}")
    if book[0] != 0:
        raise InputError(f"{where}: entry 0 of the codebook stands for pruned weights and must be 0.0, not {book[0]}")
    for name in ("codes", "bias_codes"):
        array = getattr(layer, name)
        if array is not None and array.size and array.max() >= book.size:
            raise InputError(f"{where}: {name} must be below the codebook's {book.size} entries, not {array.max()}")


def _check_mask(layer: LayerFields, where: str) -> None:
    if layer.mask is None:
        return
    kept = layer.weight if layer.codes is None else layer.codes
    assert kept is not None
    place = first_where(lambda weight, mask: (weight != 0) & ~mask, kept, layer.mask)
    if place is not None:
        raise InputError(
            f"{where}: weight must be 0 where the mask prunes it, and is {kept[place]} at {place}; "
            "multiply the weight by the mask before saving"
        )


def _is_side(value: Any, least: int) -> bool:
    return _is_int(value) and least <= value <= ATTRIBUTE_LIMIT


def _is_int(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)
