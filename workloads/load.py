"""The one door through which traces come in, whichever kind of file they are in."""

from __future__ import annotations

from dataclasses import fields
from importlib import resources
from importlib.resources.abc import Traversable
from pathlib import Path

from .errors import InputError, nearest
from .files.container import read_container
from .files.drawn import Draw
from .files.eie_dump import load_eie_dump
from .files.masked import trace_of_arrays, trace_of_container_weights
from .files.matrix_market import load_matrix_market
from .files.npy import read_npz
from .files.smtx import load_smtx
from .files.streamed import STREAMED_FROM, StreamedContainer, stream_trace, stream_weights
from .files.trace_file import KEY, SUFFIX, load_trace_file, trace_of_container
from .trace import Trace

SUFFIXES = (SUFFIX, ".npz", ".mtx", ".smtx")


def bundled_traces() -> list[str]:
    """Return the names of the traces that come with the package, sorted."""
    return sorted(file.name.removesuffix(SUFFIX) for file in _bundled().iterdir() if file.name.endswith(SUFFIX))


def load_trace(
    source: str | Path,
    *,
    act_density: float | None = None,
    samples: int = 1,
    seed: int = 0,
    input_size: tuple[int, int] | None = None,
) -> Trace:
    """Return the trace that ``source`` names: a bundled one, or a path.

    A path is a trace file or plain masked weights (``.safetensors``), masked weights (``.npz``), a matrix (Matrix
    Market ``.mtx``, DLMC ``.smtx``) or the data folder of the EIE authors' simulator. A bundled name wins over a file
    of that name in the working directory; write ./NAME for the file.
    Where a file holds no activations, ``samples`` of them are drawn, uniform over (0, 1], with ``act_density`` and
    ``seed``; a convolution then needs its ``input_size``, (height, width). The provenance says so.
    Layers of a ``.safetensors`` that come to 256 MiB or more in float32 stay in the file, and are read one at a time.
    Raises InputError naming file, rule, value and remedy.
    """
    draw = Draw(act_density=act_density, samples=samples, seed=seed, input_size=input_size)
    if isinstance(source, str) and source in bundled_traces():
        _refuse_draw(draw, source)
        with resources.as_file(_bundled() / f"{source}{SUFFIX}") as path:
            return load_trace_file(path)
    path = Path(source)
    if path.is_dir():
        trace = load_eie_dump(path)
        _refuse_draw(draw, path)
        return trace
    suffix = path.suffix.lower()
    if suffix not in SUFFIXES:
        raise InputError(_unknown(path))
    if suffix == SUFFIX and path.is_file():
        streamed = StreamedContainer(path)
        if KEY not in streamed.metadata:
            return stream_weights(streamed, draw, STREAMED_FROM)
        _refuse_draw(draw, path)
        return stream_trace(streamed, STREAMED_FROM)
    if suffix == SUFFIX:  # a pipe, which is read whole
        container = read_container(path)
        if KEY not in container.metadata:
            return trace_of_container_weights(container, path, draw)
        _refuse_draw(draw, path)
        return trace_of_container(container, path)
    if suffix == ".npz":
        arrays = read_npz(path)
        if set(arrays) - {"remission"} == {"points"} and arrays["points"].shape[1:] == (3,):
            raise InputError(_is_cloud(path))  # it would pass for weights of 3 inputs
        return trace_of_arrays(arrays, path, draw)
    return {".mtx": load_matrix_market, ".smtx": load_smtx}[suffix](path, draw)


def _unknown(path: Path) -> str:
    from .points.files import CLOUD_SUFFIXES

    if path.suffix.lower() in CLOUD_SUFFIXES:
        return _is_cloud(path)
    if path.exists():
        return (
            f"{path}: the name of a workload file must end in {', '.join(SUFFIXES)}, not {path.suffix!r}; convert it, "
            "a model with gossamer export"
        )
    bundled = bundled_traces()
    return (
        f"unknown trace {str(path)!r}{nearest(str(path), bundled)}; known: {', '.join(bundled) or 'none'}; "
        f"or give the path of a file ({', '.join(SUFFIXES)}) or folder"
    )


def _is_cloud(path: Path) -> str:
    from .points.network import POINT_NETWORKS

    known = ", ".join(POINT_NETWORKS)
    return f"{path}: a point cloud must go through a network to be a trace; give --network, one of {known}"


def _refuse_draw(draw: Draw, source: str | Path) -> None:
    asked = [f"{f.name} {getattr(draw, f.name)}" for f in fields(draw) if getattr(draw, f.name) != f.default]
    if asked:
        raise InputError(
            f"{source}: act_density, samples, seed and input_size are for files without activations, and these are "
            f"recorded; leave out {', '.join(asked)}"
        )


def _bundled() -> Traversable:
    return resources.files(__package__) / "bundled"
