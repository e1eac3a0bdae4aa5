"""The HTML report as a file: every figure is on the page, nothing is loaded, names stay text."""

import json
import re

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gossamer.__main__ import main
from gossamer.models import vary
from gossamer.reports.cells import figures, percent, times
from gossamer.reports.comparison import baselines, summary_rows
from gossamer.reports.html import MOST_LISTED, report_html
from gossamer.reports.plots_data import pareto_front
from gossamer.reports.reading import read_inputs, read_results, result_names
from gossamer.reports.svg import palette, tick
from gossamer.simulator import simulate
from gossamer.simulator.store import Store
from gossamer.simulator.sweep import Case, sweep
from gossamer.simulator.timeline import Timeline
from gossamer.workloads.errors import InputError
from gossamer.workloads.synth import random_layer
from gossamer.workloads.trace import Trace

from .html_page import EIE, Page, hundred, named, small_result

REFERENCES = ("src", "href", "srcset", "action", "data", "poster", "xlink:href")


@pytest.fixture(scope="module")
def page(results):
    return Page(report_html(results))


def test_every_number_of_the_summary_is_on_the_page(results, page):
    summary = page.tables[0]
    assert [row[0] for row in summary[1:]] == result_names(results)
    for cells, row in zip(summary[1:], summary_rows(results), strict=True):
        assert f"{row['cycles']:,}" in cells
        assert figures(row["latency_per_sample_us"]) in cells and times(row["speedup"]) in cells
        assert row["energy_table"] in cells and figures(row["energy_per_sample_uj"]) in cells
        assert (percent(row["accuracy"]) if row["accuracy"] is not None else "\u2013") in cells
    assert summary[2][summary[0].index("speed-up")] == "1.00"


def test_every_layer_has_a_row_and_the_total_stands_below(results, page):
    tables = [table for table in page.tables if table[0][0] == "layer"]
    assert len(tables) == len(results)
    for table, result in zip(tables, results, strict=True):
        column = table[0].index("cycles")
        assert [(row[0], row[column]) for row in table[1:-1]] == [(x.name, f"{x.cycles:,}") for x in result.layers]
        assert (table[-1][0], table[-1][column]) == ("total", f"{result.total.cycles:,}")


def test_a_page_has_each_section_that_its_results_can_fill(results, page):
    sections = [attributes["id"] for tag, attributes in page.tags if tag == "section"]
    assert sections == [
        "summary", "causes", "queues", "sweep", "pareto", "roofline", "layers", "warnings", "energy", "provenance",
    ]  # fmt: skip
    alone = Page(report_html([results[3]]))
    assert [attributes["id"] for tag, attributes in alone.tags if tag == "section"] == [
        "summary", "causes", "layers", "warnings", "energy", "provenance",
    ]  # fmt: skip
    assert "None." in alone.words


def test_provenance_tells_configuration_seed_recipe_engine_and_energy_sources(results, page):
    told = [table for table in page.tables if ["recipe.rate", "0.2"] in table]
    assert len(told) == 3 and all(["seed", "7"] in table for table in told)
    pairs = [tuple(row) for table in page.tables for row in table if len(row) == 2]
    for result in results:
        assert {("sha256", result.trace.sha256), ("engine", "fast"), ("gossamer", result.version)} <= set(pairs)
        assert {(key, value if isinstance(value, str) else json.dumps(value))
                for key, value in result.machine.config.items()} <= set(pairs)  # fmt: skip
    sources = {row[2] for table in page.tables if table[0] == ["part", "of", "source", "value"] for row in table}
    assert any("Han et al." in source for source in sources)


def test_warnings_are_told_with_the_results_that_have_them(results):
    warned = simulate(vary(EIE, ptr_bytes=16), Trace(name="big", layers=random_layer(64, 100, 0.1, 0.4).layers))
    assert warned.warnings
    words = "".join(Page(report_html([warned, results[0]])).words)
    assert f"{warned.warnings[0]} (big on eie-64pe" in words


def test_speed_ups_are_over_the_dense_trace_of_the_same_network(results):
    base = baselines(results)
    assert base == {"net": results[1], "other": results[4]}
    assert [row["speedup"] for row in summary_rows(results)[1::3]] == [1.0, 1.0]
    assert baselines([results[0], results[2]]) == {"net": results[0]}


def test_a_page_loads_nothing(results):
    source = report_html(results)
    page = Page(source)
    for tag, attributes in page.tags:
        for name in REFERENCES:
            assert re.match(r"(#|data:)", attributes.get(name) or "#"), (tag, attributes)
        assert not [name for name in attributes if name.startswith("on")], "handlers belong into the script"
        assert tag not in ("iframe", "object", "embed", "base", "img")
    assert not re.search(r"@import|url\((?!#)|https?://", source.partition("<body>")[0])
    assert "default-src 'none'" in source and len(page.scripts) == 1
    assert not re.search(r"fetch|XMLHttpRequest|import|https?:", page.scripts[0])


@given(
    st.text(st.characters(codec="utf-8"), min_size=1, max_size=30),
    st.sampled_from(
        ["<script>alert(1)</script>", '"><img src=x onerror=1>', "</style>", "&lt;", "${title}", "]]>", ""]
    ),
)
@settings(max_examples=40)
def test_names_reach_the_page_as_text_and_as_nothing_else(word, markup):
    hostile, tame = word + markup, small_result()
    result = msgspec.structs.replace(
        tame,
        trace=msgspec.structs.replace(tame.trace, name=hostile, provenance={hostile: {hostile: hostile}}),
        machine=msgspec.structs.replace(tame.machine, name=hostile, config={hostile: hostile}),
        layers=[
            msgspec.structs.replace(layer, name=hostile, op=hostile, cycles_by_cause={hostile: {hostile: 1}})
            for layer in tame.layers
        ],
        warnings=[hostile],
    )
    page, plain = Page(report_html([result], title=hostile)), Page(report_html([tame]))
    assert {tag for tag, _ in page.tags} <= {tag for tag, _ in plain.tags}
    assert {name for _, found in page.tags for name in found} <= {name for _, found in plain.tags for name in found}
    assert page.scripts == plain.scripts
    shown = re.sub("[\x00-\x08\x0b-\x1f\x7f-\x9f\ufffe\uffff]", "\ufffd", hostile)
    assert shown in page.words
    assert any(row == [shown, shown] for table in page.tables for row in table)
    notebook = Page(result._repr_html_())
    assert {tag for tag, _ in notebook.tags} == {"table", "caption", "thead", "tbody", "tfoot", "tr", "th", "td"}


def test_a_hundred_results_stay_below_5_megabytes():
    source = report_html(hundred())
    assert len(source.encode()) < 5_000_000
    assert Page(source).tables[0][-1][0] == "pruned on eie-64pe, queue_depth=101"


def test_queues_are_shown_by_level_and_over_time_where_known(results, layers):
    stepped = simulate(vary(EIE, pe_count=4), layers, engine="event", timeline=Timeline())
    words = "".join(Page(report_html([stepped])).words)
    assert "activation queues: share of the time at each level" in words
    assert "activation queues of pruned on eie-64pe: waiting in one of them" in words
    assert "waiting in one of them" not in "".join(Page(report_html(results)).words)


def test_a_store_makes_a_page_with_its_curves_and_its_failed_cases(layers, tmp_path, capsys):
    points = [{"pe_count": n, "queue_depth": q} for n in (4, 16) for q in (2, 8)]
    path, out = tmp_path / "sweep.sqlite", tmp_path / "out.html"
    with Store(path) as store:
        sweep([Case(layers, vary(EIE, **point), point) for point in points], store=store)
        store.save("x", "pruned", "eie-64pe", '{"pe_count":7}', None, "ValueError: <broken>")
    assert main(["report", str(path), "--out", str(out)]) == 0
    assert capsys.readouterr().out == f"{out}: 4 results\n"
    page = Page(out.read_text("utf-8"))
    sections = {attributes["id"] for tag, attributes in page.tags if tag == "section"}
    assert {"sweep", "pareto", "queues"} <= sections
    assert "failed: pruned on eie-64pe, pe_count=7: ValueError: <broken>" in page.words
    assert read_results(path) == read_inputs([path]).results
    assert main(["report", str(path), "--where", "pe_count=4", "--out", str(out)]) == 0
    assert capsys.readouterr().out == f"{out}: 2 results\n"


def test_of_many_results_those_that_none_beats_are_shown_one_by_one():
    base = small_result()
    many = [
        msgspec.structs.replace(
            base,
            machine=msgspec.structs.replace(base.machine, config=base.machine.config | {"queue_depth": place + 2}),
            total=msgspec.structs.replace(base.total, latency_s=base.total.latency_s * (1 + abs(place - 7))),
        )
        for place in range(MOST_LISTED + 1)
    ]
    source = report_html(many, failed=["a: b"] * 30)
    page = Page(source)
    assert len(source) < 2_000_000
    assert len(page.tables[0]) == MOST_LISTED + 1
    assert f"The first {MOST_LISTED:,} of {len(many):,} results are listed." in page.words
    assert page.words.count(f"1 of {len(many):,} results are shown here: those that no other beats.") == 3
    assert [
        name for name in page.words if name == "a on eie-64pe, queue_depth=9"
    ] and "and 10 more cases that failed" in page.words


def test_curves_are_drawn_over_the_setting_that_differs(results):
    words = Page(report_html([results[0], results[2]])).words
    assert "pe_count" in words and "latency a sample, us" in words
    assert "Over a setting" not in Page(report_html(results[:2])).words


@given(st.lists(st.tuples(st.integers(0, 9), st.integers(0, 9)), min_size=1), st.sampled_from([1, -1]))
def test_the_front_holds_exactly_the_points_that_none_beats(points, sign):
    def beats(a, b):
        return a[0] <= b[0] and sign * a[1] <= sign * b[1] and a != b

    unbeaten = [i for i, point in enumerate(points) if not any(beats(other, point) for other in points)]
    assert sorted(pareto_front(points, sign)) == unbeaten


@given(st.lists(st.sampled_from(["busy", "compute", "load", "padding", *"abcdefghij"]), unique=True))
def test_no_two_causes_of_a_drawing_look_alike(labels):
    fills = palette(labels)
    assert list(fills) == labels and len(set(fills.values())) == len(labels)


def test_numbers_at_axes_are_short():
    assert [tick(v) for v in (0, 0.5, 1500, 2e7, 1e-5)] == ["0", "0.5", "1,500", "2e7", "1e-5"]


def test_the_command_writes_a_page_of_results_and_of_lists_of_them(results, tmp_path, capsys):
    one, many, out = tmp_path / "one.json", tmp_path / "many.json", tmp_path / "out.html"
    one.write_text(results[0].to_json())
    many.write_bytes(msgspec.json.encode(results[1:3]))
    assert main(["report", str(one), str(many), "--out", str(out), "--title", "a <b>"]) == 0
    assert capsys.readouterr().out == f"{out}: 3 results\n"
    assert out.read_text("utf-8") == report_html(results[:3], "a <b>")
    assert read_results(many) == results[1:3]


def test_a_report_of_nothing_is_refused():
    with pytest.raises(InputError) as error:
        report_html([])
    assert str(error.value) == (
        "a report needs at least one result, not 0; name a file that gossamer simulate --json wrote"
    )


def test_what_is_gained_over_the_dense_network_is_over_that_on_the_very_same_machine(layers):
    dense = named(Trace(name="dense", layers=random_layer(300, 200, 1.0, 0.4, name="fc1").layers), "dense", network="n")
    pruned = named(layers, "pruned", network="n")
    results = [simulate(vary(EIE, pe_count=count), trace) for count in (16, 64) for trace in (dense, pruned)]
    gained = [row["speedup_over_dense"] for row in summary_rows(results)]
    cycles = [result.total.cycles for result in results]
    assert gained == pytest.approx([1, cycles[0] / cycles[1], 1, cycles[2] / cycles[3]])
    assert [row["speedup_over_dense"] for row in summary_rows(results[1:])] == [None, 1, pytest.approx(gained[3])]
