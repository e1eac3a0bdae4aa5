import json
import re
import shutil
import sys
from functools import cache
from html.parser import HTMLParser

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gossamer.__main__ import main
from gossamer.models import load_machine, vary
from gossamer.reports.cells import figures, percent, times
from gossamer.reports.html import MOST_LISTED, report_html, write_report
from gossamer.reports.html_tables import baselines, summary_rows
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

EIE, SYSTOLIC, A100 = (load_machine(name) for name in ("eie-64pe", "systolic-16x16", "a100-sparse"))
VOID = {"meta", "link", "br"}
REFERENCES = ("src", "href", "srcset", "action", "data", "poster", "xlink:href")


class Page(HTMLParser):
    """What a browser would see: text by place, tables by section, attributes, and that every tag is closed."""

    def __init__(self, source):
        super().__init__(convert_charrefs=True)
        self.open, self.tags, self.tables, self.words, self.scripts = [], [], [], [], []
        self.feed(source)
        self.close()
        assert self.open == [], "tags are left open"

    def handle_starttag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))
        if tag not in VOID:
            self.open.append(tag)
        if tag == "table":
            self.tables.append([])
        elif tag == "tr":
            self.tables[-1].append([])
        elif tag in ("td", "th"):
            self.tables[-1][-1].append("")

    def handle_startendtag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if "script" in self.open:
            self.scripts.append(data)
        elif "style" not in self.open:
            self.words.append(data)
            if "td" in self.open or "th" in self.open:
                self.tables[-1][-1][-1] += data

    def count(self, tag):
        return sum(found == tag for found, _ in self.tags)


def named(trace, name, **provenance):
    return Trace(name=name, layers=trace.layers, provenance=provenance)


@pytest.fixture(scope="module")
def layers():
    parts = [random_layer(300, 200, 0.1, 0.4, name="fc1"), random_layer(10, 300, 0.3, 0.5, name="fc2")]
    return Trace(name="pruned", layers=[part.layers[0] for part in parts])


@pytest.fixture(scope="module")
def results(layers):
    dense = Trace(name="dense", layers=random_layer(300, 200, 1.0, 0.4, name="fc1").layers)
    pruned = named(layers, "pruned", accuracy=0.9625, network="net", seed=7, recipe={"rate": 0.2})
    return [
        simulate(EIE, pruned),
        simulate(EIE, named(dense, "dense", accuracy=0.9775, network="net")),
        simulate(vary(EIE, pe_count=16), pruned),
        simulate(SYSTOLIC, pruned),
        simulate(A100, named(layers, "pruned", network="other")),
    ]


@pytest.fixture(scope="module")
def page(results):
    return Page(report_html(results))


@cache
def small_result():
    """A result with all that a page can show of one: provenance, a warning, and units of a kind."""
    trace = Trace(name="a", layers=random_layer(8, 10, 0.5, 0.5).layers, provenance={"recipe": {"a": 1}})
    return msgspec.structs.replace(simulate(vary(EIE, pe_count=2), trace), warnings=["told"])


@cache
def hundred():
    """A hundred results, each with ten layers of 256 PEs and a config of its own."""
    base = simulate(vary(EIE, pe_count=256), Trace(name="pruned", layers=random_layer(300, 200, 0.1, 0.4).layers))
    layers = [msgspec.structs.replace(base.layers[0], name=f"stage{place}.conv") for place in range(10)]
    config = base.machine.config
    return [
        msgspec.structs.replace(
            base, layers=layers, machine=msgspec.structs.replace(base.machine, config=config | {"queue_depth": depth})
        )
        for depth in range(2, 102)
    ]


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


def test_a_report_of_nothing_is_refused():
    with pytest.raises(InputError) as error:
        report_html([])
    assert str(error.value) == (
        "a report needs at least one result, not 0; name a file that gossamer simulate --json wrote"
    )


def test_a_result_becomes_a_frame_with_the_columns_of_the_csv(results):
    pytest.importorskip("pandas", reason="the extra notebook (pandas) is not installed")
    frame = results[0].to_frame()
    assert list(frame["layer"]) == ["fc1", "fc2"]
    assert list(frame["cycles"]) == [layer.cycles for layer in results[0].layers]


def test_without_pandas_it_is_said_how_to_get_it(results, monkeypatch):
    monkeypatch.setitem(sys.modules, "pandas", None)
    with pytest.raises(InputError) as error:
        results[0].to_frame()
    assert str(error.value) == "this needs pandas, which is not installed; pip install gossamer[notebook]"


def test_a_notebook_shows_a_row_a_layer_and_the_total(results):
    (table,) = Page(results[0]._repr_html_()).tables
    assert [row[0] for row in table] == ["layer", "fc1", "fc2", "total"]
    assert table[-1][2] == f"{results[0].total.cycles:,}"


# In a browser, where there is one.


@pytest.fixture(scope="module")
def browser():
    sync_api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    path = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if path is None:
        pytest.skip("no Chromium on this machine")
    with sync_api.sync_playwright() as playwright:
        found = playwright.chromium.launch(executable_path=path, args=["--no-sandbox"])
        yield found
        found.close()


@pytest.fixture
def visit(browser, tmp_path):
    """Open the report of some results; return the page, and what it said or asked the network for."""

    def go(results, width=1200, scheme="light"):
        path = write_report(results, tmp_path / "report.html")
        page = browser.new_page(viewport={"width": width, "height": 800}, color_scheme=scheme)
        said = []
        page.on("console", lambda message: said.append(message.text))
        page.on("pageerror", lambda error: said.append(str(error)))
        page.on("request", lambda request: said.append(request.url) if request.url != path.as_uri() else None)
        page.goto(path.as_uri())
        return page, said

    return go


@pytest.mark.parametrize(("width", "scheme"), [(1200, "light"), (1200, "dark"), (360, "light")])
def test_a_browser_shows_the_page_without_a_word_and_without_scrolling_aside(width, scheme, visit, results):
    page, said = visit(results, width, scheme)
    assert said == []
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    dark = page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(20, 24, 29)"
    assert dark == (scheme == "dark")
    drawn = page.evaluate(
        "Array.from(document.querySelectorAll('#causes svg rect'), r => r.getBoundingClientRect().width)"
    )
    assert len(drawn) > 10 and min(drawn) > 0
    assert len(page.screenshot()) > 5000


def test_a_table_sorts_up_and_down_by_the_heading_that_is_pressed(visit, results):
    page, _ = visit(results)
    head = page.locator("#summary th", has_text="cycles, all samples")
    column = head.evaluate("head => head.cellIndex")
    cycles = sorted(result.total.cycles for result in results)
    for order, expected in (("ascending", cycles), ("descending", cycles[::-1])):
        head.locator("button").click()
        shown = page.locator(f"#summary tbody td:nth-child({column + 1})").all_inner_texts()
        assert [int(cell.replace(",", "")) for cell in shown] == expected
        assert head.get_attribute("aria-sort") == order


def test_a_value_that_is_missing_sorts_last_both_ways(visit, results):
    page, _ = visit(results)
    head = page.locator("#summary th", has_text="accuracy")
    column = head.evaluate("head => head.cellIndex")
    for _ in range(2):
        head.locator("button").click()
        assert page.locator(f"#summary tbody td:nth-child({column + 1})").all_inner_texts()[-1] == "\u2013"


def test_on_paper_all_is_unfolded_and_folded_again_after(visit, results):
    page, _ = visit(results)
    folded = page.locator("details:not([open])").count()
    assert folded > 0
    page.evaluate("dispatchEvent(new Event('beforeprint'))")
    assert page.locator("details:not([open])").count() == 0
    page.evaluate("dispatchEvent(new Event('afterprint'))")
    assert page.locator("details:not([open])").count() == folded


def test_a_hundred_results_are_drawn_without_a_word(visit):
    page, said = visit(hundred())
    assert said == [] and page.locator("#summary tbody tr").count() == 100


def test_queues_are_drawn_with_a_figure_under_the_pointer(visit, layers):
    stepped = simulate(vary(EIE, pe_count=4), layers, engine="event", timeline=Timeline())
    page, said = visit([stepped])
    assert said == [] and page.locator("#queues figure").count() == 2
    hints = page.locator("#queues rect.hint title").all_text_contents()
    held = stepped.layers[0].queues["activation"].cycles_at_level
    assert hints[0] == f"0: {100 * held[0] / sum(held):.3g} %" and len(hints) == 3 * 8
