"""Reuse in time: of frames that follow one another only what changed is computed, or a part is shifted for nothing.

**Deltas.** A linear map of a sum is the sum of its maps: where y = W x + b is known of a frame, the next one needs
only W (x' - x). What did not change is 0 and is skipped by a machine that skips zero activations. With a threshold,
smaller changes wait until they add up: the difference is taken from what has been passed on so far, so that errors do
not add up. Source: Neil et al., "Delta Networks for Optimized Recurrent Network Computation", ICML 2017.

**Shift.** A share of the channels comes from the frame before, and in the two-sided form as many from the next one:
no multiplication more, but these values are kept and moved. Source: Lin, Gan, Han, "TSM: Temporal Shift Module for
Efficient Video Understanding", ICCV 2019.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ..checks import not_negative
from ..errors import InputError
from ..names import fits
from ..trace import Layer, Trace
from .layers import LARGEST, changed, output_of, renamed, share

DELTA_OPS = ("linear", "conv2d")  # of one operand only the difference; both operands of a matmul change


@dataclass(frozen=True)
class LayerDeltas:
    """What deltas came to in one layer: shares of inputs that are not 0, before and as deltas, and the error.

    ``error``: the largest difference of any output from that of the full frames, over the largest of these.
    """

    name: str
    nonzero_before: float
    nonzero_deltas: float
    error: float


@dataclass(frozen=True, eq=False)
class Deltas:
    """A trace whose samples are differences of frames, with what each layer came to."""

    trace: Trace
    layers: tuple[LayerDeltas, ...]


@dataclass(frozen=True)
class LayerShift:
    """What a shift came to in one layer: channels that come from another frame, and words kept for them and moved."""

    name: str
    channels: int
    moved_words: int


@dataclass(frozen=True, eq=False)
class Shifted:
    """A trace whose convolutions see shifted channels, with what each layer came to."""

    trace: Trace
    layers: tuple[LayerShift, ...]


def delta_layers(trace: Trace, threshold: float = 0.0, *, steps: bool = False, layers: str = "*") -> Deltas:
    """Return ``trace`` with differences in place of all frames but the first, and what each layer came to.

    The samples of ``trace`` are frames in order; or with ``steps`` the rows of each sample of linear layers, (samples,
    steps, features), as those of an unrolled LSTM. ``threshold``: changes of at most this magnitude wait. ``layers``: a
    shell pattern of names; products of activations stay as they are. The layers have no bias: it is in the sums since
    the first frame, which is whole. `restored` gives the outputs back; at threshold 0 they differ from those of the
    frames by rounding alone, and not at all where the differences are exact, as those of fixed-point words are.
    Raises InputError for fewer than two frames, and for a threshold below 0.
    """
    threshold = not_negative(threshold, "--threshold")
    chosen = _frames_of(trace, layers, ("linear",) if steps else DELTA_OPS, steps)
    made, found = [], []
    for layer in trace.layers:
        if layer.name not in chosen:
            made.append(layer)
            continue
        frames = np.moveaxis(layer.inputs, int(steps), 0)
        inputs = np.moveaxis(differences(frames, threshold), 0, int(steps))
        deltas = changed(layer, inputs=inputs, bias=None, bias_codes=None)
        made.append(deltas)
        whole = output_of(layer)
        error = float(
            np.abs(restored(deltas, layer, steps=steps) - whole).max(initial=0.0)
            / max(np.abs(whole).max(initial=0), 1e-30)
        )
        before, after = (float(np.count_nonzero(each.inputs) / each.inputs.size) for each in (layer, deltas))
        found.append(LayerDeltas(layer.name, before, after, error))
    about = {"transform": "deltas", "threshold": threshold, "steps": steps, "layers": chosen}
    return Deltas(renamed(trace, "deltas", made, about, same_values=threshold == 0), tuple(found))


def differences(frames: np.ndarray, threshold: float) -> np.ndarray:
    """Return ``frames`` (count, ...), all but the first as changes of more than ``threshold`` from what was sent."""
    deltas = frames.copy()
    sent, least = frames[0].copy(), min(threshold, LARGEST)
    for i in range(1, len(frames)):
        change = frames[i] - sent
        deltas[i] = np.where(np.abs(change) > least, change, np.float32(0))
        sent += deltas[i]
    return deltas


def restored(deltas: Layer, layer: Layer, *, steps: bool = False) -> np.ndarray:
    """Return the frames' outputs, (vectors, out) float64: sums of those of ``deltas``, and the bias of ``layer``."""
    outputs = output_of(deltas)
    frames = outputs.reshape(*deltas.inputs.shape[: 1 + steps], -1, outputs.shape[1])
    whole = np.cumsum(frames, axis=int(steps)).reshape(outputs.shape)
    bias = layer.bias if layer.codes is None else layer.bias_codes
    if bias is None:
        return whole
    values = bias if layer.codebook is None else layer.codebook[bias]
    added: np.ndarray = whole + values.astype(np.float64)
    return added


def shift_layers(trace: Trace, part: float = 0.125, *, two_sided: bool = False, layers: str = "*") -> Shifted:
    """Return ``trace`` with a ``part`` of each convolution's channels from the frame before, and what that moves.

    The samples of ``trace`` are frames in order; before the first (and, ``two_sided``, after the last) there are
    zeros. ``two_sided``: as many channels again from the next frame, which must then be known. ``layers``: a shell
    pattern of names. Convolutions do as many multiplications as before; the values are those of a network that was
    not trained with the shift. Raises InputError for fewer than two frames, or a part above 1 (two-sided, 1/2).
    """
    share("--shift", part)
    if two_sided and part > 0.5:
        raise InputError(f"--shift must be at most 0.5 with --two-sided, not {part:g}")
    chosen = _frames_of(trace, layers, ("conv2d",))
    made, found = [], []
    for layer in trace.layers:
        if layer.name not in chosen:
            made.append(layer)
            continue
        count = int(part * layer.inputs.shape[1])
        inputs = np.array(layer.inputs)
        inputs[0, :count] = 0
        inputs[1:, :count] = layer.inputs[:-1, :count]
        if two_sided:
            inputs[-1, count : 2 * count] = 0
            inputs[:-1, count : 2 * count] = layer.inputs[1:, count : 2 * count]
        made.append(changed(layer, inputs=inputs))
        channels = count * (1 + two_sided)
        # Each is written where the other frame finds it, and read there: once each, in all frames but one.
        words = 2 * channels * (len(inputs) - 1) * int(np.prod(inputs.shape[2:]))
        found.append(LayerShift(layer.name, channels, words))
    about = {"transform": "shift", "part": part, "two_sided": two_sided, "layers": chosen}
    return Shifted(renamed(trace, "shift", made, about, same_values=False), tuple(found))


def _frames_of(trace: Trace, pattern: str, ops: tuple[str, ...], steps: bool = False) -> list[str]:
    """Return the names of the layers that are meant, each with at least two frames. Raises InputError."""
    chosen = [layer for layer in trace.layers if layer.op in ops and fits(layer.name, pattern)]
    if not chosen:
        raise InputError(f"{trace.name}: --layer {pattern!r} must fit a layer of {' or '.join(ops)}, and fits none")
    for layer in chosen:
        if steps and (layer.inputs.ndim != 3 or layer.inputs.shape[1] < 2):
            raise InputError(
                f"{trace.name}: with --steps, inputs must be (samples, steps, features), two steps at least, and layer "
                f"{layer.name} has {layer.inputs.shape}; choose others with --layer"
            )
        if not steps and layer.samples < 2:
            raise InputError(
                f"{trace.name}: samples must be frames, two at least, and layer {layer.name} has {layer.samples}; "
                "export a sequence"
            )
    return [layer.name for layer in chosen]
