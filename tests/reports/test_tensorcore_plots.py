import pytest

from gossamer.models import load_machine, vary
from gossamer.reports.tensorcore_figures import speedup
from gossamer.reports.tensorcore_plots import (
    draw_all,
    plot_speedup_by_k,
    plot_speedup_by_pattern,
    plot_throughput,
)
from gossamer.workloads.errors import InputError

A100 = load_machine("a100-sparse")


def svg_words(path):
    """Return what an SVG says; matplotlib writes each text as a comment before its glyphs."""
    return [line[5:-4] for line in (line.strip() for line in path.read_text().splitlines()) if line.startswith("<!-- ")]


def test_all_plots_are_written_and_named(tmp_path):
    paths = draw_all(tmp_path)
    assert [path.name for path in paths] == ["throughput.png", "speedup-by-k.png", "speedup-by-pattern.png"]
    assert sorted(file.name for file in tmp_path.iterdir()) == sorted(path.name for path in paths)
    assert all(path.read_bytes().startswith(b"\x89PNG\r\n") for path in paths)


def test_throughput_has_a_panel_a_kind_of_instruction_a_line_an_ilp_and_the_peak(tmp_path):
    words = svg_words(plot_throughput(A100, tmp_path / "t.svg"))
    kinds = ("mma m16n8k16", "mma.sp m16n8k32", "mma.sp m16n8k16")
    assert {f"{kind}, fp16 to fp32" for kind in kinds} <= set(words)
    assert {"peak", *(f"ILP {ilp}" for ilp in (1, 2, 3, 4, 6))} <= set(words)


def test_speedup_by_k_has_a_line_a_size_and_the_ideal(tmp_path):
    words = svg_words(plot_speedup_by_k(A100, tmp_path / "k.svg"))
    assert {"ideal", "1,024 x 1,024", "10,240 x 10,240", "on a100-sparse", "16,384"} <= set(words)


def test_speedup_by_pattern_has_a_line_a_kind_of_hardware_and_the_ideal(tmp_path):
    words = svg_words(plot_speedup_by_pattern(tmp_path / "p.svg"))
    kinds = {
        "ideal", "M:1 muxes alone (2:4, 1:M)", "B fetched 4 times as wide (2:4, 1:M)",
        "V:2:M, 64 rows, on 2:4 cores", "Sparseloop's study (2:M)",
    }  # fmt: skip
    assert kinds <= set(words)


def test_what_is_plotted_grows_with_k_and_stays_below_the_ideal():
    gains = [speedup(A100, 4096, depth) for depth in (64, 256, 1024, 4096, 16384)]
    assert gains == sorted(gains) and gains[0] > 1 and gains[-1] < 1.82  # the cap that shared memory sets


@pytest.mark.parametrize(
    ("draw", "message"),
    [
        (lambda p: plot_throughput(A100, p / "x.gif"),
         "{}/x.gif: a plot's name must end in .png, .svg, .pdf, not '.gif'; rename it"),
        (lambda p: plot_throughput(vary(A100, fp16_fma_per_clk=0, dtype="int8", accumulate="int32"), p / "x.png"),
         "{}/x.png: a plot of throughput needs cores that multiply fp16, and a100-sparse has none"),
    ],
)  # fmt: skip
def test_a_plot_that_cannot_be_is_refused_in_one_line_and_leaves_nothing(draw, message, tmp_path):
    with pytest.raises(InputError) as error:
        draw(tmp_path)
    assert str(error.value) == message.format(tmp_path)
    assert list(tmp_path.iterdir()) == []
