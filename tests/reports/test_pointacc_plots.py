import numpy as np
import pytest

from gossamer.models import load_machine
from gossamer.reports.pointacc_plots import (
    draw_all,
    plot_cache,
    plot_cloud,
    plot_hash,
    plot_map_sizes,
    plot_units,
)
from gossamer.simulator.simulate import simulate
from gossamer.workloads.errors import InputError
from gossamer.workloads.points import voxelise
from gossamer.workloads.points.cloud import Cloud
from gossamer.workloads.points.network import build
from gossamer.workloads.points.scenes import cad

CHAIR = cad(1, "chair", points=600)
VOXELS = voxelise(CHAIR.points, 0.05)[0]
NOTHING = np.zeros((0, 3), np.int32)


def svg_words(path):
    """Return what an SVG says; matplotlib writes each text as a comment before its glyphs."""
    return [line[5:-4] for line in (line.strip() for line in path.read_text().splitlines()) if line.startswith("<!-- ")]


def results(*machines):
    trace = build("minkunet-small", CHAIR, voxel_size=0.1)
    return [simulate(load_machine(name), trace) for name in machines]


def test_all_plots_are_written_and_named(tmp_path):
    paths = draw_all(tmp_path)
    assert [path.name for path in paths] == ["cloud.png", "map-sizes.png", "units.png", "cache.png", "hash.png"]
    assert sorted(file.name for file in tmp_path.iterdir()) == sorted(path.name for path in paths)
    assert all(path.read_bytes().startswith(b"\x89PNG\r\n") for path in paths)


def test_a_cloud_is_named_counted_and_has_a_scale_of_heights(tmp_path):
    words = svg_words(plot_cloud(CHAIR, tmp_path / "c.svg"))
    assert {"chair-1: 600 points from above", "height, z", "x", "y"} <= set(words)


def test_a_cloud_of_one_point_can_be_drawn(tmp_path):
    one = Cloud(np.ones((1, 3), np.float32), "one")
    assert plot_cloud(one, tmp_path / "c.png").read_bytes().startswith(b"\x89PNG")


def test_map_sizes_have_a_line_a_stride_with_its_voxels_and_neighbours(tmp_path):
    words = svg_words(plot_map_sizes(VOXELS, tmp_path / "m.svg", name="chair"))
    lines = [word for word in words if word.startswith("stride ")]
    assert [line.split(":")[0] for line in lines] == [f"stride {stride}" for stride in (1, 2, 4, 8, 16)]
    assert lines[0].startswith(f"stride 1: {len(VOXELS):,} voxels, ")
    assert "chair: sizes of kernel maps" in words


def test_units_have_a_bar_each_and_name_trace_machine_and_time(tmp_path):
    found = results("pointacc", "pointacc-edge")
    words = svg_words(plot_units(found, tmp_path / "u.svg"))
    for result in found:
        assert f"{result.machine.name}, {result.total.latency_s * 1e3:.3g} ms" in words
        for unit in ("mapping", "matrix", "memory"):
            causes = result.total.cycles_by_cause[unit]
            busy = 100 * (sum(causes.values()) - causes["idle"]) / result.total.cycles
            assert f"{unit} {busy:.3g} %" in words


def test_the_cache_has_a_line_a_stride_and_the_whole_cloud(tmp_path):
    words = svg_words(plot_cache(VOXELS, tmp_path / "c.svg", name="chair"))
    assert f"1: {len(VOXELS):,} voxels" in words and "stride; dotted: whole cloud" in words
    assert "chair: a cache of 2,048 rows of 64 channels" in words


def test_the_hash_table_has_a_line_a_way_of_probing_and_the_merge(tmp_path):
    words = svg_words(plot_hash(VOXELS, tmp_path / "h.svg", name="chair"))
    kinds = {"probing across banks, all slots of a key at once", "probing within a bank, slot by slot", "merge sort"}
    assert kinds <= set(words)
    slots = 2 ** int(np.log2(len(VOXELS) / 0.9))
    assert f"chair: kernel maps with a table of {slots:,} slots in 64 banks" in words


@pytest.mark.parametrize(
    ("draw", "message"),
    [
        (lambda p: plot_cloud(CHAIR, p / "x.gif"),
         "{}/x.gif: a plot's name must end in .png, .svg, .pdf, not '.gif'; rename it"),
        (lambda p: plot_cloud(Cloud(np.zeros((0, 3), np.float32), "none"), p / "x.png"),
         "{}/x.png: a plot of a cloud needs at least one point, and none has none"),
        (lambda p: plot_map_sizes(NOTHING, p / "x.png"),
         "{}/x.png: this plot needs a cloud of at least 1 voxels, not 0"),
        (lambda p: plot_cache(NOTHING, p / "x.png"), "{}/x.png: this plot needs a cloud of at least 1 voxels, not 0"),
        (lambda p: plot_hash(VOXELS[:99], p / "x.png"),
         "{}/x.png: this plot needs a cloud of at least 100 voxels, not 99"),
        (lambda p: plot_units([], p / "x.png"), "{}/x.png: a plot needs at least one result, not 0"),
        (lambda p: plot_units(results("torchsparse-2080ti"), p / "x.png"),
         "{}/x.png: a plot of units needs results of a machine with mapping, matrix, memory, "
         "and torchsparse-2080ti has no mapping"),
    ],
)  # fmt: skip
def test_a_plot_that_cannot_be_is_refused_in_one_line_and_leaves_nothing(draw, message, tmp_path):
    with pytest.raises(InputError) as error:
        draw(tmp_path)
    assert str(error.value) == message.format(tmp_path)
    assert list(tmp_path.iterdir()) == []
