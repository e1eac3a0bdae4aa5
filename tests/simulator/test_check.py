"""The check of engines and numbers: it passes on what is right, and fails on what is not."""

import re
import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gossamer.__main__ import main
from gossamer.models import eie, load_machine
from gossamer.simulator.check import check
from gossamer.workloads import Layer, Trace


def trace(seed, rows=24, cols=30, bias=True, scale=0.0):
    rng = np.random.default_rng(seed)
    weight = ((rng.random((rows, cols)) < 0.4) * rng.normal(size=(rows, cols))).astype(np.float32)
    weight *= np.exp(scale * rng.normal(size=cols)).astype(np.float32)
    inputs = ((rng.random((2, cols)) < 0.5) * rng.normal(size=(2, cols))).astype(np.float32)
    own = rng.normal(size=rows).astype(np.float32) if bias else None
    return Trace(name="t", layers=(Layer(name="fc", op="linear", weight=weight, inputs=inputs, bias=own),))


@settings(max_examples=80, deadline=None)
@given(
    st.integers(0, 2**32), st.booleans(), st.sampled_from(["codebook", "exact"]), st.integers(4, 24),
    st.sampled_from([0.0, 1.0, 4.0]),
)  # fmt: skip
def test_outputs_lie_within_the_bound_of_their_formats(seed, bias, weights, word_bits, scale):
    machine = load_machine("eie-64pe", pe_count=4, weights=weights, word_bits=word_bits)
    assert check(machine, trace(seed, bias=bias, scale=scale))[0].passed


@pytest.mark.parametrize("name", ["systolic-8x8", "eie-64pe"])
def test_bundled_machines_pass_on_a_random_layer(name):
    assert check(load_machine(name), trace(1))[0].passed


def test_an_output_that_the_formats_do_not_explain_is_wrong_though_it_states_its_own_error(monkeypatch):
    honest = eie._judge

    def skewed(datapath, words, saturated, reference):
        words = words.copy()
        words[0, 0] += 40
        return honest(datapath, words, saturated, reference)

    monkeypatch.setattr(eie, "_judge", skewed)
    found = check(load_machine("eie-64pe", pe_count=4, weights="exact"), trace(1))[0]
    assert found.differences == []
    assert not found.numbers_agree


def test_an_error_that_is_not_the_one_stated_is_wrong(monkeypatch):
    honest = eie._judge

    def boastful(*arguments):
        output, arithmetic = honest(*arguments)
        return output, arithmetic | {"max_abs_error": arithmetic["max_abs_error"] / 2}

    monkeypatch.setattr(eie, "_judge", boastful)
    assert not check(load_machine("eie-64pe", pe_count=4), trace(1))[0].numbers_agree


def test_a_figure_in_which_the_engines_differ_is_named(monkeypatch):
    from gossamer.models.parts.eie import units as eie_units

    monkeypatch.setattr(eie_units, "FIRST_BROADCAST", 3)
    found = check(load_machine("eie-64pe", pe_count=4), trace(1))[0]
    assert not found.passed
    assert found.differences[0].startswith("cycles: ")
    place = next(each for each in found.differences if each.startswith("cycles_per_unit"))
    assert re.fullmatch(r"cycles_per_unit\.\w+\.\w+(\[\d+\])?: \d+, \d+", place)


def test_layers_that_fit_alone_but_not_together_are_warned_of():
    from gossamer.simulator import simulate

    layers = tuple(
        Layer(name=name, op="linear", weight=np.ones((4, 30), np.float32), inputs=np.ones((1, 30), np.float32))
        for name in "ab"
    )
    machine = load_machine("eie-64pe", pe_count=2, ptr_bytes=100, spmat_bytes=100)
    assert simulate(machine, Trace(name="t", layers=layers)).warnings == [
        "Spmat SRAM: all 2 layers together take 120 bytes a PE, and it has 100; they cannot stay on chip at once",
        "Ptr SRAM: all 2 layers together take 124 bytes a PE, and it has 100; they cannot stay on chip at once",
    ]


def test_a_terminal_is_told_which_layer_of_how_many_is_at_work(monkeypatch, capsys):
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True, raising=False)
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "120")
    assert main(["check", "lenet-digits-imp", "--on", "systolic-16x16", "--layer", "fc[23]"]) == 0
    shown = capsys.readouterr().err
    assert "1/2" in shown
    assert "fc3" in shown
