"""Tables of what dynamic sparsity leaves to compute."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich.console import Group, RenderableType
from rich.markup import escape
from rich.text import Text

from ..workloads.gemm import lower_gemm
from .cells import figures, new_table, percent, small_percent, whole

if TYPE_CHECKING:
    from ..workloads.dynamic.spatial import Edited
    from ..workloads.dynamic.temporal import Deltas, Shifted
    from ..workloads.dynamic.tokens import Pruned
    from ..workloads.trace import Trace


def macs_of(trace: Trace) -> int:
    """Return the multiply-accumulates of the products of ``trace``, zeros counted."""
    return sum(lower_gemm(layer).macs for layer in trace.layers if layer.op in ("linear", "conv2d", "matmul"))


def tokens_table(before: Trace, pruned: Pruned) -> RenderableType:
    """Return the tokens and heads that are left after each attention, and what is left to multiply."""
    table = new_table("Tokens")
    for heading in ("attention", "tokens\nkept", "heads\nkept"):
        table.add_column(heading, justify="right", no_wrap=True)
    for place, (tokens, heads) in enumerate(zip(pruned.tokens, pruned.heads, strict=True)):
        table.add_row(str(place), whole(tokens.shape[1]), whole(len(heads)))
    left, all_ = macs_of(pruned.trace), macs_of(before)
    lines = [f"{whole(left)} of {whole(all_)} MACs: {percent(left / all_)} %."]
    about = pruned.trace.provenance
    if "unpruned_accuracy" in about:
        lines.append(f"Accuracy {percent(about['accuracy'])} %, {percent(about['unpruned_accuracy'])} % unpruned.")
    else:
        lines.append("Kept tokens have the values that the unpruned network gave them; the accuracy is not known.")
    return Group(table, *(Text(line) for line in lines))


def deltas_table(deltas: Deltas) -> RenderableType:
    """Return, of each layer, how many of its inputs are not 0, before and as deltas, and the error of its outputs."""
    table = new_table("Deltas")
    table.add_column("layer", overflow="fold")
    for heading in ("nonzero\ninputs, %", "nonzero\ndeltas, %", "error\n% of largest"):
        table.add_column(heading, justify="right", no_wrap=True)
    for layer in deltas.layers:
        error = "0" if layer.error < 1e-6 else small_percent(layer.error)
        table.add_row(escape(layer.name), percent(layer.nonzero_before), percent(layer.nonzero_deltas), error)
    return table


def shift_table(shifted: Shifted) -> RenderableType:
    """Return, of each convolution, how many channels come from another frame, and the words that this moves."""
    table = new_table("Shift")
    table.add_column("layer", overflow="fold")
    for heading in ("channels\nshifted", "words\nmoved"):
        table.add_column(heading, justify="right", no_wrap=True)
    for layer in shifted.layers:
        table.add_row(escape(layer.name), whole(layer.channels), whole(layer.moved_words))
    moved = whole(sum(layer.moved_words for layer in shifted.layers))
    return Group(table, Text(f"{moved} words moved, no MAC more: {whole(macs_of(shifted.trace))}."))


def edit_table(edited: Edited) -> RenderableType:
    """Return, of each convolution, how much an edit changes and reaches, the blocks, and what is left to multiply."""
    table = new_table("Edit")
    table.add_column("layer", overflow="fold")
    for heading in ("inputs\nchanged, %", "outputs\nreached, %", "blocks", "MACs\n%", "error\n% of largest"):
        table.add_column(heading, justify="right", no_wrap=True)
    for layer in edited.layers:
        error = "" if layer.error is None else "0" if layer.error < 1e-6 else small_percent(layer.error)
        table.add_row(
            escape(layer.name),
            percent(float(layer.inputs.mean())),
            percent(float(layer.outputs.mean())),
            whole(len(layer.blocks)),
            percent(layer.macs / layer.macs_whole),
            error,
        )
    total = sum(layer.macs for layer in edited.layers)
    return Group(table, Text(f"{figures(total)} MACs of convolutions, {percent(edited.macs_share)} % of the whole."))
