"""A sweep that is killed outright, again and again, and resumed, ends as one that was let alone."""

import importlib.util
import random
import subprocess
from pathlib import Path

import pytest

SCRIPT = Path(__file__).resolve().parents[2] / "benchmarks" / "killed_sweep.py"


@pytest.fixture(scope="module")
def script():
    spec = importlib.util.spec_from_file_location("killed_sweep", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_a_sweep_killed_at_random_moments_ends_with_the_table_of_an_unbroken_one(script, tmp_path, monkeypatch):
    monkeypatch.setenv("PYTHONPATH", str(Path(importlib.util.find_spec("gossamer").origin).parents[1]))
    grid = (f"pe_count={','.join(map(str, range(1, 33)))}", "queue_depth=2,3,4,6,8,12,16,24,32,64")
    subprocess.run(script.command(tmp_path, "whole", grid), check=True, stdout=subprocess.DEVNULL)
    moments, held = script.kills_and_resumes(tmp_path, 3, random.Random(0), grid)
    assert held == sorted(held)
    assert all(0 <= moment <= stored <= 320 for moment, stored in zip(moments, held, strict=True))
    assert 0 < held[0] < held[-1]
    assert script.stored(tmp_path / "broken.sqlite") == script.stored(tmp_path / "whole.sqlite") == 320
    assert (tmp_path / "broken.csv").read_text() == (tmp_path / "whole.csv").read_text()
