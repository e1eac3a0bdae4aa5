"""Tables and JSON of a search: what it found beside the even network of equal cost."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import msgspec
import numpy as np
from rich.console import Group, RenderableType
from rich.markup import escape
from rich.text import Text

from .cells import figures, new_table, percent
from .search import seed_numbers

if TYPE_CHECKING:
    from ..workloads.search.found import Found
    from ..workloads.search.sensitivity import CostScan
    from .search import Job, Pair

SCHEMA = "gossamer.search/1"
UNITS = {"latency": ("µs", 1e6), "cycles": ("cycles", 1.0), "energy": ("µJ", 1e6), "edp": ("pJ s", 1e12)}


def search_table(job: Job, pairs: list[Pair]) -> RenderableType:
    """Return cost, accuracy and what is kept of each layer: of the dense network, the search and the even network."""
    unit, scale = UNITS[job.quantity]
    first = pairs[0].found
    space = first.candidate.space
    table = new_table(f"{job.name} on {job.machine.name}, {job.chosen_kind}, {seed_numbers(pairs)}")
    table.add_column("network")
    for heading in (f"{job.quantity}\n{unit}", "of dense\n%", "accuracy\n%", "weights\n%"):
        table.add_column(heading, justify="right", no_wrap=True)
    for layer in space.layers:
        table.add_column(f"{escape(layer.name)}\n%", justify="right", overflow="fold")
    size = sum(layer.weights for layer in space.layers)
    dense = [pair.found.dense_cost * scale for pair in pairs]
    table.add_row(
        "dense", _spread(dense, figures), "100", _spread([100 * pair.accuracy for pair in pairs], _tenths), "100",
        *["100"] * len(space.layers),
    )  # fmt: skip
    for name, networks in ((first.method, [pair.found for pair in pairs]), ("even", [pair.even for pair in pairs])):
        table.add_row(
            name,
            _spread([each.cost * scale for each in networks], figures),
            _spread([100 * each.ratio for each in networks], _hundredths),
            _spread([100 * each.candidate.test_accuracy() for each in networks], _tenths),
            _spread([100 * each.candidate.weights_kept / size for each in networks], _tenths),
            *(
                percent(float(np.mean([each.candidate.choices[layer.index] for each in networks])))
                for layer in space.layers
            ),
        )
    wins = sum(pair.found.candidate.test_accuracy() > pair.even.candidate.test_accuracy() for pair in pairs)
    ties = sum(pair.found.candidate.test_accuracy() == pair.even.candidate.test_accuracy() for pair in pairs)
    words = (
        "Accuracy on the test samples, mean and standard deviation over seeds; both fine-tuned for as many epochs. "
        f"{first.method} is ahead in {wins} of {len(pairs)}, level in {ties}; "
        f"{np.mean([pair.cpu_s for pair in pairs]):.1f} s of one core a search."
    )
    return Group(table, Text(words, style="dim"))


def scan_table(scan: CostScan) -> RenderableType:
    """Return accuracy and cost with one layer pruned, two rows a layer, in percent; cost of the dense network's."""
    table = new_table("With one layer pruned: accuracy, %, and cost, % of dense")
    table.add_column("layer", overflow="fold")
    table.add_column("")
    for ratio in scan.ratios:
        table.add_column(f"{100 * ratio:g} %", justify="right", no_wrap=True)
    for name, accuracy in scan.accuracy.items():
        table.add_row(escape(name), "accuracy", *(percent(value) for value in accuracy))
        table.add_row("", "cost", *(percent(value / scan.base_cost) for value in scan.cost[name]), end_section=True)
    return table


def search_json(job: Job, pairs: list[Pair]) -> str:
    """Return the searches as JSON: both networks of each seed, and every step on the way."""
    found: dict[str, Any] = {
        "schema": SCHEMA,
        "trace": job.source,
        "machine": {
            "name": job.machine.name, "model": job.machine.model, "config": msgspec.to_builtins(job.machine.config)
        },
        "method": job.method,
        "kind": job.chosen_kind,
        "quantity": job.quantity,
        "target": job.share,
        "recipe": msgspec.to_builtins(job.recipe),
        "runs": [_run(pair) for pair in pairs],
    }  # fmt: skip
    return msgspec.json.format(msgspec.json.encode(found), indent=1).decode() + "\n"


def _run(pair: Pair) -> dict[str, Any]:
    found = {
        "seed": pair.seed,
        "dense": {"cost": pair.found.dense_cost, "test_accuracy": pair.accuracy},
        "found": _network(pair.found),
        "even": _network(pair.even),
        "cpu_s": pair.cpu_s,
    }
    if pair.scan is not None:
        scan = pair.scan
        found["scan"] = {
            name: {
                "kept": scan.kept[name].tolist(), "accuracy": scan.accuracy[name].tolist(),
                "loss": scan.loss[name].tolist(), "cost": scan.cost[name].tolist(),
            }
            for name in scan.kept
        }  # fmt: skip
    return found


def _network(found: Found) -> dict[str, Any]:
    return found.summary() | {"episodes": msgspec.to_builtins(getattr(found, "episodes", ()))}


def _spread(values: Sequence[float], shown: Any) -> str:
    """Return the mean of ``values``, and their standard deviation where there are several that differ."""
    mean = float(np.mean(values))
    if len(values) == 1 or np.ptp(values) == 0:
        return str(shown(mean))
    return f"{shown(mean)} ± {shown(float(np.std(values, ddof=1)))}"


def _tenths(value: float) -> str:
    return f"{value:.1f}" if value >= 10 else f"{value:.2f}"


def _hundredths(value: float) -> str:
    return f"{value:.2f}"
