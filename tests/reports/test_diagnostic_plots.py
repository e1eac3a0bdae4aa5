import io

import numpy as np
import pytest
from rich.console import Console

from gossamer.reports.diagnostic_plots import (
    plot_balance,
    plot_curvature,
    plot_groups,
    plot_lines,
    plot_scan,
    plot_sparsity,
    plot_surface,
)
from gossamer.reports.diagnostic_tables import (
    balance_table,
    curvature_table,
    groups_table,
    lines_table,
    scan_table,
    sparsity_table,
)
from gossamer.workloads.errors import InputError
from gossamer.workloads.pruning.sparsity import balance_report, nm_report, sparsity_report
from gossamer.workloads.training.diagnostics import Eigenvalue, Line, Scan, Surface, TraceEstimate

HEADS = {".png": b"\x89PNG\r\n", ".svg": b"<?xml", ".pdf": b"%PDF"}
AT = np.linspace(0, 1, 30)
HILL = 4 * AT * (1 - AT)
LINES = (
    Line(AT, 0.5 + HILL, 0.75 - 0.5 * HILL, "particle 1", "particle 2"),
    Line(AT, 0.5 + 0 * HILL, 0.75 + 0 * HILL, "particle 1", "particle $3$"),
)
CORNERS = np.array([(0.0, 0), (2, 0), (1, 1.5)])
SURFACE = Surface(AT * 2, AT * 1.5, 0.1 + np.outer(HILL, HILL) * 5, np.ones((30, 30)), CORNERS, ("one", "two", "three"))
CURVED = {
    "dense": (TraceEstimate(12.25, 0.5, 32), Eigenvalue(3.5, 0.004, 17, True)),
    "[b]sparse[/b]": (TraceEstimate(-0.5, 0.25, 32), Eigenvalue(1.25, 0.2, 200, False)),
}
SCAN = Scan(
    np.array([0, 0.5, 0.9]),
    {"fc1.weight": np.array([0.9, 0.89, 0.5]), "fc2.weight": np.array([0.9, 0.9, 0.875])},
    {"fc1.weight": np.array([0.1, 0.2, 0.9]), "fc2.weight": np.array([0.1, 0.1, 0.3])},
    0.9,
    0.1,
)
CHOSEN = {"fc1.weight": 0.5, "fc2.weight": 0.9}
WEIGHTS = {
    "fc1.weight": np.array([[1, 1, 1, 0, 0, 0, 0, 0], [1, 0, 0, 0, 0, 0, 1, 0]], np.float32),
    "fc2.weight": np.array([[1, 0, 0], [0, 0, 0], [0, 1, 0]], np.float32),
}
MASKS = {name: weight != 0 for name, weight in WEIGHTS.items()}
PLOTS = {
    "lines": lambda path: plot_lines(LINES, path),
    "surface": lambda path: plot_surface(SURFACE, path),
    "curvature": lambda path: plot_curvature(CURVED, path),
    "scan": lambda path: plot_scan(SCAN, path, chosen=CHOSEN),
    "sparsity": lambda path: plot_sparsity(sparsity_report(WEIGHTS, MASKS), path),
    "groups": lambda path: plot_groups(nm_report(WEIGHTS, 2, 4), path),
    "balance": lambda path: plot_balance(balance_report(WEIGHTS, 2), path),
}


def svg_words(path):
    """Return what an SVG says; matplotlib writes each text as a comment before its glyphs."""
    return [line[5:-4] for line in (line.strip() for line in path.read_text().splitlines()) if line.startswith("<!-- ")]


def printed(table):
    page = io.StringIO()
    Console(width=120, file=page, highlight=False).print(table)
    return [" ".join(line.split()) for line in page.getvalue().splitlines() if line.strip(" ─")]


@pytest.mark.parametrize("suffix", HEADS)
def test_a_plot_is_written_in_the_format_of_its_suffix_twice_the_same(suffix, tmp_path):
    path = PLOTS["lines"](tmp_path / f"plot{suffix}")
    first = path.read_bytes()
    assert first.startswith(HEADS[suffix])
    assert PLOTS["lines"](path).read_bytes() == first
    assert [file.name for file in tmp_path.iterdir()] == [path.name]


@pytest.mark.parametrize(
    ("kind", "words"),
    [
        ("lines", {"loss, nats", "error, %", "position between the two solutions (0: first, 1: second)",
                   "particle 1 to particle $3$: instability 0.00 %"}),
        ("surface", {"one", "two", "three", "loss, nats", "distance in weight space, first to second"}),
        ("curvature", {"dense", "[b]sparse[/b]", "  12.25 \u00b1 0.5", " 1.25 not converged", "largest eigenvalue",
                       "curvature, nats per squared weight"}),
        ("scan", {"fc1.weight", "fc2.weight", "nothing pruned", "accuracy, %", "sparsity of this layer alone, %",
                  "sensitivity to pruning, by layer (rings: chosen)"}),
        ("sparsity", {" 5 of 16", " 2 of 9", " 7 of 25", "fc1.weight  2x8", "weights kept, %"}),
        ("groups", {"fc1.weight: 1 over", "fc2.weight: 0 over", "nonzeros in a group of 4", "groups, %"}),
        ("balance", {"balance over 2 PEs", "mean 2.5, most 3", "mean 1.0, most 2"}),
    ],
)  # fmt: skip
def test_a_plot_names_its_axes_units_and_layers(kind, words, tmp_path):
    assert words <= set(svg_words(PLOTS[kind](tmp_path / "plot.svg")))


def test_more_lines_than_colours_become_a_sequence(tmp_path):
    words = svg_words(plot_lines(LINES * 6, tmp_path / "lines.svg", title="successive averages"))
    assert {"line, in order", "successive averages"} <= set(words)
    assert not any("instability" in word for word in words)


def test_places_without_a_finite_loss_are_left_out(tmp_path):
    broken = Line(AT, np.where(AT > 0.5, np.inf, 1.0), np.zeros(30))
    assert plot_lines([broken], tmp_path / "line.png").exists()
    hole = Surface(SURFACE.x, SURFACE.y, np.where(SURFACE.loss > 2, np.nan, SURFACE.loss), SURFACE.accuracy, CORNERS)
    assert plot_surface(hole, tmp_path / "surface.png").exists()
    flat = Surface(SURFACE.x, SURFACE.y, np.ones((30, 30)), SURFACE.accuracy, CORNERS)
    assert plot_surface(flat, tmp_path / "flat.png").exists()


def test_layers_without_weights_and_many_groups_can_be_drawn(tmp_path):
    empty = {"w": np.zeros((4, 64), np.float32)}
    assert plot_groups(nm_report(empty, 1, 32), tmp_path / "groups.png").exists()
    assert plot_balance(balance_report(empty, 64), tmp_path / "balance.png").exists()
    assert plot_sparsity(sparsity_report(empty, {"w": empty["w"] != 0}), tmp_path / "sparsity.png").exists()


@pytest.mark.parametrize(
    ("draw", "message"),
    [
        (lambda p: plot_lines(LINES, p / "x.gif"),
         "x.gif: a plot's name must end in .png, .svg, .pdf, not '.gif'; rename it"),
        (lambda p: plot_lines([], p / "x.png"), "x.png: a plot needs at least one line, not 0"),
        (lambda p: plot_curvature({}, p / "x.png"), "x.png: a plot needs at least one solution, not 0"),
        (lambda p: plot_groups([], p / "x.png"), "x.png: a plot needs at least one layer, not 0"),
        (lambda p: plot_surface(Surface(AT, AT, np.full((30, 30), np.nan), np.ones((30, 30)), CORNERS), p / "x.png"),
         "x.png: a surface needs a finite loss to be drawn, and has none"),
        (lambda p: plot_lines(LINES, p / "no" / "x.png"),
         "no/x.png: the output must be writable, and No such file or directory; choose a folder and a name that are"),
    ],
)  # fmt: skip
def test_a_plot_that_cannot_be_is_refused_in_one_line_and_leaves_nothing(draw, message, tmp_path):
    with pytest.raises(InputError) as error:
        draw(tmp_path)
    assert str(error.value) == f"{tmp_path}/{message}"
    assert not list(tmp_path.iterdir())


def test_tables_say_what_the_plots_show():
    assert printed(lines_table(LINES, "between particles")) == [
        "between particles",
        "first second highest barrier instability",
        "from to nats nats nats nats %",
        "particle 1 particle 2 0.5000 0.5000 1.499 0.999 49.94",
        "particle 1 particle $3$ 0.5000 0.5000 0.5000 0.000 0.00",
        "1 of 2 are stable: instability below 2 %.",
    ]
    assert printed(curvature_table(CURVED))[-2:] == [
        "dense 12.25 0.5000 32 3.500 0.4 17",
        "[b]sparse[/b] -0.5000 0.2500 32 1.250 20 200, not converged",
    ]
    assert printed(scan_table(SCAN, CHOSEN))[-3:] == [
        "fc1.weight 90.0 89.0 50.0 50 %",
        "fc2.weight 90.0 90.0 87.5 90 %",
        "Nothing pruned: 90.0 %.",
    ]
    assert printed(sparsity_table(sparsity_report(WEIGHTS, MASKS)))[-3:] == [
        "fc1.weight 2x8 16 5 5 68.75",
        "fc2.weight 3x3 9 2 2 77.78",
        "total 25 7 7 72.00",
    ]
    assert printed(groups_table(nm_report(WEIGHTS, 2, 4)))[-2:] == [
        "fc1.weight 2x8 4 1 0 1.250",
        "fc2.weight 3x3 3 0 3 0.667",
    ]
    assert printed(balance_table(balance_report(WEIGHTS, 2)))[-2:] == [
        "fc1.weight 2x8 2 2.5 3 83.3",
        "fc2.weight 3x3 0 1.0 2 50.0",
    ]
