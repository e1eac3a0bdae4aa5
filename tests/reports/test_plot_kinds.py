"""Every kind of plot: what it says, that it is the same each time, and what is refused."""

import itertools
import warnings

import msgspec
import numpy as np
import pytest

from gossamer.__main__ import main
from gossamer.models import load_machine, vary
from gossamer.reports import plots_style as style
from gossamer.reports.plots import KINDS, draw, draw_all
from gossamer.reports.plots_data import curves_of, fronts_of, levels_of, over_time
from gossamer.reports.plots_rows import MOST_ROWS
from gossamer.reports.reading import result_names
from gossamer.simulator import simulate
from gossamer.simulator.store import Store
from gossamer.simulator.sweep import Case, sweep
from gossamer.simulator.timeline import Timeline
from gossamer.workloads.errors import InputError
from gossamer.workloads.synth import random_layer
from gossamer.workloads.trace import Trace

EIE, SYSTOLIC, A100 = (load_machine(name) for name in ("eie-64pe", "systolic-16x16", "a100-sparse"))
POINTS = [{"pe_count": n, "queue_depth": q} for n in (4, 16, 64) for q in (2, 8)]


def svg_words(path):
    """Return what an SVG says; matplotlib writes each text as a comment before its glyphs."""
    return [line[5:-4] for line in (line.strip() for line in path.read_text().splitlines()) if line.startswith("<!-- ")]


def named(trace, name, **provenance):
    return Trace(name=name, layers=trace.layers, provenance=provenance)


@pytest.fixture(scope="module")
def trace():
    parts = [random_layer(90, 80, 0.1, 0.4, name="fc1"), random_layer(10, 90, 0.3, 0.5, name="fc2")]
    return Trace(name="pruned", layers=[p.layers[0] for p in parts], provenance={"accuracy": 0.9, "network": "net"})


@pytest.fixture(scope="module")
def results(trace):
    """What fills every kind: several machines, settings, accuracies, and a timeline of one."""
    other = named(random_layer(90, 80, 0.5, 0.4, name="fc1"), "other", accuracy=0.95, network="net")
    stepped = simulate(EIE, trace, engine="event", timeline=Timeline())
    varied = [simulate(vary(EIE, **point), trace) for point in POINTS[:-1]]
    return [stepped, *varied, simulate(EIE, other), simulate(A100, trace), simulate(SYSTOLIC, trace)]


@pytest.fixture(scope="module")
def store(trace, tmp_path_factory):
    path = tmp_path_factory.mktemp("store") / "sweep.sqlite"
    with Store(path) as kept:
        sweep([Case(trace, vary(EIE, **point), point) for point in POINTS], store=kept)
        kept.save("failed", "pruned", "eie-64pe", '{"pe_count":7}', None, "ValueError: broken")
    return path


@pytest.fixture(scope="module")
def drawn(results, tmp_path_factory):
    """All plots of ``results`` as SVG, by kind."""
    folder = tmp_path_factory.mktemp("drawn")
    return {path.stem: path for path in draw_all(results, folder, ".svg")}


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_is_drawn_twice_the_same(kind, drawn, results, tmp_path):
    assert draw(kind, results, tmp_path / "plot.svg").read_bytes() == drawn[kind].read_bytes()
    assert [file.name for file in tmp_path.iterdir()] == ["plot.svg"]


@pytest.mark.parametrize("kind", ["queues", "load"])
def test_a_page_of_pictures_in_pdf_is_the_same_each_time(kind, results, tmp_path):
    one, two = (draw(kind, results[:2], tmp_path / f"{name}.pdf").read_bytes() for name in "ab")
    assert one == two and one.startswith(b"%PDF")


@pytest.mark.parametrize(
    ("kind", "words"),
    [
        ("summary", {"speed-up", "latency a sample, us", "energy a sample, uJ", "load balance, %", "accuracy, %"}),
        ("causes", {"busy", "starved", "compute", "fill drain"}),
        ("energy", {"SpmatRead", "PtrRead", "TensorCore"}),
        ("load", {"PE or SM", "working, % of"}),
        ("queues", {"waiting in a queue", "% of the time", "cycle", "waiting: mean, and", "from least to most"}),
        ("roofline", {"a100-sparse", "MACs a byte to and from HBM", "useful GMACs/s", "pruned"}),
        ("sweep", {"pe_count", "queue_depth", "pruned, queue_depth=2", "pruned, pe_count=4"}),
        (
            "pareto",
            {"Pareto front", "beaten in both", "energy a sample, uJ", "net, eie-45nm-calibrated", "accuracy, %"},
        ),
        ("compare", {"pruned", "other", "a100-sparse", "latency a sample, us", "load balance, %"}),
    ],
)
def test_a_plot_says_what_it_shows(kind, words, drawn):
    assert words <= set(svg_words(drawn[kind]))


def test_of_one_result_each_layer_has_a_row(results, tmp_path):
    for kind in ("causes", "energy", "load", "queues"):
        assert {"fc1", "fc2"} <= set(svg_words(draw(kind, results[:1], tmp_path / f"{kind}.svg"))), kind
    assert "fc1" not in svg_words(draw("summary", results[:1], tmp_path / "summary.svg"))


def test_all_draws_what_the_results_can_fill_and_nothing_else(drawn, results, tmp_path):
    assert list(drawn) == list(KINDS)
    only = draw_all(results[-1:], tmp_path, ".svg")
    assert [path.name for path in only] == ["summary.svg", "causes.svg", "energy.svg"]


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        ("load", "a plot of load needs a machine with several units, and none of these has them"),
        ("queues", "a plot of queues needs a machine with queues, as EIE, and none of these has them"),
        ("roofline", "a roofline needs a machine with bounds, as a tensor core, and none of these has them"),
        ("sweep", "a plot of a sweep needs runs of one trace that differ in a setting, and has none"),
        ("pareto", "a plot of a front needs two results of one network with energies of one table, or with "
                   "accuracies, and has none"),
    ],
)  # fmt: skip
def test_results_that_cannot_fill_a_plot_are_refused_in_one_line(kind, message, results, tmp_path):
    for some, text in ((results[-1:], message), ([], "a plot needs at least one result, not 0")):
        with pytest.raises(InputError) as error:
            draw(kind, some, tmp_path / "x.png")
        assert str(error.value) == f"{tmp_path}/x.png: {text}"
    assert not list(tmp_path.iterdir())


def test_energy_without_a_table_is_refused(results, tmp_path):
    bare = msgspec.structs.replace(results[0], total=msgspec.structs.replace(results[0].total, energy_j=None))
    with pytest.raises(InputError) as error:
        draw("energy", [bare], tmp_path / "x.png")
    assert str(error.value) == (
        f"{tmp_path}/x.png: a plot of energy needs a result with an energy table, and none of these has one"
    )


def test_long_and_odd_names_and_many_rows_are_drawn_without_a_warning(results, tmp_path):
    odd = "a $x$ \x07 \u4e2d\u6587 --> " + "very-long-name." * 20
    base = msgspec.structs.replace(results[0], trace=msgspec.structs.replace(results[0].trace, name=odd))
    many = [
        msgspec.structs.replace(
            base, machine=msgspec.structs.replace(base.machine, config=base.machine.config | {"clock_hz": 1e9 + place})
        )
        for place in range(MOST_ROWS + 5)
    ]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        paths = [draw(kind, many, tmp_path / f"{kind}.svg") for kind in ("summary", "load")]
        paths += [draw(kind, [base], tmp_path / f"one-{kind}.svg") for kind in ("causes", "queues", "load")]
    assert any(f"the first {MOST_ROWS} of {MOST_ROWS + 5} results" in word for word in svg_words(paths[0]))
    assert not any(odd in word for path in paths for word in svg_words(path))


def test_levels_of_queues_are_shares_of_their_time(results):
    (levels,) = levels_of(results, result_names(results))
    assert len(levels.names) == len(results) - 2 and levels.heads == [str(level) for level in range(8)]
    assert [len(row) for row in levels.rows] == [8, 2, 8, 2, 8, 2, 8]
    assert all(abs(row.sum() - 100) < 1e-9 for row in levels.rows)
    queue = results[0].total.queues["activation"].cycles_at_level
    assert np.allclose(levels.rows[0][: len(queue)], 100 * np.array(queue) / sum(queue))


def test_levels_of_deep_queues_stand_together(results):
    deep = msgspec.structs.replace(
        results[0].total.queues["activation"], capacity=4095, cycles_at_level=[10, 20, 30, 40, *[0] * 96, 900]
    )
    total = msgspec.structs.replace(results[0].total, queues={"activation": deep})
    (levels,) = levels_of([msgspec.structs.replace(results[0], total=total)] * 2, ["a", "b"])
    assert levels.heads == ["0", "1", "2+", "4+", "8+", "16+", "32+", "64+", "128+", "256+", "512+", "1k+", "2k+"]
    assert levels.rows[0].tolist() == [1, 2, 7, 0, 0, 0, 0, 90, 0, 0, 0, 0, 0]


def test_queues_over_time_follow_one_another_layer_by_layer(results):
    (layers,) = over_time(results[0]).values()
    assert [(name, start) for name, start, _ in layers] == [("fc1", 0), ("fc2", results[0].layers[0].cycles)]
    assert over_time(results[1]) == {}


def test_a_plot_of_many_lines_shows_some_and_says_of_how_many(trace, tmp_path):
    grid = itertools.product((1, 2, 4, 8, 16), (2, 4, 8, 16))
    found = [simulate(vary(EIE, pe_count=n, entries_per_row=q), trace) for n, q in grid]
    assert [(curves.field, len(curves.lines), curves.found) for curves in curves_of(found)] == [
        ("pe_count", 4, 4), ("entries_per_row", 5, 5),
    ]  # fmt: skip
    more = [simulate(vary(EIE, pe_count=n, queue_depth=q), trace) for n in range(1, 13) for q in (2, 4)]
    curves = {one.field: one for one in curves_of(more)}["queue_depth"]
    assert (len(curves.lines), curves.found) == (8, 12)
    assert [*curves.lines][::7] == ["pruned, pe_count=1", "pruned, pe_count=12"]
    assert "8 of 12 lines" in svg_words(draw("sweep", more, tmp_path / "x.svg", over="queue_depth"))


def test_a_measure_that_no_line_has_leaves_its_place_empty(trace, results, tmp_path):
    dense = [simulate(vary(A100, sm_count=count), trace) for count in (54, 108)]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        words = svg_words(draw("sweep", [*dense, *results[1:3]], tmp_path / "x.svg"))
    assert words.count("load balance, %") == 1 and words.count("speed-up") == 2
    assert {"sm_count", "queue_depth"} <= set(words)


def test_the_front_of_each_table_names_its_results_once(results):
    fronts = fronts_of(results, result_names(results))
    assert [(one.of, one.table, one.sign) for one in fronts] == [("net", "eie-45nm-calibrated", 1), ("net", "", -1)]
    assert all(one.front and len(one.points) == len(one.names) for one in fronts)


# Style


def luminance(colour):
    parts = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


@pytest.mark.parametrize("colour", [*style.LINES, style.EDGE, style.REFERENCE])
def test_lines_and_edges_stand_out_from_white_paper(colour):
    assert 1.05 / (luminance(colour) + 0.05) >= 3


# Full protanopia, deuteranopia and tritanopia in linear RGB: Machado, Oliveira, Fernandes, IEEE TVCG 15(6), 2009.
BLINDNESS = {
    "protanopia": [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]],
    "deuteranopia": [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.011820, 0.042940, 0.968881]],
    "tritanopia": [[1.255528, -0.076749, -0.178779], [-0.078411, 0.930809, 0.147602], [0.004733, 0.691367, 0.303900]],
}


def lab(colour, seen):
    parts = np.array([int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)])
    linear = np.where(parts <= 0.04045, parts / 12.92, ((parts + 0.055) / 1.055) ** 2.4)
    linear = np.clip(np.array(seen) @ linear, 0, 1)
    xyz = np.array([[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]]) @ linear
    f = np.where((t := xyz / [0.9505, 1, 1.089]) > 0.008856, np.cbrt(t), 7.787 * t + 16 / 116)
    return np.array([116 * f[1] - 16, 500 * (f[0] - f[1]), 200 * (f[1] - f[2])])


@pytest.mark.parametrize("seen", [np.eye(3).tolist(), *BLINDNESS.values()], ids=["all", *BLINDNESS])
@pytest.mark.parametrize("colours", [style.FILLS, style.LINES], ids=["fills", "lines"])
def test_neighbouring_colours_differ_for_every_reader(colours, seen):
    found = [lab(colour, seen) for colour in colours]
    nearest = min(float(np.linalg.norm(a - b)) for a, b in itertools.pairwise(found))
    assert nearest > 12  # 2.3 is a just noticeable difference


def test_56_lines_and_32_areas_differ():
    lines = {tuple(sorted(style.line_of(i).items())) for i in range(56)}
    areas = {(style.fill_of(i)["color"], style.fill_of(i)["hatch"]) for i in range(32)}
    assert (len(lines), len(areas)) == (56, 32)


def test_names_are_one_line_and_numbers_short():
    assert style.clean("a\nb") == "a\ufffdb" and style.clean("x" * 60, 9) == "xxx\u2026xxxxx"
    assert [style.number(v) for v in (0, 0.5, 1234.5, 12, 2e7, 1e-5)] == ["0", "0.5", "1,234", "12", "2e7", "1e-5"]


# The command


def test_the_command_draws_json_and_stores(results, store, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "many.json").write_bytes(msgspec.json.encode(results[:3]))
    assert main(["plot", "many.json", "--kind", "compare", "--out", "compare.pdf"]) == 0
    assert main(["plot", str(store), "--kind", "sweep", "--over", "pe_count", "--out", "sweep.svg"]) == 0
    said = capsys.readouterr()
    assert said.out == "compare.pdf\nsweep.svg\n"
    assert "1 cases of the store failed and are not shown; the first: pruned on eie-64pe, pe_count=7: ValueError" in (
        said.err.replace("\n", " ")
    )
    (tmp_path / "one.json").write_text(results[-1].to_json())
    assert main(["plot", "one.json", "--all", "drawn", "--suffix", ".svg"]) == 0
    assert capsys.readouterr().out.splitlines() == [f"drawn/{kind}.svg" for kind in ("summary", "causes", "energy")]


def test_where_chooses_cases_of_a_store(store, tmp_path, capsys):
    out = tmp_path / "x.svg"
    assert main(["plot", str(store), "--where", "pe_count>=16", "--kind", "summary", "--out", str(out)]) == 0
    assert len([word for word in svg_words(out) if word.startswith("pruned, ")]) == 4
    capsys.readouterr()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--kind", "causes"],
         "a plot needs --kind KIND with --out FILE, or --all DIR for every kind; give one of the two"),
        (["--all", "x", "--kind", "causes", "--out", "x.png"],
         "a plot needs --kind KIND with --out FILE, or --all DIR for every kind; give one of the two"),
        (["--kind", "cause", "--out", "x.png"],
         "--kind must be one of summary, causes, energy, load, queues, roofline, sweep, pareto, compare, not 'cause'"),
        (["--all", "x", "--suffix", ".gif"], "--suffix must be one of .png, .svg, .pdf, not '.gif'"),
        (["--all", "x", "--over", "pe_count"], "--over is for --kind sweep, not for --all: 'pe_count'; leave it out"),
        (["--kind", "load", "--out", "x.png", "--over", "pe_count"],
         "--over is for plots of kind sweep, not 'load'; leave it out"),
        (["--kind", "sweep", "--out", "x.png", "--over", "clock"],
         "x.png: --over must be a setting in which results differ, not 'clock': pe_count, queue_depth"),
        (["--kind", "sweep", "--out", "x.png", "--where", "pe_count>1000"],
         "{store}: a store must hold a finished case to be shown, and holds none that keeps --where pe_count>1000; "
         "choose others"),
        (["--kind", "sweep", "--out", "x.png", "--where", "pe_count=7"],
         "{store}: a store must hold a finished case to be shown, and holds 1 that failed; choose others"),
    ],
)  # fmt: skip
def test_what_cannot_be_drawn_is_told_in_one_line(arguments, message, store, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert main(["plot", str(store), *arguments]) == 2
    assert capsys.readouterr().err.splitlines()[-1] == f"gossamer: error: {message.format(store=store)}"
    assert not [path for path in tmp_path.iterdir() if path.is_file()]


def test_where_is_refused_for_a_file_that_is_no_store(results, tmp_path, capsys):
    path = tmp_path / "one.json"
    path.write_text(results[0].to_json())
    out = ["--kind", "causes", "--out", str(tmp_path / "x.png")]
    assert main(["plot", str(path), *out, "--where", "pe_count>1"]) == 2
    assert capsys.readouterr().err == (
        f"gossamer: error: {path}: --where chooses cases of a sweep's store, and this is none; leave it out\n"
    )
