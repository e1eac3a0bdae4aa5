"""Figures measured with the authors' simulator, on layers that anyone can make again from a seed."""

import importlib.util
import json
from pathlib import Path

import numpy as np
import pytest

from gossamer.models import load_machine
from gossamer.simulator import simulate
from gossamer.workloads.trace import Layer, Trace

SHARED = Path(__file__).resolve().parents[3] / "shared"
GOLDEN = SHARED / "golden"

if not GOLDEN.is_dir():
    pytest.skip("the golden cases (shared/golden beside the repository) are absent", allow_module_level=True)

spec = importlib.util.spec_from_file_location("eie_cases", GOLDEN / "eie_cases.py")
eie_cases = importlib.util.module_from_spec(spec)
spec.loader.exec_module(eie_cases)
CASES = json.loads((GOLDEN / "eie-random.json").read_text())["cases"]


def trace_of(case):
    book = np.linspace(-1, 1, 16, dtype=np.float32)
    book[0] = 0
    layer = Layer(name="fc", op="linear", inputs=case["act"][None], codes=case["codes"], bias_codes=case["bias_codes"],
                  codebook=book)  # fmt: skip
    return Trace(name="golden", layers=(layer,))


@pytest.mark.parametrize("golden", CASES, ids=lambda golden: str(golden["seed"]))
@pytest.mark.parametrize("engine", ["fast", "event"])
def test_a_random_layer_takes_the_cycles_and_reads_of_the_authors_simulator(golden, engine):
    machine = load_machine(
        "eie-64pe", pe_count=golden["pe_count"], queue_depth=golden["queue_ring"],
        entries_per_row=golden["entries_per_row"],
    )  # fmt: skip
    layer = simulate(machine, trace_of(eie_cases.case(golden["seed"])), engine=engine).layers[0]
    assert layer.cycles == golden["cycles"]
    assert {name: layer.counts[name] for name in ("macs", "spmat_reads", "ptr_reads")} == {
        name: golden[name] for name in ("macs", "spmat_reads", "ptr_reads")
    }


@pytest.mark.parametrize("golden", CASES, ids=lambda golden: str(golden["seed"]))
def test_a_random_layer_is_stored_in_the_entries_and_padding_of_the_authors_simulator(golden):
    from gossamer.workloads.formats import csc

    case = eie_cases.case(golden["seed"])
    encoded = csc.encode(np.column_stack([case["codes"], case["bias_codes"]]), golden["pe_count"])
    assert (encoded.entries, encoded.padding) == (golden["entries"], golden["padding"])
