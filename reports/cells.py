"""How figures and tables look in a terminal: thousands separated, numbers to the right, units in the headings."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from rich import box
from rich.markup import escape
from rich.table import Table

Format = Callable[[Any], str]


def whole(value: float) -> str:
    """Return a whole number with its thousands separated."""
    return f"{value:,.0f}"


def figures(value: float) -> str:
    """Return a number with four significant figures, more where it is larger, thousands separated."""
    if isinstance(value, int) or value == 0:
        return f"{value:,}" if value else "0"
    if abs(value) >= 1000:
        return f"{value:,.0f}"
    return f"{value:#.4g}" if abs(value) >= 1e-4 else f"{value:.2e}"


def percent(value: float) -> str:
    """Return a share in percent."""
    return f"{100 * value:.1f}"


def times(value: float) -> str:
    """Return a ratio."""
    if value >= 1000:
        return f"{value:,.0f}"
    return f"{value:.2f}" if value >= 0.1 else f"{value:.2g}"


def small_percent(value: float) -> str:
    """Return a small share in percent, with two significant figures."""
    return f"{100 * value:.2g}"


def new_table(title: str) -> Table:
    """Return an empty table with a title, which may be empty."""
    return Table(
        title=escape(title) or None,
        title_justify="left",
        title_style="bold",
        box=box.SIMPLE_HEAD,
        padding=(0, 1, 0, 0),
        pad_edge=False,
        header_style="bold",
        show_edge=False,
    )
