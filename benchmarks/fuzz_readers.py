"""The readers of traces, weights and point clouds, for `fuzz`."""

from __future__ import annotations

import gzip
import io
import json
import random
import shutil
import warnings
import zipfile
from functools import cache
from pathlib import Path
from typing import Any

import fuzz_seeds as seeds
import numpy as np
from fuzz import Target
from fuzz_damage import MARK, NUMBERS, WORDS, damaged, harmed, json_bytes, value

from gossamer.workloads import load_trace
from gossamer.workloads.data.cifar import _read as read_cifar
from gossamer.workloads.data.mnist import read_idx
from gossamer.workloads.files import streamed
from gossamer.workloads.files.drawn import Draw
from gossamer.workloads.files.trace_file import KEY
from gossamer.workloads.points import read_cloud
from gossamer.workloads.points.off import read_mesh
from gossamer.workloads.points.weights import Weighted, read_weights

DRAW: dict[str, Any] = {"act_density": 0.5, "input_size": (6, 6)}


def _write(folder: Path, name: str, data: bytes) -> Path:
    path = folder / name
    path.write_bytes(data)
    return path


def remove(path: Path) -> None:
    """Remove what is at ``path``, a folder with all that is in it."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink()


def _container(rng: random.Random, data: bytes) -> bytes:
    """Return a container damaged in its header, or in the text that its metadata holds, or anywhere."""
    kind = rng.randrange(4)
    if kind == 0:
        return damaged(rng, data, rng.choice(seeds.trace_files()))
    size = int.from_bytes(data[:8], "little")
    head, body = json.loads(data[8 : 8 + size]), data[8 + size :]
    metadata = head.get("__metadata__", {})
    if kind == 1 and KEY in metadata:
        text = json_bytes(rng, harmed(rng, json.loads(metadata[KEY]))).decode("utf-8", "replace")
        head["__metadata__"] = {KEY: text}
    else:
        head = harmed(rng, head)
    text = json_bytes(rng, head)
    if kind == 3:
        body = damaged(rng, body)
    return len(text).to_bytes(8, "little") + text + body


def _look(trace: Any) -> None:
    """Read what a trace holds, layer by layer."""
    for layer in trace.layers:
        assert layer.inputs is None or np.isfinite(layer.inputs).all()
    assert len(trace.sha256) == 64


def _stream(path: Path, draw: Draw) -> None:
    container = streamed.StreamedContainer(path)
    _look(streamed.stream_trace(container) if KEY in container.metadata else streamed.stream_weights(container, draw))


def trace_file(rng: random.Random, folder: Path) -> None:
    _look(load_trace(_write(folder, "t.safetensors", _container(rng, rng.choice(seeds.trace_files())))))


def trace_streamed(rng: random.Random, folder: Path) -> None:
    _stream(_write(folder, "t.safetensors", _container(rng, rng.choice(seeds.trace_files()))), Draw())


def masked(rng: random.Random, folder: Path) -> None:
    path = _write(folder, "w.safetensors", _container(rng, rng.choice(seeds.container_files())))
    _look(load_trace(path, **DRAW))


def masked_streamed(rng: random.Random, folder: Path) -> None:
    path = _write(folder, "w.safetensors", _container(rng, rng.choice(seeds.container_files())))
    _stream(path, Draw(**DRAW))


@cache
def _archives() -> tuple[bytes, ...]:
    return tuple(seeds.npz(arrays, packed=packed) for arrays in seeds.masked_arrays() for packed in (False, True))


def _npz(rng: random.Random) -> bytes:
    """Return an archive that is damaged, or whole with members that no writer makes."""
    if rng.random() < 0.5:
        return damaged(rng, rng.choice(_archives()), rng.choice(_archives()))
    file = io.BytesIO()
    kinds = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA)
    with zipfile.ZipFile(file, "w", rng.choice(kinds)) as archive:
        for name, array in rng.choice(seeds.masked_arrays()).items():
            data = seeds.npy(array)
            kind = rng.randrange(8)
            if kind == 0:
                data = damaged(rng, data)
            elif kind == 1:
                data = data[:128] + bytes(rng.choice((1 << 16, 1 << 22)))  # a bomb
            elif kind == 2:
                data = _npy(rng)
            elif kind == 3:
                name = rng.choice(("../x", "/etc/passwd", "a/../../b", "fc1.weight", *WORDS))
            name = "".join(c for c in name if c.isascii() and c != "\0") or "x"  # zipfile writes no other
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # of a name that occurs twice
                archive.writestr(name + rng.choice((".npy", ".npy", "")), data)
    return file.getvalue()


def npz(rng: random.Random, folder: Path) -> None:
    _look(load_trace(_write(folder, "w.npz", _npz(rng)), **DRAW))


def _npy(rng: random.Random) -> bytes:
    """Return an .npy file that is damaged, or whose header claims what it likes."""
    array = rng.choice([a for arrays in seeds.masked_arrays() for a in arrays.values()])
    if rng.random() < 0.5:
        return damaged(rng, seeds.npy(array))
    shape = tuple(
        rng.choice((0, 1, 3, 8, *NUMBERS[:19]))
        for _ in range(rng.randrange(70) if rng.random() < 0.1 else rng.randrange(4))
    )
    kind = rng.choice(("<f4", ">f8", "|O", "<U5", "|V7", "<c8", "|b1", "<m8[s]", "<f2", ">i8", "x", MARK))
    head = f"{{'descr': {kind!r}, 'fortran_order': {rng.choice((True, False, 3))}, 'shape': {shape}, }}"
    head += " " * rng.randrange(64) + "\n"
    version = rng.choice((b"\1\0", b"\2\0", b"\3\0", b"\7\7"))
    width = 2 if version == b"\1\0" else 4
    return (
        b"\x93NUMPY"
        + version
        + len(head).to_bytes(width, "little")
        + head.encode()
        + bytes(rng.choice((0, 4, 96, 1024)))
    )


def mtx(rng: random.Random, folder: Path) -> None:
    _look(
        load_trace(_write(folder, "m.mtx", damaged(rng, rng.choice(seeds.MTX), rng.choice(seeds.MTX))), act_density=0.5)
    )


def smtx(rng: random.Random, folder: Path) -> None:
    _look(
        load_trace(
            _write(folder, "m.smtx", damaged(rng, rng.choice(seeds.SMTX), rng.choice(seeds.SMTX))), act_density=0.5
        )
    )


@cache
def _dump() -> dict[str, bytes]:
    """Return the files of a dump of 2 PEs, 3 columns and a bias."""
    pointers = np.array([0, 1, 2, 3, 4], "<u4")
    entries = np.array([[1, 0], [2, 1], [3, 0], [1, 2]], "<u4")
    files = {"act.dat": np.array([1, 0, 2], "<f4"), "arithm.dat": np.array([0, 1, -1, 0.5], "<f4")}
    for pe in range(2):
        files |= {f"ptr/ptr{pe}.dat": pointers, f"spm/spm{pe}.dat": entries}
    return {name: array.tobytes() for name, array in files.items()}


def dump(rng: random.Random, folder: Path) -> None:
    place = folder / "dump"
    for part in ("ptr", "spm"):
        (place / part).mkdir(parents=True, exist_ok=True)
        for path in (place / part).iterdir():
            path.unlink()
    files = dict(_dump())
    for name in rng.sample(sorted(files), rng.choice((1, 1, 2, 3))):
        if rng.random() < 0.1:
            files[name.replace(".dat", rng.choice((".dat0", "9.dat", "-1.dat", ".x")))] = files.pop(name)
        else:
            files[name] = damaged(rng, files[name], files.get("spm/spm1.dat", b""))
    for name in ("act.dat", "arithm.dat"):
        (place / name).unlink(missing_ok=True)
    for name, data in files.items():
        (place / name).write_bytes(data)
    _look(load_trace(place))


def cloud(rng: random.Random, folder: Path) -> None:
    suffix = rng.choice((".bin", ".ply", ".ply", ".npy", ".npz", ".off", ".off"))
    if suffix == ".npy":
        data = (
            _npy(rng) if rng.random() < 0.5 else damaged(rng, seeds.npy(np.arange(12, dtype=np.float32).reshape(4, 3)))
        )
    elif suffix == ".npz":
        data = _npz(rng) if rng.random() < 0.5 else damaged(rng, seeds.npz({"points": np.ones((4, 3))}))
    else:
        known = {".bin": (np.arange(16, dtype="<f4").tobytes(),), ".ply": seeds.PLY, ".off": seeds.OFF}[suffix]
        data = damaged(rng, rng.choice(known), rng.choice(known))
    path = _write(folder, f"c{suffix}", data)
    found = read_cloud(path, samples=rng.choice((None, None, 1, 2, 50)), seed=1)
    assert len(found.points) and np.isfinite(found.points).all()


def mesh(rng: random.Random, folder: Path) -> None:
    read_mesh(_write(folder, "m.off", damaged(rng, rng.choice(seeds.OFF), rng.choice(seeds.OFF))))


def network_weights(rng: random.Random, folder: Path) -> None:
    table = (Weighted("a", ((None, 3),), 4), Weighted("b", ((None, 4),), 2, offsets=8))
    arrays = {"a.weight": np.ones((4, 3), np.float32), "a.bias": np.ones(4), "b.weight": np.ones((2, 4, 8), np.float32)}
    if rng.random() < 0.5:
        read_weights(_write(folder, "w.npz", damaged(rng, seeds.npz(arrays))), table)
    else:
        read_weights(_write(folder, "w.safetensors", _container(rng, seeds.container_bytes(arrays, {}))), table)


def data_sets(rng: random.Random, folder: Path) -> None:
    kind = rng.randrange(3)
    if kind == 0:
        read_cifar(_write(folder, "c.bin", damaged(rng, bytes(3073 * 2))))
        return
    body = bytes([0, 0, 8, 3]) + b"".join(side.to_bytes(4, "big") for side in (2, 4, 4)) + bytes(32)
    if kind == 1:
        read_idx(_write(folder, "images", damaged(rng, body)), 3)
    else:
        bomb = body + bytes(rng.choice((0, 1 << 16, 1 << 27)) if rng.random() < 0.02 else 0)
        packed = gzip.compress(bomb, 1)
        read_idx(_write(folder, "images.gz", packed if rng.random() < 0.1 else damaged(rng, packed)), 3)


def layers(rng: random.Random, folder: Path) -> None:
    """Make a layer with odd attributes, pattern and arrays; where it passes, take it apart as machines do."""
    from gossamer.simulator.check import _numpy_output
    from gossamer.workloads.patterns import Pattern
    from gossamer.workloads.trace import Layer

    given = dict(seeds.layers()[rng.choice(list(seeds.layers()))])
    attributes = {key: list(v) if isinstance(v, tuple) else v for key, v in given.get("attributes", {}).items()}
    if given["op"] == "conv2d":
        attributes = {"stride": [1, 1], "padding": [0, 0], "dilation": [1, 1], "groups": 1} | attributes
    if rng.random() < 0.7 and attributes:
        given["attributes"] = harmed(rng, attributes) if rng.random() < 0.5 else _numbers(rng, attributes)
        if not isinstance(given["attributes"], dict):
            return
    if rng.random() < 0.3:
        kind = rng.choice(("n:m", "balanced", "block", "kernel-pattern", "dense"))
        keys = {"n:m": ("n", "m", "axis"), "balanced": ("pe_count",), "block": (), "kernel-pattern": ("n", "m")}
        pattern: dict[str, Any] = {key: rng.choice((1, 2, 4, *NUMBERS)) for key in keys.get(kind, ())}
        pattern |= (
            {"scope": "pe"} if kind == "balanced" else {"block": (rng.choice(NUMBERS), 2)} if kind == "block" else {}
        )
        given["pattern"] = Pattern(kind, **pattern)
    if rng.random() < 0.3:
        name = rng.choice([key for key, item in given.items() if isinstance(item, np.ndarray)])
        array = given[name]
        with np.errstate(all="ignore"):
            given[name] = rng.choice(
                (array[:1], array[..., :1], array * array.dtype.type(3), np.zeros_like(array), array.T, None)
            )
    layer = Layer(name="l", **given)
    if layer.inputs is not None:
        with np.errstate(all="ignore"):
            _numpy_output(layer)


def _numbers(rng: random.Random, attributes: dict[str, Any]) -> dict[str, Any]:
    """Return ``attributes`` with numbers replaced by others, kinds kept."""
    made = dict(attributes)
    key = rng.choice(list(made))
    numbers = (0, 1, 2, 3, 5, 100, 5000, 65536, 2**20, -1)
    old = made[key]
    made[key] = (
        [rng.choice(numbers) for _ in old]
        if isinstance(old, list)
        else rng.choice(numbers)
        if rng.random() < 0.8
        else value(rng)
    )
    return made


def prepare() -> None:
    """Make what is damaged, before any case is watched."""
    seeds.trace_files()
    seeds.container_files()
    _archives()


TARGETS = (
    Target("trace", trace_file, 120),
    Target("trace-streamed", trace_streamed, 80),
    Target("masked", masked, 80),
    Target("masked-streamed", masked_streamed, 60),
    Target("npz", npz, 80),
    Target("mtx", mtx, 60),
    Target("smtx", smtx, 50),
    Target("dump", dump, 50),
    Target("cloud", cloud, 90),
    Target("mesh", mesh, 30),
    Target("weights", network_weights, 30),
    Target("data", data_sets, 20),
    Target("layer", layers, 80),
)
