"""Reuse in space: of an edited picture only the blocks are computed that the edit reaches.

In each convolution the changed inputs tell which outputs change: those whose kernel touches one. Outputs are cut into
square blocks; the blocks with a change are gathered, each with the border that its kernel needs, convolved as a batch
of small pictures, and scattered into the outputs of the original, which are still there. Source: Li et al.,
"Efficient Spatially Sparse Inference for Conditional GANs and Diffusion Models" (SIGE), NeurIPS 2022.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np

from ..checks import not_negative, whole
from ..errors import InputError, shown
from ..lowering import output_sides
from ..trace import Layer, Trace
from .layers import LARGEST, changed, output_of, renamed

LARGEST_BLOCK = 4096


@dataclass(frozen=True, eq=False)
class LayerEdit:
    """What an edit comes to in one convolution.

    ``inputs``: which positions of the input changed, (height, width); ``outputs``: which outputs that reaches;
    ``blocks``: (count, 2), row and column of the first output of each block that is computed again; ``macs`` of
    these and ``macs_whole`` of the whole picture, zeros counted. ``error``: the largest difference of any output from
    that of the whole picture, over the largest of these; None where the edit was given and not seen.
    """

    name: str
    inputs: np.ndarray
    outputs: np.ndarray
    blocks: np.ndarray
    macs: int
    macs_whole: int
    error: float | None


@dataclass(frozen=True, eq=False)
class Edited:
    """The work that an edit needs, ``trace``; ``whole`` is what the edited picture needs without reuse."""

    trace: Trace
    whole: Trace
    layers: tuple[LayerEdit, ...]

    @property
    def macs_share(self) -> float:
        """Return the share of the convolutions' multiplications that is left."""
        return sum(layer.macs for layer in self.layers) / sum(layer.macs_whole for layer in self.layers)


def edit_layers(
    trace: Trace,
    *,
    block: int = 4,
    original: int = 0,
    edited: int = 1,
    threshold: float = 0.0,
    edit: np.ndarray | None = None,
    dilation: int | None = None,
) -> Edited:
    """Return the work that recomputes sample ``edited`` where the outputs of sample ``original`` are known.

    Without ``edit``, an input has changed where the two samples differ by more than ``threshold``, layer by layer: at
    0 what is put together is what the whole picture gives. ``edit``, (height, width) bool of the first convolution's
    input, says it instead, and ``original`` stands for the edited picture: it spreads by all kernels, or, with
    ``dilation``, is at each layer the edit shrunk to its size and this many cells more to each side, as in SIGE, which
    leaves out what changes further away. ``block``: side of the blocks, in outputs. Layers that the edit does not
    reach are left out; others than convolutions are computed for the rows that changed.
    Raises InputError for samples that are not there, an edit of another size, or one that changes nothing.
    """
    convolutions = _checked(trace, block, threshold, dilation, edit)
    last = min(layer.samples for layer in trace.layers) - 1
    wanted = {"--original": original} if edit is not None else {"--original": original, "--edited": edited}
    for what, number in wanted.items():
        if isinstance(number, bool) or not isinstance(number, int) or not 0 <= number <= last:
            raise InputError(f"{trace.name}: {what} must be a sample from 0 to {last}, not {shown(number)}")
    sample = original if edit is not None else edited
    masks = {} if edit is None else _spread(trace, convolutions, edit, dilation)
    layers, whole, found = [], [], []
    for layer in trace.layers:
        alone = _one(layer, sample)
        whole.append(alone)
        if layer.op == "conv2d":
            mask = masks[layer.name] if masks else differs(layer, original, edited, threshold)
            part, about = _gathered(alone, mask, block)
            found.append(about if edit is not None else _measured(about, part, alone, _one(layer, original)))
        else:
            part = alone if edit is not None else _changed_rows(layer, alone, original, edited)
        if part is not None:
            layers.append(part)
    if not any(len(each.blocks) for each in found):
        raise InputError(f"{trace.name}: the edit must change something, and no input of a convolution changes")
    done = {
        "transform": "edit",
        "block": block,
        "reached": {each.name: float(each.outputs.mean()) for each in found},
        "by": "mask" if edit is not None else "samples",
    }
    one = {"transform": "sample", "sample": sample}
    return Edited(
        renamed(trace, "edit", layers, done, same_values=False),
        renamed(trace, "whole", whole, one, same_values=False),
        tuple(found),
    )


def differs(layer: Layer, original: int, edited: int, threshold: float = 0.0) -> np.ndarray:
    """Return where the inputs of two samples of a convolution differ by more than ``threshold``, (height, width)."""
    different = np.abs(layer.inputs[original] - layer.inputs[edited]) > min(threshold, LARGEST)
    return np.asarray(different.any(axis=0))


def reached(layer: Layer, mask: np.ndarray) -> np.ndarray:
    """Return which outputs of convolution ``layer`` have an input of ``mask`` (height, width) under their kernel."""
    pads, strides, steps = (layer.attributes[name] for name in ("padding", "stride", "dilation"))
    padded = np.pad(mask, [(pad, pad) for pad in pads])
    spans = tuple(step * (side - 1) + 1 for step, side in zip(steps, layer.shape[2:], strict=True))
    windows = np.lib.stride_tricks.sliding_window_view(padded, spans)
    under = windows[:: strides[0], :: strides[1], :: steps[0], :: steps[1]]
    return np.asarray(under.any(axis=(2, 3)))


def scattered(layer: Layer, edit: LayerEdit, original: np.ndarray) -> np.ndarray:
    """Return the outputs of the edited picture, (out, height, width): blocks of ``layer`` put into ``original``.

    ``layer`` is what `edit_layers` gathered: a batch of blocks of one size.
    """
    outputs = np.array(original, dtype=np.float64)
    side = output_sides(layer)
    tiles = output_of(layer).reshape(len(layer.inputs), *side, -1)
    for (row, column), tile in zip(edit.blocks, tiles, strict=True):
        place = outputs[:, row : row + side[0], column : column + side[1]]
        place[...] = tile[: place.shape[1], : place.shape[2]].transpose(2, 0, 1)
    return outputs


def _checked(trace: Trace, block: int, threshold: float, dilation: int | None, edit: np.ndarray | None) -> list[Layer]:
    """Return the convolutions of ``trace``. Raises InputError for parameters that are out of range or do nothing."""
    whole(block, "--block", 1, LARGEST_BLOCK)
    not_negative(threshold, "--threshold")
    if dilation is not None:
        whole(dilation, "--dilation", 0, LARGEST_BLOCK)
    if edit is None and dilation is not None:
        raise InputError(f"--dilation must come with --edit, not {dilation} alone; leave it out")
    if edit is not None and threshold:
        raise InputError(f"--threshold compares two samples, not {threshold:g} with --edit; leave one out")
    convolutions = [layer for layer in trace.layers if layer.op == "conv2d"]
    if not convolutions:
        raise InputError(f"{trace.name}: an edit needs convolutions, and the trace has none")
    for layer in convolutions:
        if layer.samples != len(layer.inputs):
            raise InputError(
                f"{trace.name}: an edit needs whole pictures, and layer {layer.name} has {len(layer.inputs)} parts of "
                f"{layer.samples}; start from the trace before"
            )
    return convolutions


def _measured(about: LayerEdit, part: Layer | None, alone: Layer, before: Layer) -> LayerEdit:
    """Return ``about`` with the error of the outputs that are put together of old ones and blocks of new ones."""
    shape = (*about.outputs.shape, -1)
    known, wanted = (output_of(layer).reshape(shape).transpose(2, 0, 1) for layer in (before, alone))
    made = known if part is None else scattered(part, about, known)
    error = float(np.abs(made - wanted).max(initial=0.0) / max(np.abs(wanted).max(initial=0.0), 1e-30))
    return replace(about, error=error)


def _gathered(alone: Layer, mask: np.ndarray, block: int) -> tuple[Layer | None, LayerEdit]:
    """Return the convolution of the blocks that ``mask`` reaches, None where there are none, and what that comes to."""
    outputs = reached(alone, mask)
    height, width = outputs.shape
    tall, wide = min(block, height), min(block, width)
    starts = [
        (row, column)
        for row in range(0, height, tall)
        for column in range(0, width, wide)
        if outputs[row : row + tall, column : column + wide].any()
    ]
    blocks = np.array(starts, np.int64).reshape(-1, 2)
    cells = int(np.prod(alone.shape))  # multiplications of an output position, over all outputs
    about = LayerEdit(
        name=alone.name,
        inputs=mask,
        outputs=outputs,
        blocks=blocks,
        macs=len(starts) * tall * wide * cells,
        macs_whole=height * width * cells,
        error=None,
    )
    if not starts:
        return None, about
    patches = np.stack(list(_patches(alone, blocks, tall, wide, outputs.shape)))
    attributes = dict(alone.attributes) | {"padding": (0, 0), "samples": 1}  # all are blocks of one picture
    return changed(alone, inputs=patches, attributes=attributes), about


def _patches(layer: Layer, blocks: np.ndarray, tall: int, wide: int, size: tuple[int, ...]) -> Iterator[np.ndarray]:
    """Yield the input under each block, (channels, rows, columns); a block past the edge finds zeros there."""
    strides, steps, pads = (layer.attributes[name] for name in ("stride", "dilation", "padding"))
    spans = [
        (side - 1) * stride + step * (kernel - 1) + 1
        for side, stride, step, kernel in zip((tall, wide), strides, steps, layer.shape[2:], strict=True)
    ]
    beyond = [
        max(0, (-(-count // side) * side - side) * stride + span - (have + 2 * pad))
        for count, side, stride, span, have, pad in zip(
            size, (tall, wide), strides, spans, layer.inputs.shape[2:], pads, strict=True
        )
    ]
    padded = np.pad(layer.inputs[0], [(0, 0), *((pad, pad + more) for pad, more in zip(pads, beyond, strict=True))])
    for row, column in blocks:
        top, left = row * strides[0], column * strides[1]
        yield padded[:, top : top + spans[0], left : left + spans[1]]


def _spread(trace: Trace, convolutions: list[Layer], edit: np.ndarray, dilation: int | None) -> dict[str, np.ndarray]:
    """Return what ``edit`` makes of each convolution's input, by name, layer after layer in the order of the trace.

    Branches that meet are joined at their size of picture: a layer sees all that has been reached at its size so far,
    or, where the picture is smaller (a pooling lies between), the smallest larger one, shrunk. With ``dilation``
    nothing spreads: each size of picture has the edit itself, shrunk and widened.
    """
    first = convolutions[0].inputs.shape[2:]
    if edit.shape != first:
        raise InputError(
            f"{trace.name}: the edit must be {first}, the input of {convolutions[0].name}, not {edit.shape}"
        )
    known: dict[tuple[int, ...], np.ndarray] = {first: _widened(edit.astype(bool), dilation or 0)}
    masks = {}
    for layer in convolutions:
        size = layer.inputs.shape[2:]
        if size not in known:
            larger = [each for each in known if all(a % b == 0 for a, b in zip(each, size, strict=True))]
            if not larger:
                raise InputError(
                    f"{trace.name}: the input of {layer.name}, {size}, must be one that an edit of {first} reaches by "
                    "whole strides; give two samples in place of the edit"
                )
            known[size] = _widened(_shrunk(edit, size), dilation) if dilation is not None else _shrunk(
                known[min(larger)], size
            )  # fmt: skip
        masks[layer.name] = known[size]
        if dilation is None:
            outputs = reached(layer, known[size])
            known[outputs.shape] = outputs | known.get(outputs.shape, np.zeros(outputs.shape, bool))
    return masks


def _widened(mask: np.ndarray, cells: int) -> np.ndarray:
    """Return ``mask`` with so many more cells to each side of every one that is set."""
    for axis, side in enumerate(mask.shape):
        reach = min(cells, side)
        sides = [(reach, reach) if each == axis else (0, 0) for each in range(mask.ndim)]
        windows = np.lib.stride_tricks.sliding_window_view(np.pad(mask, sides), 2 * reach + 1, axis=axis)
        mask = np.asarray(windows.any(axis=-1))
    return mask


def _shrunk(mask: np.ndarray, size: tuple[int, ...]) -> np.ndarray:
    """Return ``mask`` at a ``size`` that divides its own: set where any cell of the window is."""
    rows, columns = size
    windows = mask.reshape(rows, mask.shape[0] // rows, columns, mask.shape[1] // columns)
    return np.asarray(windows.any(axis=(1, 3)))


def _one(layer: Layer, sample: int) -> Layer:
    """Return ``layer`` with this one sample."""
    if layer.op == "matmul":
        each = len(layer.inputs) // layer.samples
        part = slice(sample * each, (sample + 1) * each)
        return changed(layer, inputs=layer.inputs[part], weight=layer.weight[part], attributes={"samples": 1})
    if layer.op not in ("linear", "conv2d"):
        raise InputError(f"layer {layer.name}: an edit is of pictures, and {layer.op} takes none")
    return changed(layer, inputs=layer.inputs[sample : sample + 1])


def _changed_rows(layer: Layer, alone: Layer, original: int, edited: int) -> Layer | None:
    """Return ``alone`` with the rows that differ between the samples, None where none does; matmuls stay whole."""
    if layer.op == "matmul":
        return alone
    rows = alone.inputs.reshape(-1, layer.shape[1])
    different = (rows != layer.inputs[original].reshape(rows.shape)).any(axis=1)
    attributes = dict(alone.attributes) | {"samples": 1}
    return changed(alone, inputs=rows[different], gather=None, attributes=attributes) if different.any() else None
