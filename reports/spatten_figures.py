"""The figures of SpAtten as the simulator gives them, by the keys of ``papers/spatten.toml``."""

from __future__ import annotations

import numpy as np

from ..models import load_machine, vary
from ..models.parts.spatten.top_k import select_rows
from ..simulator.machine import Machine
from ..simulator.result import LayerResult
from ..simulator.simulate import simulate
from ..workloads.patterns import Pattern
from ..workloads.trace import Layer, Trace
from .published import Figures

ROWS = 4000
SELECTIONS = ((256, 32), (512, 64), (1024, 64), (1024, 512), (2048, 64), (4096, 32))  # of so many, so many
HEADS, SIZE = 12, 64  # BERT-Base, GPT-2-Small
SPREAD = 2.0  # of the drawn attention scores: some keys stand out, as in trained networks


def engine_figures() -> Figures:
    """Return the mean cycles of quick-select on random rows, without filling: as the authors' model counts."""
    config = load_machine("spatten").config
    rng = np.random.default_rng(0)
    found: Figures = {}
    for count, k in SELECTIONS:
        rows = rng.random((ROWS, count), dtype=np.float32)
        _, cycles, _ = select_rows(rows, np.full(ROWS, k), config.comparators, config.pass_latency, config.seed)
        found[f"top_k_{count}_{k}"] = float(cycles.mean()) - -(-count // config.comparators), ""
    return found


def pipeline_figures() -> Figures:
    """Return cycles of whole layers of attention, and the throughput that they come to."""
    machine = load_machine("spatten")
    found: Figures = {}
    for tokens in (128, 384):
        found[f"bert_{tokens}"] = _run(vary(machine, dram_bounds_latency=False), tokens, tokens).cycles, ""
    bert = _run(machine, 128, 128)
    found["tflops_bert"] = 2 * bert.macs / bert.latency_s / 1e12, ""
    config = machine.config
    found["key_sram_kb"] = 2 * 1024 * SIZE * config.word_bits / 8 / 1000, ""
    return found


def trend_figures() -> Figures:
    """Return what more comparators bring where one query meets many keys."""
    found: Figures = {}
    for percent in (75, 25):
        machine = load_machine("spatten", value_keep=percent / 100)
        cycles = {count: _run(vary(machine, comparators=count), 1, 1024).cycles for count in (1, 16, 32)}
        found[f"gain_16_to_32_of_{percent}"] = cycles[16] / cycles[32], ""
        found["gain_1_to_16"] = cycles[1] / cycles[16], ""
    return found


def attention(queries: int, keys: int, *, heads: int = HEADS, size: int = SIZE, seed: int = 0) -> Trace:
    """Return the second product of an attention with drawn scores: probabilities times values."""
    rng = np.random.default_rng(seed)
    scores = SPREAD * rng.standard_normal((heads, queries, keys))
    powers = np.exp(scores - scores.max(axis=-1, keepdims=True))
    layer = Layer(
        name="matmul2",
        op="matmul",
        inputs=(powers / powers.sum(axis=-1, keepdims=True)).astype(np.float32),
        weight=rng.standard_normal((heads, size, keys)).astype(np.float32),
        pattern=Pattern(kind="dense"),
        attributes={"samples": 1},
    )
    return Trace(name=f"attention-{queries}x{keys}", layers=(layer,), provenance={"source": "drawn scores"})


def _run(machine: Machine, queries: int, keys: int) -> LayerResult:
    return simulate(machine, attention(queries, keys)).layers[0]
