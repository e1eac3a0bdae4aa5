"""What a layer asks of PointAcc's memory and matrix unit: which row meets which weight for which output, and widths."""

from __future__ import annotations

import hashlib
from collections.abc import Hashable
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from ....simulator.memo import Memo
from ....workloads.points.kernel_map import Maps, transposed
from ....workloads.points.keys import pack
from ....workloads.points.sparse_conv import layer_maps
from ....workloads.trace import Layer
from .config import Config


@dataclass(frozen=True, eq=False)
class Work:
    """Rows that are multiplied with the weights of offsets and added up.

    ``maps``: (rows of the input table, rows of the output) of each offset, sorted by the output. ``inputs`` and
    ``outputs``: rows of the tables, of ``channels`` and ``width`` words. ``map_indices``: how many indices of an entry
    are stored: 2 of a kernel map, 1 of gathered rows, 0 where entry i is row i. ``weights_together``: words of weights
    that have to stay on chip together to be loaded once; those of the layer, or of all that are fused with it.
    ``inputs_on_chip``, ``outputs_on_chip``: they are passed on by fusion, at most ``tile`` rows at a time. ``key``
    names the maps, for a memo.
    """

    maps: Maps
    inputs: int
    outputs: int
    channels: int
    width: int
    map_indices: int
    weights_together: int
    has_bias: bool
    key: Hashable
    inputs_on_chip: bool = False
    outputs_on_chip: bool = False
    tile: int | None = None

    @property
    def entries(self) -> int:
        """Count the entries of all offsets."""
        return sum(len(into) for into, _ in self.maps)

    @property
    def macs(self) -> int:
        """Count the multiply-accumulates; the array skips no zeros."""
        return self.entries * self.channels * self.width

    @cached_property
    def into(self) -> np.ndarray:
        """The input rows of all offsets, one after another."""
        return np.concatenate([into for into, _ in self.maps])

    @cached_property
    def outof(self) -> np.ndarray:
        """The output rows of all offsets, one after another."""
        return np.concatenate([out for _, out in self.maps])


def work_of(config: Config, layer: Layer, memo: Memo) -> Work:
    """Return the work of a sparse_conv3d, linear or matmul ``layer``; the workload's maps, not a unit's."""
    weights = layer.kept.size + layer.shape[0] * layer.has_bias
    if layer.op == "linear":
        return _dense(config, layer, weights)
    if layer.op == "matmul":
        return _products(layer, weights)
    coordinates, outputs = clouds(layer)
    return Work(
        maps=stored_maps(layer, maps_of(layer, memo)),
        inputs=len(coordinates),
        outputs=len(outputs),
        channels=layer.shape[1],
        width=layer.shape[0],
        map_indices=0 if is_identity(layer) else 2,
        weights_together=weights,
        has_bias=layer.has_bias,
        key=(map_key(layer, memo), layer.attributes["transposed"]),
    )


def fused(config: Config, chain: tuple[int, ...]) -> list[range]:
    """Return which layers of a ``chain`` of widths run as one, first to last: the groups that hold them.

    A group takes in the next layer while the features between its layers, those of two neighbours at once, fit into
    the feature memory for fuse_tile rows, and its weights and biases into the weight buffer.
    """
    groups, first = [], 0
    features, weights = 0, (chain[0] + 1) * chain[1]  # between the layers of the group; of all of them
    for layer in range(1, len(chain) - 1):
        pair = chain[layer] + (chain[layer - 1] if layer - 1 > first else 0)
        features, weights = max(features, pair), weights + (chain[layer] + 1) * chain[layer + 1]
        if (
            not config.fuse_layers
            or features * config.fuse_tile * config.word_bytes > config.cache_bytes
            or weights * config.word_bytes > config.weight_buffer_bytes
        ):
            groups.append(range(first, layer))
            first, features, weights = layer, 0, (chain[layer] + 1) * chain[layer + 1]
    return [*groups, range(first, len(chain) - 1)]


def clouds(layer: Layer) -> tuple[np.ndarray, np.ndarray]:
    """Return the coordinates of inputs and outputs of a sparse_conv3d ``layer``, (n, 3) each."""
    assert layer.coordinates is not None
    return layer.coordinates, layer.coordinates if layer.output_coordinates is None else layer.output_coordinates


def is_identity(layer: Layer) -> bool:
    """Tell whether a sparse_conv3d ``layer`` needs no map, as a kernel of one cell on the inputs' own places."""
    return layer.attributes["kernel_size"] == 1 and layer.output_coordinates is None


def maps_of(layer: Layer, memo: Memo) -> Maps:
    """Return the kernel maps of ``layer``, found once for all layers that share them."""
    is_transposed = layer.attributes["transposed"]
    down = memo(map_key(layer, memo), lambda: transposed(layer_maps(layer)) if is_transposed else layer_maps(layer))
    return transposed(down) if is_transposed else down


def stored_maps(layer: Layer, maps: Maps) -> Maps:
    """Return the kernel ``maps`` of ``layer`` in rows of the tables: a table lies in the order of its points' keys."""
    places = [_places(cloud) for cloud in clouds(layer)]
    if places[0] is None and places[1] is None:
        return maps
    return [
        tuple(side if place is None else place[side] for side, place in zip(pair, places, strict=True))  # type: ignore[misc]
        for pair in maps
    ]


def map_key(layer: Layer, memo: Memo) -> Hashable:
    """Return what names the kernel maps of ``layer``: those of a transposed layer are its downsampling's."""

    def build() -> Hashable:
        # Layers read from a file have arrays of their own, and clouds that are alike all the same.
        fine, coarse = (
            hashlib.blake2b(np.ascontiguousarray(cloud).data, digest_size=16).digest() for cloud in clouds(layer)
        )
        if layer.attributes["transposed"]:
            fine, coarse = coarse, fine
        return "kernel maps", fine, coarse, layer.attributes["kernel_size"], layer.attributes["tensor_stride"]

    return memo((layer, "map key"), build)  # type: ignore[no-any-return]


def _places(cloud: np.ndarray) -> np.ndarray | None:
    """Return the place of each point of ``cloud`` in the order of the keys, None where that is the cloud's own."""
    keys = pack(cloud)
    if (keys[1:] > keys[:-1]).all():
        return None
    places = np.empty(len(keys), np.int64)
    places[np.argsort(keys)] = np.arange(len(keys))
    return places


def _dense(config: Config, layer: Layer, weights: int) -> Work:
    rows = layer.inputs.size // layer.shape[1]
    out = np.arange(rows)
    into = out if layer.gather is None else layer.gather.ravel().astype(np.int64)
    chain = layer.attributes.get("chain", ())
    inputs_on_chip = outputs_on_chip = False
    tile = None
    if chain:
        index = layer.attributes["chain_index"]
        group = next(group for group in fused(config, tuple(chain)) if index in group)
        inputs_on_chip, outputs_on_chip = index > group.start, index + 1 < group.stop
        if len(group) > 1:
            weights, tile = sum((chain[i] + 1) * chain[i + 1] for i in group), config.fuse_tile
    return Work(
        maps=[(into, out)],
        inputs=int(into.max()) + 1,
        outputs=rows,
        channels=layer.shape[1],
        width=layer.shape[0],
        map_indices=0 if layer.gather is None or inputs_on_chip else 1,
        weights_together=weights,
        has_bias=layer.has_bias,
        key=layer,
        inputs_on_chip=inputs_on_chip,
        outputs_on_chip=outputs_on_chip,
        tile=tile,
    )


def _products(layer: Layer, weights: int) -> Work:
    """Return the work of a matmul: each product is an offset of its own, whose entries are the product's rows."""
    products, rows, channels = layer.inputs.shape
    own = np.arange(products * rows).reshape(products, rows)
    return Work(
        maps=[(mine, mine) for mine in own],
        inputs=products * rows,
        outputs=products * rows,
        channels=channels,
        width=layer.shape[1],
        map_indices=0,
        weights_together=weights,
        has_bias=False,
        key=layer,
    )
