"""Files of results: what no simulation gives is refused in one line."""

import json

import pytest

from gossamer.__main__ import main
from gossamer.reports.reading import read_results
from gossamer.workloads.errors import InputError


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda d: d.update(samples=0), "samples must be at least 1, not 0"),
        (lambda d: d["total"].update(cycles=-1), "total: cycles must be 0, or from 1e-30 to 2^63, not -1"),
        (lambda d: d["layers"][0].update(macs=10**30), "fc1: macs must be 0, or from 1e-30 to 2^63, not 1e+30"),
        (lambda d: d["layers"][1].update(macs=10**400),
         "fc2: macs must be 0, or from 1e-30 to 2^63, not a number beyond 1e300"),
        (lambda d: d["total"].update(latency_s=1e-320),
         "total: latency_s must be 0, or from 1e-30 to 2^63, not 9.99989e-321"),
        (lambda d: d["layers"][0]["arithmetic"].pop("rms_error"),
         "fc1: arithmetic must have max_abs_error, rms_error, rms_reference, same_argmax, saturated"),
        (lambda d: d["layers"][0].update(roofline={}),
         "fc1: roofline must have achieved_macs_per_s, bound_macs_per_s, macs_per_byte, ridge_macs_per_byte"),
        (lambda d: d["layers"][0]["queues"]["activation"].update(
            over_time={"step": 1, "mean": [1.0], "least": [], "most": [1]}),
         "fc1: a queue over time must have as many mean, least and most"),
    ],
)  # fmt: skip
def test_numbers_that_no_simulation_gives_are_refused_in_one_line(change, message, results, tmp_path, capsys):
    data, path = results[0].to_dict(), tmp_path / "bad.json"
    change(data)
    path.write_text(json.dumps(data))
    assert main(["report", str(path), "--out", str(tmp_path / "out.html")]) == 2
    assert capsys.readouterr().err == f"gossamer: error: {path}: {message}; write it again with gossamer simulate\n"
    assert [file.name for file in tmp_path.iterdir()] == ["bad.json"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[]", "results must be of schema gossamer.result/1, not an empty list; write it with gossamer compare"),
        ("[1]",
         "not a list of gossamer.result/1: Expected `object`, got `int` - at `$[0]`; write it with gossamer compare"),
        ("{}", "schema must be gossamer.result/1, not None; write it again with gossamer simulate"),
    ],
)  # fmt: skip
def test_a_file_that_holds_no_results_is_refused(text, message, tmp_path):
    path = tmp_path / "bad.json"
    path.write_text(text)
    with pytest.raises(InputError) as error:
        read_results(path)
    assert str(error.value) == f"{path}: {message}"
