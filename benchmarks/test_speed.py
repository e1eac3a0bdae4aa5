"""Timings kept over time: ``python -m pytest benchmarks --benchmark-autosave``; see pytest-benchmark for comparing."""

import numpy as np
import pytest

from gossamer.models import load_machine
from gossamer.models.parts.eie.timing import Broadcasts, Encoded, Timing
from gossamer.simulator import simulate
from gossamer.workloads.formats import csc
from gossamer.workloads.synth import eie_layer


@pytest.fixture(scope="module")
def alex8():
    return eie_layer("alex-8", row_sigma=0.13)


def test_count_nonzero(benchmark, alex8):
    benchmark(np.count_nonzero, alex8.layers[0].weight)


def test_simulate_eie(benchmark, alex8):
    machine = load_machine("eie-64pe")
    benchmark(simulate, machine, alex8)


def test_simulate_dense(benchmark, alex8):
    machine = load_machine("systolic-16x16")
    benchmark(simulate, machine, alex8)


def test_timing_recurrence(benchmark, alex8):
    layer = alex8.layers[0]
    encoded = Encoded.of(layer.codes, 64, 4)
    broadcasts = Broadcasts.of(layer.inputs, False, 64)
    benchmark(Timing.of, encoded.counts.entries, broadcasts, 8)


def test_encode_vgg_6(benchmark):
    codes = eie_layer("vgg-6").layers[0].codes
    benchmark.pedantic(csc.encode, (codes, 64), rounds=5, warmup_rounds=1)


def test_event_engine(benchmark, alex8):
    machine = load_machine("eie-64pe")
    benchmark.pedantic(simulate, (machine, alex8), {"engine": "event"}, rounds=3, warmup_rounds=1)
