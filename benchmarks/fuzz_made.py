"""What makes traces of arguments, or of other traces, given what nobody expects, for `fuzz`."""

from __future__ import annotations

import random
from functools import cache
from pathlib import Path
from typing import Any

import fuzz_readers
import fuzz_seeds as seeds
import numpy as np
from fuzz import Target
from fuzz_damage import FLOATS, NUMBERS, ODD_FLOATS, WORDS, damaged
from fuzz_readers import _archives, _container, _look, _npy, _npz, _write

from gossamer.workloads import load_trace, save_trace
from gossamer.workloads.dynamic.spatial import edit_layers
from gossamer.workloads.dynamic.temporal import delta_layers, shift_layers
from gossamer.workloads.dynamic.tokens import prune_tokens
from gossamer.workloads.importers.one_shot import parse_one_shot, prune_trace
from gossamer.workloads.importers.samples import read_samples
from gossamer.workloads.lstm_unroll import roll_lstm, unroll_lstm
from gossamer.workloads.points import read_cloud, voxelise, write_cloud
from gossamer.workloads.points.cloud import Cloud
from gossamer.workloads.points.kernel_map import kernel_map, maps_between
from gossamer.workloads.points.keys import downsample
from gossamer.workloads.points.neighbours import ball_query, fps, knn
from gossamer.workloads.points.network import POINT_NETWORKS, build
from gossamer.workloads.points.scenes import cad
from gossamer.workloads.points.statistics import statistics
from gossamer.workloads.synth import eie_layer, random_layer
from gossamer.workloads.synth.ese import ese_lstm
from gossamer.workloads.synth.gemm import gemm_layer
from gossamer.workloads.synth.vgg import vgg_layer
from gossamer.workloads.trace import Layer, Trace

BEYOND = (2**31 + 1, 2**40, 2**63, 10**30, 10**400, -1, -(2**63), 0)
OTHER = (None, True, "3", 2.5, float("nan"), float("inf"), [], "x", b"1", np.int64(3), np.float32(0.5))


def _count(rng: random.Random, most: int = 70) -> Any:
    """Return a number of things: mostly one that will do, now and then one that nobody has room for, or none at all."""
    kind = rng.random()
    return rng.randrange(1, most) if kind < 0.94 else rng.choice(BEYOND if kind < 0.98 else OTHER)


def _share(rng: random.Random) -> Any:
    kind = rng.random()
    if kind < 0.92:
        return rng.choice((0.0, 1.0, 1, 0.5, 0.75, rng.random(), rng.random(), 1e-9, 5e-324, 1 - 1e-12))
    return rng.choice((*FLOATS, *ODD_FLOATS, *NUMBERS) if kind < 0.97 else OTHER)


def _seed(rng: random.Random) -> Any:
    return rng.choice((0, 1, 2**32, 2**63, 2**64, 10**30)) if rng.random() < 0.96 else rng.choice((-1, *OTHER))


def synth(rng: random.Random, folder: Path) -> None:
    """Make layers and objects; what is made can be written and read."""
    kind = rng.randrange(20)
    if kind < 8:
        trace = random_layer(
            _count(rng), _count(rng), _share(rng), _share(rng), row_sigma=_share(rng), seed=_seed(rng),
            samples=_count(rng, 4), bias=rng.random() < 0.5, name=rng.choice(("r", "r", "r", *WORDS)),
        )  # fmt: skip
    elif kind < 16:
        parts = ("2:4", "1:8", "dense", "random:0.5", "random:", "random:nan", "4:2:4", "8:1:16", ":", "0:4", "5:4")
        text = rng.choice(parts) if rng.random() < 0.8 else ":".join(rng.choice(WORDS) for _ in range(3))
        given = (_count(rng), _count(rng), _count(rng, 9), text)
        trace = gemm_layer(*given, act_density=_share(rng), seed=_seed(rng), name=rng.choice(("g", "g", *WORDS)))
    elif kind == 16:
        trace = eie_layer(rng.choice(("nt-lstm", *WORDS)), row_sigma=_share(rng), seed=_seed(rng))
    elif kind == 17:
        how = rng.choice(("balanced", "global", *WORDS))
        trace = ese_lstm(row_sigma=_share(rng), pruning=how, samples=_count(rng, 3), steps=_count(rng, 3))
    elif kind == 18:
        connectivity = rng.choice((3.6, 1, _share(rng)))
        patterns, sigma = rng.choice((8, _count(rng))), _share(rng)
        trace = vgg_layer("L1", connectivity=connectivity, patterns=patterns, filter_sigma=sigma, seed=_seed(rng))
    else:
        cloud = cad(rng.randrange(9), rng.choice((None, "chair", *WORDS)), points=_count(rng, 300))
        path = folder / ("c" + rng.choice((".ply", ".npy", ".npz", ".bin", ".off", ".x")))
        write_cloud(cloud, path)
        assert len(read_cloud(path).points) == len(cloud.points)
        return
    _look(load_trace(save_trace(trace, folder / "t.safetensors")))


@cache
def _attention() -> Trace:
    """Return a trace of two attentions over 6 tokens, with 2 heads of 2 samples."""
    rng, heads, samples, tokens, width = np.random.default_rng(3), 2, 2, 6, 8

    def by_head(values: np.ndarray) -> np.ndarray:
        parts = values.reshape(samples, tokens, heads, -1).transpose(0, 2, 1, 3)
        return np.ascontiguousarray(parts.reshape(samples * heads, tokens, -1))

    x, layers = seeds.sparse(rng, samples, tokens, width, density=1), []
    about: dict[str, Any] = {"op": "matmul", "attributes": {"samples": samples}}
    for block in range(2):
        weights = {name: seeds.sparse(rng, width, width) for name in ("q", "k", "v", "out")}
        q, k, v = (by_head(x @ weights[name].T) for name in ("q", "k", "v"))
        scores = np.exp(q @ k.transpose(0, 2, 1))
        probabilities = (scores / scores.sum(-1, keepdims=True)).astype(np.float32)
        mixed = (probabilities @ v).reshape(samples, heads, tokens, -1).transpose(0, 2, 1, 3)
        mixed = np.ascontiguousarray(mixed).reshape(samples, tokens, width)
        layers += [Layer(name=f"{block}.{name}", op="linear", weight=weights[name], inputs=x) for name in "qkv"]
        layers.append(Layer(name=f"{block}.qk", weight=k, inputs=q, **about))
        layers.append(
            Layer(name=f"{block}.pv", weight=np.ascontiguousarray(v.transpose(0, 2, 1)), inputs=probabilities, **about)
        )
        layers.append(Layer(name=f"{block}.out", op="linear", weight=weights["out"], inputs=mixed))
        x = np.tanh(x + mixed @ weights["out"].T)
    return Trace(name="attention", layers=layers)


def _shares(rng: random.Random) -> list[Any]:
    return [_share(rng) for _ in range(rng.choice((1, 1, 1, 2, 2, 2, 3, 0)))]


def transform(rng: random.Random, folder: Path) -> None:
    """Make one trace of another by any of the ways there are, and write it."""
    way, pattern = rng.randrange(7), rng.choice(("*", "*", "*", "*", "*", "l0", "x*", "[", rng.choice(WORDS)))
    fit = ((), ("conv2d", "grouped"), ("linear", "coded")) if way == 6 else (("lstm",), ("lstm", "linear"))
    fit = (("conv2d",), ("conv2d", "linear"), ("conv2d", "coded")) if way < 5 else fit
    trace = seeds.trace(*rng.choice(((), ("lstm",), ("conv2d", "grouped"), *fit * 3)))
    if way == 0:
        made = prune_tokens(_attention(), _shares(rng), heads=_shares(rng), values=_share(rng)).trace
    elif way == 1:
        made = delta_layers(trace, _share(rng), steps=rng.random() < 0.3, layers=pattern).trace
    elif way == 2:
        made = shift_layers(trace, _share(rng), two_sided=rng.random() < 0.5, layers=pattern).trace
    elif way < 5:
        edit = None
        if rng.random() < 0.6:
            sides = rng.choice(((6, 6), (6, 6), (6, 6), (5, 4), (1, 1), (0, 6), (6,), (6, 6, 1)))
            edit = np.zeros(sides, rng.choice((bool, bool, bool, np.float32, np.int8)))
            edit[:2] = rng.choice((0, 1))
        places = [rng.choice((0, 0, 1, _count(rng))) for _ in range(2)]
        made = edit_layers(
            trace, block=_count(rng, 9), original=places[0], edited=places[1], edit=edit,
            threshold=_share(rng) if edit is None or rng.random() < 0.1 else 0.0,
            dilation=None if edit is None and rng.random() < 0.9 else rng.choice((None, 1, _count(rng))),
        ).trace  # fmt: skip
    elif way == 5:
        made = rng.choice((unroll_lstm, roll_lstm))(rng.choice((trace, unroll_lstm(seeds.trace("lstm")))))
    else:
        text = _rule(rng)
        exclude = rng.choice(((), (), ("l0",), ("*",), (rng.choice(WORDS),)))
        made = prune_trace(trace, parse_one_shot(text), text, exclude)
    _look(load_trace(save_trace(made, folder / "t.safetensors")))


def _rule(rng: random.Random) -> str:
    """Return what might be a rule of pruning once."""
    if rng.random() < 0.3:
        return "".join(rng.choice((":", ":", "2", "4", "0.5", "x", *WORDS)) for _ in range(rng.randrange(6)))
    share = rng.choice(("0", "0.5", "0.999999999999", "1e-300", "0.9", "nan", "1", "-0.0", "-1", "0x1"))
    number = rng.choice(("1", "2", "4", "64", "999999999", "0", "99999", "\u0663"))
    forms = ("2:4", "1:9999", f"{number}:4", f"{number}:{number}", share, f"global:{share}", f"channel:{share}",
             f"balanced:{share}:{number}", f"block:{share}:{number}x2", f"equal-blocks:{share}:2x{number}")  # fmt: skip
    return rng.choice(forms)


def _points(rng: random.Random) -> Any:
    """Return points: few, in a line, in one place, far away, or none."""
    made = np.random.default_rng(rng.randrange(99)).normal(size=(rng.choice((1, 2, 5, 40)), 3)).astype(np.float32)
    kind = rng.randrange(12)
    if kind == 0:
        made[:] = made[0]
    elif kind == 1:
        made[:, 1:] = 0
    elif kind == 2:
        made *= np.float32(rng.choice((1e-40, 1e-8, 1e4, 1e8, 1e30)))
    elif kind == 3:
        made[rng.randrange(len(made)), rng.randrange(3)] = rng.choice((*ODD_FLOATS, 3e38, -1e30))
    elif kind == 4:
        return rng.choice((made[:0], made[:, :2], made[0], made[None], made.astype(np.int64), made.tolist(), None))
    elif kind == 5:
        return made.astype(np.float64) * rng.choice((1, 1e300))
    return made


def points(rng: random.Random, folder: Path) -> None:
    """Ask odd questions of odd points."""
    cloud, way = _points(rng), rng.randrange(9)
    if way == 0:
        downsample(voxelise(cloud, _size(rng))[0], rng.choice((1, 2, 64, _count(rng))))
    elif way == 1:
        fps(cloud, _count(rng, 9), rng.choice((0, 0, 1, _count(rng))))
    elif way == 2:
        knn(cloud, _points(rng), _count(rng, 9))
    elif way == 3:
        order: Any = rng.choice(("nearest", "index", "x"))
        ball_query(cloud, _points(rng), _size(rng), _count(rng, 9), order)
    elif way == 4:
        stride = {"tensor_stride": rng.choice((1, 1, 2, 4, _count(rng)))}
        coords, kernel_size = voxelise(cloud, _size(rng))[0], rng.choice((3, 3, 2, 5, _count(rng)))
        kernel_map(coords, kernel_size, rng.choice((1, 2, _count(rng))), **stride)
    elif way == 5:
        first, second = (voxelise(_points(rng), _size(rng))[0] for _ in range(2))
        maps_between(first, second, rng.choice((3, 3, 1, _count(rng))), rng.choice((1, 2, _count(rng))))
    elif way == 6:
        statistics(cloud, _size(rng), tuple(_count(rng) for _ in range(rng.randrange(3))))
    else:
        network = rng.choice((*POINT_NETWORKS, *POINT_NETWORKS, *POINT_NETWORKS, rng.choice(WORDS)))
        many = {"samples": rng.choice((None, 1, 8, 30, _count(rng)))}
        given = {key: _share(rng) for key in ("sparsity", "channel_sparsity") if rng.random() < 0.3}
        voxel_size = rng.choice((None, None, _size(rng)))
        build(network, cloud, voxel_size=voxel_size, seed=_seed(rng), features=rng.random() < 0.1, **many, **given)


def _size(rng: random.Random) -> Any:
    return rng.choice((0.05, 0.5, 1, 10.0)) if rng.random() < 0.7 else _share(rng)


def cloud_values(rng: random.Random, folder: Path) -> None:
    """Write a cloud of odd points as a whole file and read it."""
    found, suffix = _points(rng), rng.choice((".bin", ".ply", ".npy", ".npz", ".off"))
    name = rng.choice(("c", "c", *(word for word in WORDS if "/" not in word)))
    made = Cloud(found, name, rng.choice((None, None, np.ones(5, np.float32), np.full(5, np.nan, np.float32))))
    write_cloud(made, folder / f"c{suffix}")
    assert len(read_cloud(folder / f"c{suffix}").points) == len(made.points)


def drawn(rng: random.Random, folder: Path) -> None:
    """Read a whole file of weights with odd wishes for what is drawn."""
    files = (("w.npz", rng.choice(_archives())), ("w.safetensors", rng.choice(seeds.container_files())),
             ("m.mtx", rng.choice(seeds.MTX)), ("m.smtx", rng.choice(seeds.SMTX)))  # fmt: skip
    given: dict[str, Any] = {"act_density": rng.choice((0.5, _share(rng)))}
    if rng.random() < 0.5:
        given["samples"] = _count(rng, 5)
    if rng.random() < 0.5:
        given["seed"] = _seed(rng)
    if rng.random() < 0.7:
        sides = [_count(rng, 9), _count(rng, 9), 1]
        given["input_size"] = rng.choice((tuple(sides[:2]), tuple(sides[:2]), sides[:2], sides, 6, "6x6", ()))
    _look(load_trace(_write(folder, *rng.choice(files)), **given))


def samples(rng: random.Random, folder: Path) -> None:
    """Read samples for somebody's model."""
    suffix = rng.choice((".npy", ".npz", ".safetensors", ".txt"))
    if suffix == ".npz":
        data = _npz(rng)
    elif suffix == ".safetensors":
        data = _container(rng, rng.choice(seeds.container_files()))
    else:
        data = _npy(rng) if rng.random() < 0.5 else damaged(rng, seeds.npy(np.ones((1, 3, 6, 6), np.float32)))
    for array in read_samples(_write(folder, f"x{suffix}", data)).values():
        assert np.isfinite(array.astype(np.float64)).all()


def prepare() -> None:
    """Make what is asked for, once, so that kernels are compiled."""
    fuzz_readers.prepare()
    _attention()
    rng = np.random.default_rng(1)
    for network in POINT_NETWORKS:
        build(network, rng.normal(size=(1024, 3)).astype(np.float32))
    knn(np.eye(3, dtype=np.float32), np.eye(3, dtype=np.float32), 1)
    ball_query(np.eye(3, dtype=np.float32), np.eye(3, dtype=np.float32), 1.0, 1)


TARGETS = (
    Target("synth", synth, 40, limit_s=10),
    Target("transform", transform, 60),
    Target("points", points, 60, limit_s=10),
    Target("cloud-values", cloud_values, 30),
    Target("drawn", drawn, 40),
    Target("samples", samples, 30),
)
