"""A trace: a pruned network, layer by layer, with the activations that real samples gave it.

Everything here is frozen and checked when it is made: a `Trace` that exists keeps every rule of `check_layer`.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from functools import cached_property
from typing import Any

import msgspec
import numpy as np

from .errors import InputError
from .patterns import Pattern

VERSION = 1
OPS = {"linear": 2, "conv2d": 4}  # op: dimensions of its weight
CONV2D_DEFAULTS: dict[str, Any] = {"stride": (1, 1), "padding": (0, 0), "dilation": (1, 1), "groups": 1}
ATTRIBUTE_LIMIT = 2**16  # no network pads or strides further; a damaged number would ask for all memory there is
ARRAYS = ("weight", "bias", "mask", "codes", "bias_codes", "codebook", "inputs")


def _no_weight() -> Any:
    return None


@dataclass(frozen=True, eq=False, kw_only=True)
class Layer:
    """One layer of a trace.

    ``weight`` is float32, (out, in) for ``linear`` and (out, in / groups, height, width) for ``conv2d``, zero where
    pruned. A layer may instead carry ``codes`` (uint8, same shape, 0 = pruned) with their ``codebook`` (float32, entry
    0 is 0.0); its ``weight`` is then ``codebook[codes]``, made when first asked for.
    ``inputs`` is float32, (batch, ..., in) or (batch, in, height, width): the activations this layer was fed, of at
    least one sample.
    ``bias`` is (out,), or ``bias_codes`` into the same codebook. ``mask`` is True where a weight was kept; without one
    every nonzero weight was. ``attributes`` of ``conv2d``: stride, padding, dilation (pairs) and groups.
    Raises InputError, naming layer, tensor, rule and value, for anything that breaks the rules.
    """

    name: str
    op: str
    inputs: np.ndarray
    # default_factory, not default: a class attribute would hide __getattr__, which makes the weight of coded layers.
    weight: np.ndarray = field(default_factory=_no_weight)
    bias: np.ndarray | None = None
    mask: np.ndarray | None = None
    codes: np.ndarray | None = None
    bias_codes: np.ndarray | None = None
    codebook: np.ndarray | None = None
    pattern: Pattern = field(default_factory=Pattern)
    attributes: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        check_layer(self)
        for name in ARRAYS:
            array = self.__dict__.get(name)
            if array is not None:
                # A copy where someone could still write: torch's arrays go on changing while it trains.
                array = np.array(array, order="C", copy=True if array.flags.writeable else None)
                array.flags.writeable = False
                object.__setattr__(self, name, array)
        attributes = (CONV2D_DEFAULTS if self.op == "conv2d" else {}) | dict(self.attributes)
        plain = {name: tuple(value) if isinstance(value, list) else value for name, value in attributes.items()}
        object.__setattr__(self, "attributes", plain)
        if self.__dict__["weight"] is None:
            del self.__dict__["weight"]

    def __getattr__(self, name: str) -> Any:
        if name != "weight":
            raise AttributeError(f"{type(self).__name__} has no attribute {name!r}")
        assert self.codes is not None and self.codebook is not None
        weight = self.codebook[self.codes]
        weight.flags.writeable = False
        self.__dict__["weight"] = weight
        return weight

    def array(self, name: str) -> np.ndarray | None:
        """Return the array called ``name`` that the layer was given, or None; a coded layer was given no weight."""
        if name == "weight" and self.codes is not None:
            return None
        array: np.ndarray | None = self.__dict__.get(name)
        return array

    @property
    def kept(self) -> np.ndarray:
        """The array whose nonzeros are the weights that are left: the codes where there are any, else the weight."""
        return self.weight if self.codes is None else self.codes

    @property
    def shape(self) -> tuple[int, ...]:
        """Return the shape of the weight."""
        return self.kept.shape

    @property
    def has_bias(self) -> bool:
        """Tell whether the layer adds a bias."""
        return self.bias is not None or self.bias_codes is not None

    @cached_property
    def nonzeros(self) -> int:
        """Count the weights that are left."""
        return int(np.count_nonzero(self.kept))

    @property
    def sparsity(self) -> float:
        """Return the fraction of weights that are zero."""
        return 1 - self.nonzeros / self.kept.size if self.kept.size else 0.0


@dataclass(frozen=True, eq=False, kw_only=True)
class Trace:
    """A pruned network with its activations: layers in order, and where they come from.

    ``provenance`` is plain JSON data: network, data, recipe with its hyperparameters, seed, accuracy, sparsity, source.
    """

    name: str
    layers: tuple[Layer, ...]
    provenance: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        check_name("trace name", self.name)
        object.__setattr__(self, "layers", tuple(self.layers))
        if not self.layers:
            raise InputError(f"trace {self.name}: at least one layer is needed, not 0")
        seen: set[str] = set()
        for layer in self.layers:
            if layer.name in seen:
                raise InputError(
                    f"trace {self.name}: layer names must differ, and {layer.name!r} occurs twice; rename one"
                )
            seen.add(layer.name)
        try:
            plain = _plain_json(self.provenance, "provenance")
            if not isinstance(plain, dict):
                raise InputError(f"provenance must be a dict, not {type(plain).__name__}")
        except RecursionError:
            raise InputError(f"trace {self.name}: provenance must not be nested without end; flatten it") from None
        except InputError as error:
            raise InputError(f"trace {self.name}: {error}") from None
        object.__setattr__(self, "provenance", plain)

    @property
    def sparsity(self) -> float:
        """Return the fraction of all weights that are zero."""
        size = sum(layer.kept.size for layer in self.layers)
        return 1 - sum(layer.nonzeros for layer in self.layers) / size if size else 0.0

    @cached_property
    def sha256(self) -> str:
        """Return the hash of everything in the trace, whichever file or program it came from (hexadecimal).

        Zero and negative zero count as the same number.
        """
        digest = hashlib.sha256()
        head = {"name": self.name, "provenance": self.provenance}
        digest.update(msgspec.json.encode(head, order="deterministic"))
        for layer in self.layers:
            pattern = {f.name: getattr(layer.pattern, f.name) for f in fields(layer.pattern)}
            about = [layer.name, layer.op, dict(layer.attributes), pattern]
            digest.update(msgspec.json.encode(about, order="deterministic"))
            for name in ARRAYS:
                array = layer.array(name)
                if array is None:
                    continue
                digest.update(f"{name} {array.dtype.str} {array.shape}".encode())
                if array.dtype.kind == "f":
                    array = array + array.dtype.type(0)  # -0.0 becomes 0.0
                digest.update(np.ascontiguousarray(array).data)
        return digest.hexdigest()


def check_layer(layer: Layer) -> None:
    """Raise InputError for the first rule that ``layer`` breaks; the message names layer, tensor, rule and value."""
    check_name("layer name", layer.name)
    where = f"layer {layer.name}"
    if layer.op not in OPS:
        raise InputError(f"{where}: op must be one of {', '.join(OPS)}, not {layer.op!r}")
    _check_arrays(layer, where)
    _check_shapes(layer, where)
    _check_mask(layer, where)
    kept = layer.weight if layer.codes is None else layer.codes
    layer.pattern.check(kept if layer.mask is None else layer.mask, where)


def check_name(what: str, name: object) -> None:
    """Raise InputError unless ``name``, the value of ``what``, is text that fits in a line of a table."""
    if not isinstance(name, str) or not name or not name.isprintable():
        raise InputError(f"{what} must be a nonempty string of printable characters, not {name!r}")


def _plain_json(value: object, place: str) -> Any:
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
        return {str(key): _plain_json(item, f"{place}.{key}") for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain_json(item, f"{place}[{i}]") for i, item in enumerate(value)]
    raise InputError(f"{place} must be plain JSON data (finite numbers, text, lists, dicts by name), not {value!r:.80}")


def _check_arrays(layer: Layer, where: str) -> None:
    if (layer.weight is None) == (layer.codes is None):
        have = "neither" if layer.weight is None else "both"
        raise InputError(f"{where}: exactly one of weight and codes must be given, not {have}")
    wanted = {"mask": np.bool_, "codes": np.uint8, "bias_codes": np.uint8}
    for name in ARRAYS:
        array = getattr(layer, name)
        if array is None:
            if name == "inputs":
                raise InputError(f"{where}: inputs are needed; draw some where none were recorded, as load_trace does")
            continue
        dtype = np.dtype(wanted.get(name, np.float32))
        if not isinstance(array, np.ndarray) or array.dtype != dtype:
            met = getattr(array, "dtype", type(array).__name__)
            raise InputError(f"{where}: tensor {name} must be {dtype}, not {met}; convert it with astype('{dtype}')")
        if dtype == np.float32 and not np.isfinite(array).all():
            place = tuple(int(i) for i in np.argwhere(~np.isfinite(array))[0])
            raise InputError(
                f"{where}: tensor {name} must be finite, and holds {array[place]} at {place}; replace such values"
            )


def _check_shapes(layer: Layer, where: str) -> None:
    kept = layer.weight if layer.codes is None else layer.codes
    assert kept is not None
    if kept.ndim != OPS[layer.op]:
        raise InputError(f"{where}: the weight of {layer.op} must have {OPS[layer.op]} dimensions, not {kept.shape}")
    if 0 in kept.shape:
        raise InputError(f"{where}: every side of the weight must be at least 1, not {kept.shape}")
    if layer.op == "conv2d":
        _check_conv2d(layer, kept.shape, where)
    elif layer.attributes:
        met = ", ".join(map(repr, layer.attributes))
        raise InputError(f"{where}: linear takes no attributes, and has {met}; leave them out")
    elif layer.inputs.ndim < 2 or layer.inputs.shape[-1] != kept.shape[1]:
        raise InputError(
            f"{where}: inputs must be (batch, ..., {kept.shape[1]}) to meet weight {kept.shape}, "
            f"not {layer.inputs.shape}"
        )
    if layer.inputs.size == 0:
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


def _check_conv2d(layer: Layer, shape: tuple[int, ...], where: str) -> None:
    unknown = set(layer.attributes) - set(CONV2D_DEFAULTS)
    if unknown:
        known = ", ".join(CONV2D_DEFAULTS)
        met = ", ".join(sorted(map(repr, unknown)))
        raise InputError(f"{where}: conv2d knows the attributes {known}, not {met}")
    attributes = CONV2D_DEFAULTS | dict(layer.attributes)
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
    for side in range(2):
        have = layer.inputs.shape[2 + side] + 2 * attributes["padding"][side]
        need = attributes["dilation"][side] * (shape[2 + side] - 1) + 1
        if have < need:
            raise InputError(f"{where}: the kernel must fit the padded input, and needs {need} of {have} cells")


def _check_codes(layer: Layer, where: str) -> None:
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


def _check_mask(layer: Layer, where: str) -> None:
    if layer.mask is None:
        return
    kept = layer.weight if layer.codes is None else layer.codes
    broken = (kept != 0) & ~layer.mask
    if broken.any():
        place = tuple(int(i) for i in np.argwhere(broken)[0])
        raise InputError(
            f"{where}: weight must be 0 where the mask prunes it, and is {kept[place]} at {place}; "
            "multiply the weight by the mask before saving"
        )


def _is_side(value: Any, least: int) -> bool:
    return _is_int(value) and least <= value <= ATTRIBUTE_LIMIT


def _is_int(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)
