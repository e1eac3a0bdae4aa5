"""Networks on points as tables of stages: dense layers shared by all points, and pooling over neighbours.

A stage reads what the one before it left: points, their features, or one row for the whole cloud. What its dense
layers are fed, gathered rows among it, is in the layers that it makes; ReLU, pooling and sums stand between these.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TypeAlias

import numpy as np

from ..errors import InputError
from ..files.numbers import read_only
from ..trace import Layer
from .neighbours import ball_query, fps, knn
from .weights import Channels, Parameters, Weighted


@dataclass(frozen=True)
class State:
    """What a stage leaves: ``points`` (n, 3), their ``features`` (n, d) if any, and those of earlier ``stages``."""

    points: np.ndarray
    features: np.ndarray
    stages: tuple[np.ndarray, ...] = ()


@dataclass(frozen=True)
class Mlp:
    """Dense layers of ``widths`` on every row, each with a ReLU but, if ``is_last``, the last."""

    name: str
    widths: tuple[int, ...]
    is_last: bool = False

    def table(self, channels: Sequence[Channels]) -> tuple[list[Weighted], Channels]:
        """Return the layers with weights and the channels they leave; ``channels``: those of all stages before."""
        return _dense_table(self.name, channels[-1], self.widths, is_last=self.is_last)

    def run(self, state: State, parameters: Mapping[str, Parameters], slope: float) -> tuple[list[Layer], State]:
        """Return the layers on ``state`` and what they leave."""
        layers, rows = _dense(self, state.features[None], parameters, slope, is_last=self.is_last)
        return layers, replace(state, features=rows[0])


@dataclass(frozen=True)
class SetAbstraction:
    """``samples`` of the points, each with up to ``k`` others in ``radius``, through ``widths``; then the maximum.

    Without ``samples`` all points are one group, at their own coordinates. Neighbours are the first ``k`` by index, as
    the authors' operator takes them. Source: Qi et al., "PointNet++", NeurIPS 2017.
    """

    name: str
    widths: tuple[int, ...]
    samples: int | None = None
    radius: float = 0.0
    k: int = 0

    def table(self, channels: Sequence[Channels]) -> tuple[list[Weighted], Channels]:
        """As `Mlp.table`; a row is a neighbour's coordinates and its features, where there are any."""
        features = channels[-1] if len(channels) > 1 else ()
        return _dense_table(self.name, ((None, 3), *features), self.widths)

    def run(self, state: State, parameters: Mapping[str, Parameters], slope: float) -> tuple[list[Layer], State]:
        """As `Mlp.run`."""
        points, has_features = state.points, len(state.stages) > 1
        if self.samples is None:
            rows = np.concatenate([points, state.features], axis=1) if has_features else points
            layers, rows = _dense(self, rows[None], parameters, slope)
            return layers, State(points[:1], rows[0].max(axis=0, keepdims=True))
        _require(self.name, self.samples, points)
        chosen = fps(points, self.samples)
        centres = points[chosen]
        found, _ = ball_query(points, centres, self.radius, self.k, order="index")
        group = {"kind": "ball_query", "k": self.k, "radius": self.radius, "order": "index"}
        mapping = [
            Layer(name=f"{self.name}.fps", op="point_op", inputs=points,
                  attributes={"kind": "fps", "samples": self.samples}),
            Layer(name=f"{self.name}.group", op="point_op", inputs=points, queries=centres, attributes=group),
        ]  # fmt: skip
        rows = points[found] - centres[:, None]
        if has_features:
            rows = np.concatenate([rows, state.features[found]], axis=2)
        layers, rows = _dense(self, rows[None], parameters, slope, gather=found)
        return mapping + layers, State(centres, rows[0].max(axis=1))


@dataclass(frozen=True)
class EdgeConv:
    """The ``k`` nearest in the space of features, each through ``widths`` as (its difference, the own); the maximum.

    Source: Wang et al., "Dynamic Graph CNN", ACM Trans. Graphics 2019.
    """

    name: str
    widths: tuple[int, ...]
    k: int = 20

    def table(self, channels: Sequence[Channels]) -> tuple[list[Weighted], Channels]:
        """As `Mlp.table`."""
        return _dense_table(self.name, channels[-1] + channels[-1], self.widths)

    def run(self, state: State, parameters: Mapping[str, Parameters], slope: float) -> tuple[list[Layer], State]:
        """As `Mlp.run`."""
        own = state.features
        _require(self.name, self.k, own)
        found = knn(own, own, self.k)
        mapping = Layer(name=f"{self.name}.knn", op="point_op", inputs=own, attributes={"kind": "knn", "k": self.k})
        centres = np.broadcast_to(own[:, None], (*found.shape, own.shape[1]))
        rows = np.concatenate([own[found] - centres, centres], axis=2)
        layers, rows = _dense(self, rows[None], parameters, slope, gather=found)
        return [mapping, *layers], replace(state, features=rows[0].max(axis=1))


@dataclass(frozen=True)
class Transform:
    """A matrix of the features' own side, worked out of them by ``widths``, a maximum and ``head``; they meet it.

    Source: the T-Nets of Qi et al., "PointNet", CVPR 2017.
    """

    name: str
    widths: tuple[int, ...]
    head: tuple[int, ...]

    def table(self, channels: Sequence[Channels]) -> tuple[list[Weighted], Channels]:
        """As `Mlp.table`; what the matrix is applied to keeps its channels, and so does the matrix."""
        side = sum(width for _, width in channels[-1])
        rows, between = _dense_table(f"{self.name}.points", channels[-1], self.widths)
        head, _ = _dense_table(f"{self.name}.cloud", between, (*self.head, side * side), is_last=True)
        return rows + head, ((None, side),)

    def run(self, state: State, parameters: Mapping[str, Parameters], slope: float) -> tuple[list[Layer], State]:
        """As `Mlp.run`."""
        own = state.features
        points, rows = _dense(Mlp(f"{self.name}.points", self.widths), own[None], parameters, slope)
        whole = Mlp(f"{self.name}.cloud", (*self.head, own.shape[1] ** 2), is_last=True)
        cloud, rows = _dense(whole, rows.max(axis=1), parameters, slope, is_last=True)
        matrix = rows.reshape(1, own.shape[1], -1) + np.eye(own.shape[1], dtype=np.float32)
        turned = np.ascontiguousarray(matrix.transpose(0, 2, 1))
        product = Layer(
            name=f"{self.name}.product", op="matmul", inputs=own[None], weight=turned, attributes={"samples": 1}
        )
        return [*points, *cloud, product], replace(state, features=own @ matrix[0])


@dataclass(frozen=True)
class Pool:
    """The maximum over all points, and their mean beside it where ``has_mean``."""

    has_mean: bool = False

    def table(self, channels: Sequence[Channels]) -> tuple[list[Weighted], Channels]:
        """As `Mlp.table`."""
        return [], channels[-1] * (2 if self.has_mean else 1)

    def run(self, state: State, parameters: Mapping[str, Parameters], slope: float) -> tuple[list[Layer], State]:
        """As `Mlp.run`."""
        rows = [state.features.max(axis=0)] + ([state.features.mean(axis=0)] if self.has_mean else [])
        return [], State(state.points[:1], np.concatenate(rows)[None])


@dataclass(frozen=True)
class Join:
    """The features that the last ``stages`` stages left, side by side."""

    stages: int

    def table(self, channels: Sequence[Channels]) -> tuple[list[Weighted], Channels]:
        """As `Mlp.table`."""
        return [], tuple(part for stage in channels[-self.stages :] for part in stage)

    def run(self, state: State, parameters: Mapping[str, Parameters], slope: float) -> tuple[list[Layer], State]:
        """As `Mlp.run`."""
        return [], replace(state, features=np.concatenate(state.stages[-self.stages :], axis=1))


Stage: TypeAlias = Mlp | SetAbstraction | EdgeConv | Transform | Pool | Join


@dataclass(frozen=True)
class PointNetwork:
    """A network on ``samples`` points of a cloud, moved and scaled into the unit sphere.

    ``slope``: what its rectifiers make of negative values (LeakyReLU), 0 for ReLU.
    """

    description: str
    stages: tuple[Stage, ...]
    samples: int = 1024
    slope: float = 0.0

    @cached_property
    def weighted(self) -> tuple[Weighted, ...]:
        """Return its layers with weights, in order; what a transform multiplies keeps its channels."""
        table: list[Weighted] = []
        channels: list[Channels] = [((None, 3),)]
        for stage, following in zip(self.stages, (*self.stages[1:], None), strict=True):
            rows, left = stage.table(channels)
            if isinstance(following, Transform):
                rows[-1] = replace(rows[-1], group=None)
                left = ((None, rows[-1].width),)
            table += rows
            channels.append(left)
        return tuple(table)

    def run(self, points: np.ndarray, parameters: Mapping[str, Parameters]) -> tuple[list[Layer], np.ndarray]:
        """Return the layers of the network on ``points``, float32 (samples, 3), and its outputs, (1, classes)."""
        placed = unit_sphere(points)
        state = State(placed, placed, (placed,))
        layers: list[Layer] = []
        for stage in self.stages:
            made, left = stage.run(state, parameters, self.slope)
            layers += made
            state = replace(left, stages=(*state.stages, left.features))
        return layers, state.features


def unit_sphere(points: np.ndarray) -> np.ndarray:
    """Return ``points`` around their mean and at most 1 from it, float32; all at one place stay there."""
    centred = points.astype(np.float64) - points.mean(axis=0, dtype=np.float64)
    reach = np.sqrt(np.square(centred).sum(axis=1)).max()
    return np.asarray(centred / reach if reach else centred, np.float32)


def _dense_table(
    name: str, inputs: Channels, widths: Sequence[int], *, is_last: bool = False
) -> tuple[list[Weighted], Channels]:
    table = []
    for number, width in enumerate(widths, start=1):
        own = f"{name}.{number}"
        group = None if is_last and number == len(widths) else own
        table.append(Weighted(own, inputs, width, group))
        inputs = ((group, width),)
    return table, inputs


def _dense(
    stage: Mlp | SetAbstraction | EdgeConv,
    rows: np.ndarray,
    parameters: Mapping[str, Parameters],
    slope: float,
    *,
    is_last: bool = False,
    gather: np.ndarray | None = None,
) -> tuple[list[Layer], np.ndarray]:
    """Return the dense layers of ``stage`` on ``rows``, (1, ..., width), and what they make of them.

    ``gather``: which row of the table of points each row came from.
    """
    names = [f"{stage.name}.{number}" for number in range(1, len(stage.widths) + 1)]
    chain = [rows.shape[-1], *(len(parameters[name].weight) for name in names)]
    layers = []
    for index, name in enumerate(names):
        given = parameters[name]
        layers.append(
            Layer(
                name=name,
                op="linear",
                weight=given.weight,
                bias=given.bias,
                inputs=read_only(np.ascontiguousarray(rows)),
                gather=gather[None].astype(np.int32) if gather is not None and index == 0 else None,
                attributes={"chain": chain, "chain_index": index} if len(names) > 1 else {},
            )
        )
        rows = rows @ given.weight.T
        if given.bias is not None:
            rows += given.bias
        if not (is_last and index == len(names) - 1):
            np.maximum(rows, np.float32(slope) * rows, out=rows)
    return layers, rows


def _require(stage: str, least: int, points: np.ndarray) -> None:
    """Raise InputError unless there are at least as many ``points`` as ``stage`` takes."""
    if len(points) < least:
        raise InputError(f"{stage} needs at least {least} points, and there are {len(points)}; give more samples")
