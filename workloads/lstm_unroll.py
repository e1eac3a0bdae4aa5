"""LSTMs as linear layers, for machines that know no recurrence, and linear layers of an LSTM made whole again."""

from __future__ import annotations

import re
from dataclasses import replace

import numpy as np

from .errors import InputError
from .lstm import run_lstm
from .patterns import Pattern
from .trace import Layer, Trace

UNROLLED = ("ih", "hh", "hr")  # what torch calls the weights; the last is the projection
STATES_DIFFER = 1e-3  # largest difference between states in float64 and those that float32 gave over some steps
_NAMED = re.compile(r"(?P<name>.+)\.ih(?P<suffix>|_l\d+(_reverse)?)")


def unroll_lstm(trace: Trace) -> Trace:
    """Return ``trace`` with each lstm layer as linear ones, fed with what the steps met: for machines that run linear.

    Layer NAME becomes NAME.ih (4C, features), fed with the inputs, NAME.hh (4C, R), fed with the hidden states before
    each step, and, with a projection, NAME.hr (P, C), fed with the cells' outputs; inputs are (samples, steps, ...).
    The bias stays with ih. What is done element by element (peepholes, gates, cells) is in no layer. A pattern is kept
    where the longer matrices keep it. Raises InputError where no layer is an lstm, or a name is taken.
    """
    if all(layer.op != "lstm" for layer in trace.layers):
        raise InputError(f"{trace.name}: at least one layer of op lstm is needed to unroll, not 0; nothing to do")
    layers: list[Layer] = []
    for layer in trace.layers:
        layers += _unroll(layer) if layer.op == "lstm" else [layer]
    return Trace(name=trace.name, layers=tuple(layers), provenance=dict(trace.provenance) | {"unrolled": "lstm"})


def roll_lstm(trace: Trace) -> Trace:
    """Return ``trace`` with each LSTM whole again, whose linear layers it has: those of `unroll_lstm`, or of a capture.

    NAME.ih and NAME.hh (capture: NAME.ih_l0 and so on), NAME.hr where there is one, become the lstm layer NAME
    (NAME.l0), biases added. It is executed, and must meet the hidden states that hh was fed, as near as float32 brings
    them: else these layers are of something else. A pattern is kept where all matrices keep it. Raises InputError.
    """
    taken = {layer.name: layer for layer in trace.layers if layer.op == "linear"}
    whole: dict[str, Layer] = {}  # by the name of its ih
    parted: set[str] = set()
    for match in filter(None, map(_NAMED.fullmatch, taken)):
        names = {kind: f"{match['name']}.{kind}{match['suffix']}" for kind in UNROLLED}
        parts = {kind: taken[name] for kind, name in names.items() if name in taken}
        if "hh" in parts:
            whole[names["ih"]] = _roll(match["name"] + match["suffix"].replace("_", ".", 1), parts)
            parted |= {part.name for part in parts.values()}
    if not whole:
        raise InputError(
            f"{trace.name}: an LSTM's linear layers, NAME.ih and NAME.hh, are needed to roll, and there are none"
        )
    layers = [whole.get(layer.name, layer) for layer in trace.layers if layer.name in whole or layer.name not in parted]
    return Trace(name=trace.name, layers=tuple(layers), provenance=dict(trace.provenance) | {"rolled": "lstm"})


def _roll(name: str, parts: dict[str, Layer]) -> Layer:
    """Return the lstm layer whose linear layers are ``parts``, by kind. Raises InputError where they are none's."""
    fed, back, last = parts["ih"], parts["hh"], parts.get("hr")
    where = f"layer {fed.name}"
    cells = fed.shape[0] // 4
    hidden = cells if last is None else last.shape[0]
    wanted = ((*fed.inputs.shape[:2], hidden), (fed.shape[0], hidden), (hidden, cells))
    met = (back.inputs.shape, back.shape, wanted[2] if last is None else last.shape)
    if fed.shape[0] % 4 or fed.inputs.ndim != 3 or met != wanted:
        raise InputError(
            f"{where}: with {back.name} it must have the shapes of an LSTM of 4 gates over steps, not weights "
            f"{fed.shape} and {back.shape}, inputs {fed.inputs.shape} and {back.inputs.shape}"
        )
    biases = [values for part in (fed, back) if (values := _bias(part)) is not None]
    masks = [part.kept != 0 if part.mask is None else part.mask for part in (fed, back)]
    layer = Layer(
        name=name,
        op="lstm",
        weight=np.concatenate([fed.weight, back.weight], axis=1),
        bias=np.stack(biases).sum(axis=0, dtype=np.float32) if biases else None,
        mask=np.concatenate(masks, axis=1) if fed.mask is not None or back.mask is not None else None,
        projection=None if last is None else last.weight,
        inputs=fed.inputs,
    )
    off = float(np.abs(run_lstm(layer).before - back.inputs).max())
    if off > STATES_DIFFER:
        raise InputError(
            f"{where}: with {back.name} it must give the hidden states that {back.name} was fed to within "
            f"{STATES_DIFFER:g}, and is {off:.3g} off: these are of no LSTM that starts from 0 and has no peepholes"
        )
    return _with_pattern(layer, fed.pattern if fed.pattern == back.pattern else Pattern())


def _bias(layer: Layer) -> np.ndarray | None:
    if layer.bias_codes is not None and layer.codebook is not None:
        values: np.ndarray = layer.codebook[layer.bias_codes]
        return values
    return layer.bias


def _with_pattern(layer: Layer, pattern: Pattern) -> Layer:
    try:
        return replace(layer, pattern=pattern)
    except InputError:
        return layer


def _unroll(layer: Layer) -> list[Layer]:
    run, features = run_lstm(layer), layer.inputs.shape[2]
    mask = layer.mask
    x, r = slice(None, features), slice(features, None)
    parts = [
        ("ih", layer.weight[:, x], layer.inputs, layer.bias, None if mask is None else mask[:, x]),
        ("hh", layer.weight[:, r], run.before, None, None if mask is None else mask[:, r]),
    ]
    if layer.projection is not None:
        parts.append(("hr", layer.projection, run.memory, None, None))
    return [
        Layer(
            name=f"{layer.name}.{suffix}",
            op="linear",
            weight=np.ascontiguousarray(weight),
            bias=bias,
            mask=None if kept is None else np.ascontiguousarray(kept),
            inputs=np.ascontiguousarray(inputs, np.float32),
            pattern=_held(layer.pattern, weight if kept is None else kept),
        )
        for suffix, weight, inputs, bias, kept in parts
    ]


def _held(pattern: Pattern, kept: np.ndarray) -> Pattern:
    """Return ``pattern`` where ``kept`` keeps it, else none: what eight matrices keep, their sum may miss by a few."""
    try:
        pattern.check(kept, "")
    except InputError:
        return Pattern()
    return pattern
