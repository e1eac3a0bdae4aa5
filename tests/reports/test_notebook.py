"""A result in a notebook: a frame of its layers, and a table."""

import sys

import pytest

from gossamer.workloads.errors import InputError

from .html_page import Page


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
