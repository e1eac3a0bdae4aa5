import pytest

from gossamer.models import load_machine, vary
from gossamer.reports.plots import plot_causes, plot_load, plot_sweep
from gossamer.simulator import simulate
from gossamer.simulator.sweep import Case, Outcome, sweep
from gossamer.workloads.errors import InputError
from gossamer.workloads.synth import random_layer

EIE, SYSTOLIC = load_machine("eie-64pe"), load_machine("systolic-16x16")
HEADS = {".png": b"\x89PNG\r\n", ".svg": b"<?xml", ".pdf": b"%PDF"}


@pytest.fixture(scope="module")
def trace():
    return random_layer(100, 120, 0.1, 0.4, row_sigma=0.3, name="naive $x$")


@pytest.fixture(scope="module")
def outcomes(trace):
    points = [{"pe_count": n, "queue_depth": q} for n in (1, 4, 64) for q in (2, 8)]
    found = sweep([Case(trace, vary(EIE, **point), point) for point in points])
    return [*found[:5], Outcome(found[5].case, None, "ValueError: broken")]


def svg_words(path):
    """Return what an SVG says; matplotlib writes each text as a comment before its glyphs."""
    return [line[5:-4] for line in (line.strip() for line in path.read_text().splitlines()) if line.startswith("<!-- ")]


@pytest.mark.parametrize("suffix", HEADS)
def test_a_plot_is_written_in_the_format_of_its_suffix_twice_the_same(suffix, outcomes, tmp_path):
    path = plot_sweep(outcomes, "pe_count", tmp_path / f"plot{suffix}")
    first = path.read_bytes()
    assert first.startswith(HEADS[suffix])
    assert plot_sweep(outcomes, "pe_count", path).read_bytes() == first
    assert [file.name for file in tmp_path.iterdir()] == [path.name]


def test_a_sweep_has_a_panel_a_figure_a_line_a_combination_and_the_ideal(outcomes, tmp_path):
    words = svg_words(plot_sweep(outcomes, "pe_count", tmp_path / "sweep.svg"))
    for text in ("speed-up", "load balance, %", "padding of entries, %", "energy, uJ", "pe_count", "ideal"):
        assert text in words
    assert {"queue_depth=2", "queue_depth=8"} <= set(words)
    assert "ideal" not in svg_words(plot_sweep(outcomes, "queue_depth", tmp_path / "depth.svg"))


def test_a_setting_that_is_no_number_is_plotted_by_name(trace, tmp_path):
    points = [{"weights": "codebook"}, {"weights": "exact"}]
    found = sweep([Case(trace, vary(EIE, **point), point) for point in points])
    assert {"codebook", "exact"} <= set(svg_words(plot_sweep(found, "weights", tmp_path / "weights.svg")))


def test_causes_and_parts_are_named_and_totals_stand_at_the_bars(trace, tmp_path):
    results = [simulate(EIE, trace), simulate(vary(EIE, pe_count=16), trace)]
    words = svg_words(plot_causes(results, tmp_path / "causes.svg"))
    assert {"busy", "starved", "drained", "SpmatRead", "PtrRead", "cycles a unit, by cause"} <= set(words)
    assert "energy by part, uJ" in words and "eie-45nm-calibrated" in words
    for result in results:
        total = result.total.cycles
        assert (f" {total:,}" if total >= 1000 else f" {total}") in [word.rstrip() for word in words]


def test_bars_too_small_to_see_beside_others_become_shares(trace, tmp_path):
    words = svg_words(plot_causes([simulate(EIE, trace), simulate(SYSTOLIC, trace)], tmp_path / "both.svg"))
    assert "cycles a unit, by cause; % of the total beside each bar" in words
    assert "eie-45nm-calibrated and systolic-45nm-event (do not compare)" in words


def test_loads_of_naive_and_balanced_stand_below_one_another(trace, tmp_path):
    balanced = random_layer(128, 120, 0.1, 0.4, name="even")
    results = [simulate(EIE, trace), simulate(EIE, balanced)]
    words = svg_words(plot_load(results, tmp_path / "load.svg"))
    titles = [word for word in words if "mean" in word]
    assert len(titles) == 2 and titles[0].startswith("naive") and titles[1].startswith("even on eie-64pe: mean ")
    assert svg_words(plot_load(results[1], tmp_path / "one.svg")).count("working cycles") == 1
    assert plot_load(simulate(SYSTOLIC, trace), tmp_path / "array.png").exists()


@pytest.mark.parametrize(
    ("draw", "message"),
    [
        (lambda o, p: plot_sweep(o, "pe_count", p / "x.gif"),
         "x.gif: a plot's name must end in .png, .svg, .pdf, not '.gif'; rename it"),
        (lambda o, p: plot_sweep(o, "clock_hz", p / "x.png"),
         "x.png: a plot over 'clock_hz' needs a finished case with that setting; settings: pe_count, queue_depth"),
        (lambda o, p: plot_sweep(o[5:], "pe_count", p / "x.png"),
         "x.png: a plot over 'pe_count' needs a finished case with that setting; settings: pe_count, queue_depth"),
        (lambda o, p: plot_causes([], p / "x.png"), "x.png: a plot needs at least one result, not 0"),
        (lambda o, p: plot_sweep(o, "pe_count", p / "no" / "x.png"),
         "no/x.png: the output must be writable, and No such file or directory; choose a folder and a name that are"),
    ],
)  # fmt: skip
def test_a_plot_that_cannot_be_is_refused_in_one_line_and_leaves_nothing(draw, message, outcomes, tmp_path):
    with pytest.raises(InputError) as error:
        draw(outcomes, tmp_path)
    assert str(error.value) == f"{tmp_path}/{message}"
    assert not list(tmp_path.iterdir())
