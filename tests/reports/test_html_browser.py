"""The HTML report in a browser, where there is one: drawn without a word, sorted, unfolded on paper."""

import pytest

from gossamer.models import vary
from gossamer.reports.html import write_report
from gossamer.simulator import simulate
from gossamer.simulator.timeline import Timeline

from .html_page import EIE, hundred


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
