"""The one door through which other people's models come in, whichever kind they are, and what is said of them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from ..errors import InputError
from ..extras import need
from ..files.drawn import Draw
from ..files.streamed import naming
from ..streamed import StreamedLayers
from ..trace import Layer, Trace
from .one_shot import parse_one_shot, prune_trace
from .samples import read_samples
from .state_dict import is_state_dict, trace_of_state_dict
from .tensors import INDEX, PICKLED, SUFFIXES

__all__ = ["import_model", "is_factory", "is_model", "is_state_dict", "notes_of", "pruned"]

ONNX = ".onnx"
PROTOCOLS = (b"\x02", b"\x03", b"\x04", b"\x05")  # of pickle
SHOWN = 4  # names in one warning


def is_factory(source: str) -> bool:
    """Tell whether ``source`` is package.module:function, and no file."""
    place, colon, function = source.partition(":")
    words = [*place.split("."), *function.split(".")]
    return bool(colon) and all(word.isidentifier() for word in words) and not Path(source).exists()


def is_model(source: str) -> bool:
    """Tell whether ``source`` is a kind that only `import_model` reads: a factory, .onnx, .pt, .pth, .ckpt or .bin."""
    return is_factory(source) or (Path(source).suffix.lower() in (ONNX, *PICKLED) and not _is_cloud(source))


def _is_cloud(source: str) -> bool:
    path = Path(source)
    if path.suffix.lower() != ".bin" or not path.is_file():
        return False
    try:
        with path.open("rb") as file:  # a SemanticKITTI scan; what torch saves is a zip or begins a pickle
            first = file.read(2)
            return first != b"PK" and not (first[:1] == b"\x80" and first[1:] in PROTOCOLS)
    except OSError:
        return False


def import_model(
    source: str | Path,
    *,
    inputs: str | Path | None = None,
    draw: Mapping[str, Any] | None = None,
    prune: str | None = None,
    exclude: Iterable[str] = (),
    products: bool = False,
    fold_batch_norm: bool = False,
) -> Trace:
    """Return the trace of somebody's model.

    ``source``: package.module:function, which makes a PyTorch module; an ONNX file; or a state dict (.safetensors, the
    .safetensors.index.json of its shards, .npz, and .pt, .pth, .ckpt, .bin that hold tensors alone). ``inputs``:
    samples for the first two, .npy, .npz or .safetensors. ``draw``: act_density, samples, seed and input_size, for a
    file without. ``prune`` and ``exclude`` as in `parse_one_shot`. Raises InputError naming file, rule and value.
    """
    name, exclude = str(source), tuple(exclude)
    path, drawn = Path(name), Draw(**dict(draw or {}))
    asked = {key: value for key, value in (draw or {}).items() if value is not None}
    samples = None if inputs is None else read_samples(Path(inputs))
    if samples is not None and asked:
        raise InputError(f"{name}: {next(iter(asked))} is for inputs that are drawn, and these are given; leave it out")
    if is_factory(name):
        need("train", "torch")
        from .torch_module import load_factory, trace_of_module

        if samples is None:
            raise InputError(f"{name}: a module must be fed with samples; give inputs, a .npy, .npz or .safetensors")
        try:
            return trace_of_module(
                load_factory(name),
                samples,
                name=name.partition(":")[0].rpartition(".")[2],
                prune=prune,
                exclude=exclude,
                products=products,
                fold_batch_norm=fold_batch_norm,
            )
        except InputError as error:
            text = str(error)
            raise InputError(text if text.startswith(f"{name}: ") else f"{name}: {text}") from None
    if fold_batch_norm:
        raise InputError(f"{name}: fold_batch_norm is for a training run or a PyTorch module; leave it out")
    if path.suffix.lower() == ONNX:
        need("onnx", "onnx")
        from .onnx import trace_of_onnx

        return trace_of_onnx(path, samples, draw=drawn, prune=prune, exclude=exclude, products=products)
    if path.suffix.lower() not in SUFFIXES and not path.name.lower().endswith(INDEX):
        raise InputError(
            f"{name}: a model must be package.module:function or end in {ONNX}, {', '.join(SUFFIXES)} or {INDEX}, "
            f"not {path.suffix!r}"
        )
    if samples is not None or products:
        what = "inputs" if samples is not None else "products"
        raise InputError(
            f"{name}: {what} need a model that can be run, and a state dict is none; give package.module:function "
            "or an ONNX file"
        )
    trace = trace_of_state_dict(path, draw=drawn)
    return pruned(trace, prune, exclude, name)


def pruned(trace: Trace, prune: str | None, exclude: Iterable[str], name: str) -> Trace:
    """Return ``trace`` pruned by the rule ``prune``, its recorded inputs as they were. Raises InputError."""
    exclude = tuple(exclude)
    if prune is None:
        if exclude:
            raise InputError(f"{name}: exclude is for prune, and there is none; leave it out")
        return trace
    with naming(Path(name)):
        found = prune_trace(trace, parse_one_shot(prune), prune, exclude)
    layers = found.layers
    if not isinstance(layers, StreamedLayers):
        return found

    def load(index: int) -> Layer:
        with naming(Path(name)):
            return layers[index]

    return replace(found, layers=StreamedLayers(layers.names, load))


def notes_of(trace: Trace) -> list[str]:
    """Return what must be said of an imported trace, a line each: what is no layer by reason, and what was changed."""
    about = trace.provenance
    lines = [f"not simulated, {why}: {names}" for why, names in _by_reason(about.get("not_simulated", {})).items()]
    beside = about.get("operators_beside", {})
    if beside:
        counts = ", ".join(f"{name} {count}" for name, count in sorted(beside.items()))
        lines.append(f"not simulated, operators that only work on values: {counts}")
    lines += [f"left dense, {why}: {names}" for why, names in _by_reason(about.get("not_pruned", {})).items()]
    lines += [
        f"used {count} times, its inputs one after another: {name}" for name, count in about.get("uses", {}).items()
    ]
    if about.get("turned"):
        lines.append(f"stored (in, out), by their biases or their neighbours', and taken so: {_some(about['turned'])}")
    lines += [f"padded, {what}: {name}" for name, what in about.get("padded", {}).items()]
    if about.get("unmasked"):
        names = _some(about["unmasked"])
        lines.append(
            f"parametrized, and the file has no mask: taken as before any mask, save after squash_mask: {names}"
        )
    return lines


def _by_reason(notes: Mapping[str, str]) -> dict[str, str]:
    reasons: dict[str, list[str]] = {}
    for name, why in notes.items():
        reasons.setdefault(why, []).append(name)
    return {why: _some(names) for why, names in reasons.items()}


def _some(names: list[str]) -> str:
    more = f" and {len(names) - SHOWN} more, all in the provenance" if len(names) > SHOWN else ""
    return ", ".join(names[:SHOWN]) + more
