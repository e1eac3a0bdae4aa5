"""Tables and text in Markdown."""

from __future__ import annotations

from collections.abc import Iterable, Sequence


def table_lines(heads: Sequence[str], rows: Iterable[Sequence[object]], right: Iterable[int] = ()) -> list[str]:
    """Return the lines of a table and an empty one below it; columns ``right`` hold numbers."""
    numbers = set(right)
    rule = ["---:" if number in numbers else "---" for number in range(len(heads))]
    cells = [heads, rule, *([_cell(str(cell)) for cell in row] for row in rows)]
    return [*(f"| {' | '.join(row)} |" for row in cells), ""]


def plain(text: str) -> str:
    """Return ``text`` with the signs that Markdown would take for its own marked as text."""
    for sign in "\\|*`":
        text = text.replace(sign, f"\\{sign}")
    return text.replace("<", "&lt;").replace(">", "&gt;")


def sentence(text: str) -> str:
    """Return ``text`` as a sentence, with a capital and a full stop."""
    return plain(text[:1].upper() + text[1:].rstrip(".") + ".") if text else ""


def _cell(text: str) -> str:
    """Return ``text`` marked as text, but for a link or a name in code, which fills the cell alone."""
    link = text.startswith("[") and text.endswith(")") and "](" in text
    code = len(text) > 2 and text[0] == text[-1] == "`" and "`" not in text[1:-1] and "|" not in text
    return text if link or code else plain(text)
