"""The figures of PatDNN as the simulator gives them, by the keys of ``papers/patdnn.toml``.

The layers are the nine different 3 x 3 convolutions of VGG-16, drawn: the paper's weights are not public.
"""

from __future__ import annotations

from typing import Any

from ..models import load_machine, vary
from ..simulator.simulate import simulate
from ..workloads.formats import fkw
from ..workloads.pruning.kernel_patterns import KEPT, natural_patterns
from ..workloads.synth.vgg import VGG_LAYERS, vgg_layer, vgg_weight
from ..workloads.trace import Trace
from .published import Figures

CPU, FAST_CORES, GPU = "patdnn-kryo485", "patdnn-kryo485-gold", "patdnn-adreno640"
NO_OPT: dict[str, Any] = {"reorder": False, "kernel_lre": False, "filter_lre": False, "tune": False}
STAGES: dict[str, dict[str, Any]] = {
    "no-opt": NO_OPT,
    "reorder": NO_OPT | {"reorder": True},
    "lre": {"tune": False},
    "tune": {},
    "dense": {"sparse": False},
}
TIMES = {"L6": 2, "L8": 2, "L9": 3}  # how often VGG-16 has a layer of this kind, where more than once
RATES = (8, 12, 18)  # overall: 9 / 4 by patterns, the rest by connectivity


def traces() -> dict[str, Trace]:
    """Return the nine layers, one kernel of 3.6 left and 8 patterns, by name."""
    return {layer.name: vgg_layer(layer.name) for layer in VGG_LAYERS}


def cycles_of(machine: str, layers: dict[str, Trace]) -> dict[str, dict[str, int]]:
    """Return the cycles of each layer with each stage's techniques, by stage and layer."""
    built = load_machine(machine, functional=False)
    found: dict[str, dict[str, int]] = {}
    for stage, changes in STAGES.items():
        varied = vary(built, **changes)
        found[stage] = {name: simulate(varied, trace).total.cycles for name, trace in layers.items()}
    return found


def pattern_figures(layers: dict[str, Trace]) -> Figures:
    """Return what patterns are, and what they and connectivity leave."""
    weights = sum(trace.layers[0].kept.size for trace in layers.values())
    kept = sum(trace.layers[0].nonzeros for trace in layers.values())
    stored = fkw.encode(layers["L6"].layers[0].weight)
    return {
        "natural": (len(natural_patterns()), ""),
        "kept": (KEPT, ""),
        "dictionary": (len(stored.patterns), ""),
        "rate": (weights / kept, "of all nine layers together"),
    }


def storage_figures() -> Figures:
    """Return the share of the structure of compressed rows that filter-kernel-weight form saves, and of all storage."""
    figures: Figures = {}
    for rate in RATES:
        connectivity = rate * KEPT / 9
        structure, whole = [0, 0], [0, 0]
        for layer in VGG_LAYERS:
            weight, _ = vgg_weight(layer.name, connectivity=connectivity)
            for place, bits in enumerate((fkw.encode(weight).bits(32), fkw.csr_bits(weight, 32))):
                whole[place] += sum(bits.values())
                structure[place] += sum(bits.values()) - bits["weight"]
        figures[f"structure {rate}"] = (1 - structure[0] / structure[1], "")
        figures[f"whole {rate}"] = (1 - whole[0] / whole[1], "")
    return figures


def ablation_figures(layers: dict[str, Trace]) -> Figures:
    """Return what each technique gains on the layer where it gains least and most, on CPU and GPU, and all together."""
    figures: Figures = {}
    for label, machine in (("cpu", CPU), ("fast", FAST_CORES), ("gpu", GPU)):
        cycles = cycles_of(machine, layers)
        for before, after in (("no-opt", "reorder"), ("reorder", "lre"), ("lre", "tune"), ("no-opt", "tune")):
            gains = {name: cycles[before][name] / cycles[after][name] for name in layers}
            least, most = min(gains, key=gains.__getitem__), max(gains, key=gains.__getitem__)
            what = "all" if (before, after) == ("no-opt", "tune") else after
            figures[f"{label} {what} least"] = (gains[least], least)
            figures[f"{label} {what} most"] = (gains[most], most)
        gains = {name: cycles["dense"][name] / cycles["tune"][name] for name in layers}
        figures[f"{label} dense least"] = (min(gains.values()), min(gains, key=gains.__getitem__))
        figures[f"{label} dense most"] = (max(gains.values()), max(gains, key=gains.__getitem__))
        total = sum(TIMES.get(name, 1) * count for name, count in cycles["tune"].items())
        figures[f"{label} network"] = (1e3 * total / load_machine(machine).config.clock_hz, "convolutions alone")
    return figures
