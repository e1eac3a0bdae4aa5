"""The commands of ``gossamer transform``: what an input lets a network skip, as traces with less work."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ..terminal import check_outputs, progress_bar, show

if TYPE_CHECKING:
    import numpy as np

    from ...workloads.trace import Trace

OutOption = Annotated[Path, typer.Option(metavar="FILE", help="The .safetensors file to write.")]
FramesArgument = Annotated[str, typer.Argument(metavar="TRACE", help="A bundled trace, or a path.")]


def tokens(
    trace: Annotated[
        str, typer.Argument(metavar="TRACE|CHECKPOINT", help="A trace with products, or a run's checkpoint.")
    ],
    out: OutOption,
    keep: Annotated[
        str, typer.Option(metavar="SHARE,...", help="Tokens kept after each attention, of those before it.")
    ] = "0.75",
    heads: Annotated[
        str, typer.Option(metavar="SHARE,...", help="Heads kept after each attention, of those before it.")
    ] = "1",
    values: Annotated[
        float, typer.Option(metavar="SHARE", help="Values used of each row of probabilities, the largest ones.")
    ] = 1.0,
) -> None:
    """Prune tokens and heads that attention finds unimportant (SpAtten); a checkpoint's network is executed again.

    Example: gossamer transform tokens vit.safetensors --keep 0.75 --out pruned.safetensors
    """
    from ...workloads import save_trace
    from ...workloads.dynamic.tokens import prune_tokens
    from ...workloads.training.checkpoint import export_checkpoint, is_checkpoint, load_checkpoint
    from ..dynamic import tokens_table

    check_outputs(out)
    kept, kept_heads = _shares("--keep", keep), _shares("--heads", heads)
    with progress_bar("transform"):
        if is_checkpoint(trace):
            run = load_checkpoint(trace)  # and says so where PyTorch is not installed
            from ...workloads.dynamic.network import pruned_run

            whole = export_checkpoint(trace, products=True)
            pruned = pruned_run(run, kept, heads=kept_heads, values=values)
        else:
            whole = _read(trace)
            pruned = prune_tokens(whole, kept, heads=kept_heads, values=values)
        save_trace(pruned.trace, out)
    show(tokens_table(whole, pruned))
    typer.echo(str(out))


def temporal(
    trace: FramesArgument,
    out: OutOption,
    threshold: Annotated[float, typer.Option(metavar="T", help="Changes of at most this magnitude wait.")] = 0.0,
    shift: Annotated[
        float | None, typer.Option(metavar="PART", help="Shift this part of the channels in time instead (TSM: 0.125).")
    ] = None,
    two_sided: Annotated[
        bool, typer.Option("--two-sided", help="With --shift: as many channels from the next frame too.")
    ] = False,
    steps: Annotated[
        bool, typer.Option("--steps", help="Frames are the steps of each sample, as of an unrolled LSTM.")
    ] = False,
    layer: Annotated[str, typer.Option("--layer", metavar="PATTERN", help="Only layers whose name fits.")] = "*",
) -> None:
    """Take the samples for frames: keep what changed from one to the next, or shift channels in time.

    Example: gossamer transform temporal convnet-digits-imp --threshold 0.1 --out deltas.safetensors
    """
    from ...workloads import InputError, save_trace
    from ...workloads.dynamic.temporal import delta_layers, shift_layers
    from ..dynamic import deltas_table, shift_table

    check_outputs(out)
    if shift is None and two_sided:
        raise InputError("--two-sided must come with --shift, and there is none; leave it out")
    if shift is not None and threshold:
        raise InputError(f"--threshold is of deltas, not {threshold:g} with --shift; leave one out")
    if shift is not None and steps:
        raise InputError("--steps is of deltas, and --shift takes samples for frames; leave one out")
    with progress_bar("transform"):
        read = _read(trace)
        if shift is None:
            deltas = delta_layers(read, threshold, steps=steps, layers=layer)
            made, table = deltas.trace, deltas_table(deltas)
        else:
            shifted = shift_layers(read, shift, two_sided=two_sided, layers=layer)
            made, table = shifted.trace, shift_table(shifted)
        save_trace(made, out)
    show(table)
    typer.echo(str(out))


def spatial(
    trace: FramesArgument,
    out: OutOption,
    original: Annotated[int, typer.Option(metavar="N", help="The sample whose outputs are known.")] = 0,
    edited: Annotated[int, typer.Option(metavar="N", help="The sample to compute.")] = 1,
    threshold: Annotated[float, typer.Option(metavar="T", help="Smaller differences of inputs are none.")] = 0.0,
    edit: Annotated[
        str | None,
        typer.Option(metavar="TOP,LEFT,HEIGHT,WIDTH", help="What was edited of sample --original, not a second one."),
    ] = None,
    dilation: Annotated[
        int | None, typer.Option(metavar="CELLS", help="With --edit: how far it reaches in each layer; all, without.")
    ] = None,
    block: Annotated[int, typer.Option(metavar="SIDE", help="Side of the blocks, in outputs.")] = 4,
    whole: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Write what the edited picture needs without reuse here.")
    ] = None,
) -> None:
    """Keep of an edited picture the blocks of each convolution that the edit reaches (SIGE).

    Example: gossamer transform spatial convnet-digits-imp --edit 0,0,4,4 --out edited.safetensors
    """
    from ...workloads import save_trace
    from ...workloads.dynamic.spatial import edit_layers
    from ..dynamic import edit_table

    check_outputs(out, whole)
    with progress_bar("transform"):
        read = _read(trace)
        mask = None if edit is None else _rectangle(edit, read)
        found = edit_layers(
            read, block=block, original=original, edited=edited, threshold=threshold, edit=mask, dilation=dilation
        )
        save_trace(found.trace, out)
        if whole is not None:
            save_trace(found.whole, whole)
    show(edit_table(found))
    for path in (out, whole):
        if path is not None:
            typer.echo(str(path))


def unroll(trace: FramesArgument, out: OutOption) -> None:
    """Make linear layers of each LSTM, fed with the hidden states that its steps met, for machines that run those.

    Example: gossamer transform unroll lstm.safetensors --out unrolled.safetensors
    """
    from ...workloads.lstm_unroll import unroll_lstm

    _transform(unroll_lstm, trace, out)


def roll(trace: FramesArgument, out: OutOption) -> None:
    """Make an LSTM again of the linear layers that a capture or export made of it, for machines that run LSTMs.

    Example: gossamer transform roll lstm-digits-imp --out lstm.safetensors
    """
    from ...workloads.lstm_unroll import roll_lstm

    _transform(roll_lstm, trace, out)


def _transform(change: Callable[[Trace], Trace], trace: str, out: Path) -> None:
    """Write the trace that ``change`` makes, and tell its layers."""
    from ...workloads import save_trace

    check_outputs(out)
    with progress_bar("transform"):
        changed = change(_read(trace))
        save_trace(changed, out)
    for layer in changed.layers:
        typer.echo(f"{layer.name}: {layer.op} {layer.shape}, inputs {layer.inputs.shape}")
    typer.echo(str(out))


def _read(name: str) -> Trace:
    from ...workloads import load_trace

    return load_trace(name)


def _shares(what: str, text: str) -> list[float]:
    """Return the numbers of ``text``, separated by commas. Raises InputError."""
    from ...workloads import InputError

    try:
        return [float(word) for word in text.split(",")]
    except ValueError:
        raise InputError(f"{what} must be shares, as in 0.75 or 1,0.75,0.5, not {text!r}") from None


def _rectangle(text: str, trace: Trace) -> np.ndarray:
    """Return the rectangle that ``text`` names as a mask of the first convolution's input. Raises InputError."""
    import numpy as np

    from ...workloads import InputError
    from ...workloads.checks import counted

    numbers = [counted(word) for word in text.split(",")]
    if len(numbers) != 4 or min(numbers) < 0:
        raise InputError(f"--edit must be TOP,LEFT,HEIGHT,WIDTH, as in 0,0,2,2, not {text!r}")
    top, left, height, width = numbers
    size = next((layer.inputs.shape[2:] for layer in trace.layers if layer.op == "conv2d"), None)
    if size is None:
        raise InputError(f"{trace.name}: an edit needs convolutions, and the trace has none")
    if not (height and width and top + height <= size[0] and left + width <= size[1]):
        raise InputError(f"--edit must lie within the {size[0]} x {size[1]} input and not be empty, not {text}")
    mask = np.zeros(size, bool)
    mask[top : top + height, left : left + width] = True
    return mask
