"""The files that random command lines name, for `fuzz`: small ones of each kind, put back where a line changed them."""

from __future__ import annotations

import importlib.util
import random
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory

import fuzz_models
import fuzz_readers
import fuzz_seeds as seeds
import fuzz_tables
import numpy as np
from fuzz_damage import damaged

from gossamer.workloads.files.trace_file import save_trace
from gossamer.workloads.lstm_unroll import unroll_lstm
from gossamer.workloads.trace import Layer, Trace

NET = b"""from torch import nn

def make():
    return nn.Sequential(nn.Conv2d(3, 2, 3), nn.BatchNorm2d(2), nn.ReLU(), nn.Flatten(), nn.Linear(32, 5)).eval()
"""
RECIPE = b'base = "lenet-digits-imp"\nepochs = 2\nsparsity = 0.8\n'
UNTOUCHED = ("net.py",)  # what runs as a program is never damaged


def _saved(trace: Trace) -> bytes:
    with TemporaryDirectory() as folder:
        return save_trace(trace, Path(folder) / "t.safetensors").read_bytes()


def _plain_lstm() -> Trace:
    """Return an LSTM without peepholes, which its layers can be rolled to again."""
    given = {key: item for key, item in seeds.layers()["lstm"].items() if key != "peephole"}
    return Trace(name="plain", layers=[Layer(name="l0", **given)])


def _attentions() -> Trace:
    """Return a small vision transformer with its products of activations."""
    import torch

    from gossamer.workloads.importers.torch_module import trace_of_module
    from gossamer.workloads.networks.vit import VisionTransformer

    torch.manual_seed(0)
    network = VisionTransformer((1, 8, 8), 10, patch=4, width=8, layers=2, heads=2).eval()
    return trace_of_module(network, np.random.default_rng(1).random((2, 1, 8, 8), np.float32), products=True)


@cache
def files() -> dict[str, bytes]:
    """Return what there is, by name."""
    rng, arrays = np.random.default_rng(5), seeds.masked_arrays()
    pictures = rng.random((2, 3, 6, 6), np.float32)
    results = [fuzz_tables.json.dumps(one).encode() for one in fuzz_tables._results()]
    made = {
        "t.safetensors": _saved(seeds.trace("linear", "coded", "conv2d")),
        "linear.safetensors": _saved(seeds.trace("linear")), "nm.safetensors": _saved(seeds.trace("n:m")),
        "kernels.safetensors": _saved(seeds.trace("kernels")), "lstm.safetensors": _saved(seeds.trace("lstm")),
        "attention.safetensors": _saved(seeds.trace("matmul")), "vit.safetensors": _saved(_attentions()),
        "points.safetensors": _saved(seeds.trace("sparse_conv3d", "knn")),
        "conv3d.safetensors": _saved(seeds.trace("sparse_conv3d", "downsampling")),
        "unrolled.safetensors": _saved(unroll_lstm(_plain_lstm())),
        "w.npz": seeds.npz(arrays[1]), "w.safetensors": seeds.container_files()[0], "conv.npz": seeds.npz(arrays[3]),
        "filters.npz": seeds.npz({"c1": seeds.sparse(rng, 4, 3, 3, 3), "c2": seeds.sparse(rng, 5, 4, 3, 3)}),
        "m.mtx": seeds.MTX[0], "m.smtx": seeds.SMTX[0], "s.pt": fuzz_models._pickled(),
        "c.ply": seeds.PLY[0], "c.npy": seeds.npy(np.ones((4, 3))), "c.off": seeds.OFF[0],
        "cloud.npy": seeds.npy(rng.random((40, 3), np.float32)),
        "x.npy": seeds.npy(pictures[:1]), "x.npz": seeds.npz({"x": pictures[:1]}), "net.py": NET,
        "mine.toml": b'base = "eie-64pe"\npe_count = 4\n', "recipe.toml": RECIPE,
        "r.json": results[0], "gpu.json": results[1], "two.json": b"[" + results[2] + b"," + results[3] + b"]",
        "s.sqlite": fuzz_tables._store(), "c.checkpoint.safetensors": fuzz_tables._checkpoint(),
        "broken.safetensors": seeds.trace_files()[0][:-3], "broken.json": b"{",
    }  # fmt: skip
    if importlib.util.find_spec("onnx") is not None:
        made["n.onnx"] = fuzz_models._model()
    return made


_stamps: dict[Path, tuple[int, int, int]] = {}  # inode, size and time of each file as it was written here


def put_back(folder: Path) -> None:
    """Leave in ``folder`` what `files` has, as it was, the empty folder ``dump``, and nothing else."""
    for path in folder.iterdir():
        if path.name not in files() or path.is_symlink() or not path.is_file():
            fuzz_readers.remove(path)
    for name, data in files().items():
        path = folder / name
        if not path.exists() or _stamp(path) != _stamps.get(path):
            path.write_bytes(data)
            _stamps[path] = _stamp(path)
    (folder / "dump").mkdir()


def _stamp(path: Path) -> tuple[int, int, int]:
    found = path.stat()
    return found.st_ino, found.st_size, found.st_mtime_ns


def harm(rng: random.Random, path: Path) -> None:
    """Damage the file at ``path``, exchange it for another, or take it away."""
    if path.name in UNTOUCHED or path.name not in files():
        return
    kind, data = rng.randrange(12), files()[path.name]
    other = rng.choice(sorted(files()))
    if path.exists():
        fuzz_readers.remove(path)
    if kind < 8:
        path.write_bytes(damaged(rng, data, files()[other]))
    elif kind == 8:
        path.write_bytes(files()[other])
    elif kind == 9:
        path.write_bytes(b"")
    elif kind == 10:
        path.mkdir()
