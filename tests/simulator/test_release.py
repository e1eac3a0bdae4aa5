"""What is compared between machines that share a sweep."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import gossamer
from gossamer.simulator import release as module
from gossamer.simulator.release import VersionError, check_release, release


def test_another_process_of_the_same_files_has_the_same_release(tmp_path):
    # A copy, since the files may change under a process that runs for long.
    code = "import json; from gossamer.simulator.release import release; print(json.dumps(release()))"

    for name in ("one", "other"):
        source = Path(gossamer.__file__).parent
        shutil.copytree(
            source, tmp_path / name / "gossamer", ignore=shutil.ignore_patterns(".*", "tests", "docs", "bundled")
        )
    (tmp_path / "one/gossamer/simulator/memo.py").write_bytes(
        (tmp_path / "one/gossamer/simulator/memo.py").read_bytes().replace(b"\n", b"\r\n")
    )

    def told(name):
        there = {"PYTHONPATH": str(tmp_path / name)}
        return json.loads(subprocess.check_output([sys.executable, "-c", code], cwd=tmp_path / name, env=there))

    assert told("one") == told("other")
    (tmp_path / "other/gossamer/models/eie.py").write_text("# another model\n")
    one, other = told("one"), told("other")
    assert one.pop("gossamer's source") != other.pop("gossamer's source")
    assert one == other
    assert list(one) == ["gossamer", "Python", "numpy", "numba", "simpy", "msgspec"]


def test_the_first_part_that_differs_is_named(monkeypatch):
    here = release()
    check_release(here)
    monkeypatch.setattr(module, "release", lambda: here | {"numpy": "1.26", "numba": "0.1"})
    with pytest.raises(VersionError) as caught:
        check_release(here)
    assert str(caught.value) == (
        f"every worker must have numpy {here['numpy']}, and one has 1.26; install the same there"
    )


def test_a_part_that_a_worker_does_not_know_differs():
    with pytest.raises(VersionError, match="must have abacus 2, and one has none; install the same there"):
        check_release({"abacus": "2"})
