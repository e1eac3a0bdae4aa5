"""Command lines that fit, for `fuzz`: of every command, with files that are there and options that go together.

`LINES` has the forms of lines, by command. In a form, ``{kind}`` stands for a word of `KINDS` or for what the function
of that name in `MADE` returns, ``{trace}`` for one of `TRACES` that the machine before it runs, ``{a|b}`` for one of
these words, and ``[...]`` for words that may be there. `unknown` names the options of the program that no form has.
"""

from __future__ import annotations

import random
import re
from collections.abc import Callable
from functools import cache
from typing import Any

import msgspec
from fuzz_configs import _machines, _words

from gossamer.simulator.machine import OPS

TRACES: dict[str, tuple[str, ...]] = {  # what can be simulated, with the ops of its layers
    "t.safetensors": ("linear", "conv2d"), "linear.safetensors": ("linear",), "nm.safetensors": ("linear",),
    "kernels.safetensors": ("conv2d",), "lstm.safetensors": ("lstm",), "unrolled.safetensors": ("linear",),
    "attention.safetensors": ("matmul",), "vit.safetensors": ("linear", "matmul"),
    "points.safetensors": ("sparse_conv3d", "point_op"), "conv3d.safetensors": ("sparse_conv3d",),
    "w.npz": ("linear",), "w.safetensors {drawn}": ("linear",), "m.mtx {drawn}": ("linear",),
    "m.smtx {drawn}": ("linear",), "filters.npz --input-size {4x4|6x5} {drawn}": ("conv2d",),
    "cloud.npy --network minkunet-small --voxel-size {0.3|0.5|1} {sent}": ("sparse_conv3d", "point_op"),
}  # fmt: skip
KINDS: dict[str, tuple[str, ...]] = {
    "drawn": ("--act-density {share}", "--seed {few} --act-density {share} --samples {few}"),
    "sent": ("", "", "", "--seed {few}", "--seed {few} --sparsity {share}", "--channel-sparsity {half}",
             "--weights none.npz"),
    "share": ("0.5", "0.1", "0.9", "0", "0.999", "0.001"),
    "half": ("0.5", "0.25", "0.75"),
    "few": ("1", "2", "3", "7"),
    "count": ("1", "2", "4", "16", "33", "64", "100"),
    "layer": ("*", "?*", "*[!9]", "l*", "l0"),
    "json": ("out.json", "out.json", "-"),
    "window": ("0:100", ":50", "10:", "5:6", ":"),
    "bundled": ("lenet-digits-imp", "lenet-digits-srste-2-4", "convnet-digits-imp"),
    "matrix": ("w.npz", "w.safetensors {drawn}", "m.mtx {drawn}", "m.smtx {drawn}", "linear.safetensors"),
    "convolved": ("kernels.safetensors", "t.safetensors", "convnet-digits-imp"),
    "where": ("pe_count>=1", "pe_count=4", "trace=*", "machine!=x", "cycles>1", "error!=*a", "weights!=y"),
    "result": ("r.json", "two.json", "gpu.json", "s.sqlite", "s.sqlite --where {where}"),
    "title": ("mine", "<b>", "a&b"),
    "plotted": ("summary", "causes", "energy", "load"),
    "picture": ("out.png", "out.svg", "out.pdf"),
    "recipe": ("lenet-digits-imp", "lenet-digits-oneshot", "vit-digits-srste-2-4", "recipe.toml"),
    "change": ("seed=3", "epochs=2", "batch_size=32", "learning_rate=0.05"),
    "rule": ("2:4", "1:4", "0.5", "global:0.5", "balanced:0.5:4", "channel:0.5", "block:0.5:2x2",
             "equal-blocks:0.5:2x2", "0"),
    "searched": ("lenet-digits-imp", "c.checkpoint.safetensors"),
    "goal": ("latency=0.5", "energy=0.9", "edp=0.5", "cycles=0.7"),
    "shares": ("0.75", "1", "0.75,0.5", "0.5"),
    "out": ("out.safetensors", "out.safetensors", "linear.safetensors"),
    "cloud": ("out.npy", "out.npz", "out.bin", "out.ply"),
    "kept": ("2:4", "1:4", "64:2:8", "dense", "random:0.5"),
    "spread": ("0", "0.5", "1.2"),
}  # fmt: skip
RARE = "~"  # before a form that is drawn a twentieth as often: it takes its time, or has little in it
LINES: dict[str, tuple[str, ...]] = {
    "check": ("--on {machine} {trace} [--set {set}] [--layer {layer}]",),
    "simulate": (
        "--on {machine} {trace} [--set {set}] [--set {set}] [--layer {layer}] [--engine {fast|event}] [--json {json}] "
        "[--csv out.csv]",
        "{matrix} [--on {eie-64pe|systolic-8x8|v100-sputnik|sparseloop-stc}] [--json {json}] [--csv out.txt]",
        "--on {machine} {trace} --engine event --timeline {time.json|out.vcd} [--window {window}] [--json {json}]",
        "~{bundled} --on {eie-64pe|systolic-8x8|v100-sputnik}",
        "~c.off --network {pointnet|pointnet2-ssg} --samples 1024 {sent} --on pointacc",
    ),
    "compare": (
        "--on {machine} {trace} [--set {set}] [--layer {layer}] [--json {json}] [--csv out.csv] [--page out.md]",
        "linear.safetensors nm.safetensors [--on systolic-*] [--json {json}] [--csv out.csv] [--page out.md]",
        "{t.safetensors|vit.safetensors|points.safetensors} --on {eie-*|all|a100-*} [--page out.md] [--json {json}]",
        "~--on {machine} {trace} --plot {picture}",
    ),
    "sweep": (
        "--on {machine} {trace} --grid {grid} [--grid {grid}] [--set {set}] [--layer {layer}] [--store out.sqlite] "
        "[--engine {fast|event}] [--json {json}] [--csv out.csv]",
        "~--on {machine} {trace} --grid {grid} {--workers 2|--cluster tcp://127.0.0.1:1|--plot out.png}",
    ),
    "explore": (
        "--on {machine} {trace} [--grid {grid}] [--range {range}] [--set {set}] [--layer {layer}] "
        "[--store out.sqlite] [--json {json}] [--csv out.csv]",
        "--on {eie-64pe|mine.toml} --on systolic-8x8 linear.safetensors t.safetensors [--json {json}]",
        "~--on {machine} {trace} --grid {grid} --trials {few} --sampler {tpe|nsga2} [--search-seed {few}]",
        "~--on {machine} {trace} --grid {grid} {--workers 2|--cluster tcp://127.0.0.1:1}",
    ),
    "results": (
        "s.sqlite [--where {where}] [--where {where}] [--json {json}] [--csv out.csv] [--parquet out.parquet]",
    ),
    "report": ("{result} [--out {out.html|out.htm}] [--title {title}]", "r.json gpu.json two.json [--title {title}]"),
    "plot": (
        "~{r.json|two.json|gpu.json} --kind {plotted} --out {picture}", "~s.sqlite --kind {sweep|pareto} --out out.png",
        "~s.sqlite --kind sweep --over pe_count --out out.svg --where {where}", "~r.json --all made --suffix .svg",
    ),
    "list": ("~[{machines|traces|networks|recipes|all}]",),
    "sources": ("~{machine}", "~{eie-45nm-event|gpu-event}", "~[--out out.md]"),
    "schema": ("~{result|trace|energy-table}",),
    "validate": (
        "~{eie|ese|tensor-core|pointacc|patdnn|spatten|gpu-kernels|all} [--json {json}] [--out out.md]",
        "~{tensor-core|pointacc} --plots made", "~eie dump",
    ),
    "demo": ("~[--out made]",),
    "train": ("~{recipe} [--out made] [--set {change}] [--seeds {few}]",),
    "diagnose": ("~c.checkpoint.safetensors [--out made] [--samples {count}] [--pe-count {count}] [--suffix .svg]",),
    "export": (
        "{matrix} --out {out} [--prune {rule}]",
        "filters.npz --out {out} --act-density {share} --input-size 6x6 --prune {rule} --exclude {c1|c2*}",
        "{filters.npz|s.pt} --out {out} --input-size {6x6|8x8} {drawn} --prune {rule}",
        "c.checkpoint.safetensors --out {out} [--prune {rule}] [--products] [--fold-batch-norm]",
        "n.onnx --out {out} --inputs {x.npy|x.npz} [--prune {rule}]",
        "net:make --out {out} --inputs x.npy [--prune {rule}] [--products] [--fold-batch-norm]",
        "~cloud.npy --out {out} --network minkunet-small --voxel-size {0.5|1} [--features] {sent}",
    ),
    "search": (
        "{netadapt|amc} --trace {searched} --on {eie-64pe|systolic-8x8} --target {goal} [--kind channels] "
        "[--recipe {change}] [--epochs {few}] [--short-epochs {few}] [--steps {few}] [--episodes {few}] [--out made] "
        "[--json {json}] [--plot {picture}] [--set {set}]",
        "sensitivity --trace {searched} --on systolic-8x8 --max-drop {0.01|0.1} [--kind channels] [--seeds {few}]",
        "netadapt --trace {searched} --on a100-sparse --target {goal} --kind nm [--n {1,2|2|1}] [--m {4|8}]",
        "amc --trace {searched} --on eie-64pe --target {goal} --kind sparsity --pe-count {count}",
    ),
    "synth cad": ("--out {cloud} [--shape {chair|table|sphere}] [--points {count}] [--seed {few}]",),
    "synth eie": ("~{nt-we|NT-LSTM} --out {out} [--row-sigma {spread}] [--seed {few}]",),
    "synth ese": ("~--out {out} [--row-sigma {spread}] [--pruning {balanced|global}] [--samples {few}] [--steps {few}] "
                  "[--seed {few}]",),
    "synth gemm": ("--rows {64|128} --reduction {64|96} --columns {count} --out {out} [--pattern {kept}] "
                   "[--act-density {share}] [--seed {few}]",),
    "synth lidar": ("~--out {cloud} [--seed {few}]",),
    "synth random": ("--out {out} --rows {count} --cols {count} [--density {share}] [--act-density {share}] "
                     "[--row-sigma {spread}] [--samples {few}] [--bias] [--seed {few}]",),
    "synth room": ("~--out {cloud} [--seed {few}]",),
    "transform roll": ("unrolled.safetensors --out {out}",),
    "transform spatial": (
        "{t.safetensors|convnet-digits-imp} --out {out} [--original 0] [--edited 1] [--threshold {share}] "
        "[--block {few}]",
        "{convolved} --out {out} --edit {0,0,2,2|1,2,1,3} [--dilation {0|1|2}] [--block {few}] "
        "[--whole whole.safetensors]",
    ),
    "transform temporal": (
        "{linear.safetensors|convnet-digits-imp|nm.safetensors} --out {out} [--threshold {share}] [--layer {layer}]",
        "unrolled.safetensors --out {out} --steps [--threshold {share}]",
        "convnet-digits-imp --out {out} --shift {0.25|0.125|0.5} [--two-sided]",
    ),
    "transform tokens": ("vit.safetensors --out {out} [--keep {shares}] [--heads {half}] [--values {half}]",),
    "transform unroll": ("lstm.safetensors --out {out}",),
}  # fmt: skip


class _Line:
    """A line that is being written: the machine that it names, and the fields of it that are taken."""

    def __init__(self, rng: random.Random) -> None:
        self.rng = rng
        self.machine = next(machine for machine in _machines() if machine.name == "eie-64pe")
        self.taken: set[str] = set()

    def words(self, form: str) -> list[str]:
        """Return the words of ``form``."""
        found: list[str] = []
        for optional, word in re.findall(r"\[([^\]{]*(?:\{[^}]*\}[^\]{]*)*)\]|(\S*\{[^}]*\}|\S+)", form):
            if optional:
                found += self.words(optional) if self.rng.random() < 0.35 else []
            else:
                found += self._expanded(word)
        return found

    def _expanded(self, word: str) -> list[str]:
        if not (word.startswith("{") and word.endswith("}")):
            return [word]
        name = word[1:-1]
        if "|" in name:
            return self.words(self.rng.choice(name.split("|")))
        if name in MADE:
            return [MADE[name](self)]
        return self.words(self._trace() if name == "trace" else self.rng.choice(KINDS[name]))

    def new_machine(self) -> str:
        self.machine = self.rng.choice(_machines())
        return self.machine.name

    def _trace(self) -> str:
        """Return the form of a trace that the machine of the line runs."""
        ops = getattr(self.machine.engines, "OPS", OPS)
        return self.rng.choice([form for form, needed in TRACES.items() if set(needed) <= set(ops)])

    def _field(self, *kinds: type) -> tuple[str, Any]:
        """Return a field of the machine of the line that is not taken, with its value, of one of ``kinds``."""
        config = msgspec.structs.asdict(self.machine.config)
        free = [name for name, item in config.items() if type(item) in kinds and name not in self.taken]
        name = self.rng.choice(free)
        self.taken.add(name)
        return name, config[name]

    def _near(self, name: str, old: Any) -> str:
        """Return a value for the field ``name`` that is mostly allowed."""
        rng = self.rng
        if isinstance(old, bool):
            return rng.choice(("true", "false"))
        if isinstance(old, int):
            return str(rng.choice((old, old, old * 2, max(1, old // 2), old + 1, rng.randrange(1, 9))))
        if isinstance(old, float):
            return repr(rng.choice((old, old * 2, old / 2, old * (1 - rng.random() / 8))))
        return str(rng.choice([old, *_words()[name]]))

    def set_field(self) -> str:
        name, old = self._field(bool, int, float, str)
        return f"{name}={self._near(name, old)}"

    def grid(self) -> str:
        name, old = self._field(bool, int, float, str)
        return f"{name}={','.join(self._near(name, old) for _ in range(self.rng.choice((1, 2, 3))))}"

    def range(self) -> str:
        name, old = self._field(int)
        kind = self.rng.randrange(3)
        if kind == 0:
            return f"{name}={old}:{old + self.rng.randrange(3)}"
        if kind == 1:
            return f"{name}={old}:{old * 4}:log2"
        return f"{name}={max(1, old // 2)}:{old}:{max(1, old // 3)}"


MADE: dict[str, Callable[[_Line], str]] = {
    "machine": _Line.new_machine, "set": _Line.set_field, "grid": _Line.grid, "range": _Line.range,
}  # fmt: skip


@cache
def _forms() -> tuple[list[tuple[str, str]], list[int]]:
    """Return each form with its command, and how often it is drawn."""
    pairs = [(command, form) for command, forms in LINES.items() for form in forms]
    weights = [1 if form.startswith(RARE) else 40 if "{machine}" in form else 20 for _, form in pairs]
    return [(command, form.removeprefix(RARE)) for command, form in pairs], weights


def line(rng: random.Random) -> list[str]:
    """Return the words of a line that should do its work, mostly."""
    forms, weights = _forms()
    ((command, form),) = rng.choices(forms, weights)
    return [*command.split(), *_Line(rng).words(form)]


def unknown(commands: list[tuple[tuple[str, ...], list[Any]]]) -> list[str]:
    """Return the commands, and options of them, that no form has; ``commands``: words and parameters of each."""
    missing = []
    for words, parameters in commands:
        name = " ".join(words)
        told = set(re.findall(r"--[a-z0-9-]+", " ".join(map(_whole, LINES.get(name, ())))))
        options = [each.opts[0] for each in parameters if each.param_type_name == "option"]
        missing += [f"{name} {option}" for option in options if option not in told] if name in LINES else [name]
    return missing


def _whole(form: str) -> str:
    """Return ``form`` with all that its kinds may stand for behind it."""
    inner = [each for kind in re.findall(r"{([a-z]+)}", form) for each in KINDS.get(kind, ())]
    inner += TRACES if "{trace}" in form else ()
    return " ".join([form, *map(_whole, inner)])
