"""How every plot looks: colours, type, axes, and how a figure becomes a file that is the same each time.

Colours are those of Okabe and Ito (2008), which colour-blind readers can tell apart. On white paper some of them are
too light for a line: lines have darker ones of the same hues, at 3:1 or more (WCAG 2.1, 1.4.11), and every line has a
marker besides; areas have a dark edge.
"""

from __future__ import annotations

import io
import re
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..workloads.errors import InputError
from ..workloads.files.container import write_beside

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

SUFFIXES = (".png", ".svg", ".pdf")
BLUE, ORANGE, GREEN, RED, PURPLE, SKY, YELLOW, GREY = (
    "#0072B2", "#E69F00", "#009E73", "#D55E00", "#CC79A7", "#56B4E9", "#F0E442", "#999999",
)  # fmt: skip
FILLS = (BLUE, ORANGE, GREEN, RED, PURPLE, SKY, YELLOW, GREY)
LINES = (BLUE, RED, "#008765", "#B8558C", "#A87300", "#2A8FCB", "#000000", "#767676")
MARKERS = "osD^vPX"  # one fewer than colours: 56 lines differ in one or the other
INK, EDGE, REFERENCE = "#1B1F24", "#3C4650", "#767676"  # text; edges of areas; lines that others are held against
SCALE = "cividis"  # perceived alike with and without colour blindness: Nunez et al., PLoS ONE 2018
HEAT = "Blues"
CAUSES = {
    "busy": BLUE, "compute": BLUE, "padding": ORANGE, "empty": YELLOW, "starved": RED, "drained": PURPLE,
    "act_sram": GREEN, "load": ORANGE, "fill_drain": SKY, "memory": RED,
}  # fmt: skip
SMALL = 8  # points: figures at marks, names at many rows
STYLE: dict[Any, Any] = {
    "font.size": 9,
    "axes.titlesize": 10,
    "axes.edgecolor": EDGE,
    "axes.labelcolor": INK,
    "text.color": INK,
    "text.parse_math": False,  # a name with a dollar sign is a name
    "xtick.color": INK,
    "ytick.color": INK,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": "#DDDDDD",
    "grid.linewidth": 0.6,
    "lines.markeredgewidth": 0.6,
    "legend.frameon": False,
    "hatch.color": "white",
    "hatch.linewidth": 1.2,
    "svg.hashsalt": "gossamer",
}
BARS: dict[str, Any] = {"edgecolor": EDGE, "linewidth": 0.4}
_UNPRINTABLE = re.compile("[\x00-\x1f\x7f-\x9f\ud800-\udfff\ufffe\uffff]")


@contextmanager
def drawing(path: Path, width: float, height: float) -> Iterator[Figure]:
    """Yield a figure of ``width`` x ``height`` inches; write it to ``path`` when all is drawn, without a date."""
    import matplotlib
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    with matplotlib.rc_context(STYLE), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=r"Glyph .* missing from", category=UserWarning)  # shown as a box
        figure = Figure(figsize=(width, height), dpi=150, layout="constrained")
        FigureCanvasAgg(figure)
        yield figure
        kind = path.suffix.lower()[1:]
        dateless: dict[str, Any] = {"png": {"Software": None}, "svg": {"Date": None}, "pdf": {"CreationDate": None}}
        data = io.BytesIO()
        figure.savefig(data, format=kind, metadata=dateless[kind])
    write_beside(path, data.getvalue())


def plot_path(path: str | Path) -> Path:
    """Return ``path``, whose suffix is that of a kind of plot. Raises InputError for any other."""
    path = Path(path)
    if path.suffix.lower() not in SUFFIXES:
        raise InputError(f"{path}: a plot's name must end in {', '.join(SUFFIXES)}, not {path.suffix!r}; rename it")
    return path


def fill_of(index: int) -> dict[str, Any]:
    """Return how the area number ``index`` of a legend is drawn: from the ninth on it is hatched."""
    hatches = (None, "///", "...", "xxx")
    return {"color": FILLS[index % len(FILLS)], "hatch": hatches[index // len(FILLS) % len(hatches)], **BARS}


def line_of(index: int) -> dict[str, Any]:
    """Return how the line number ``index`` of a legend is drawn."""
    return {
        "color": LINES[index % len(LINES)], "marker": MARKERS[index % len(MARKERS)], "markersize": 4,
        "linestyle": ("-", "--", ":")[index // (len(LINES) * len(MARKERS)) % 3],
    }  # fmt: skip


def clean(name: str, most: int = 56) -> str:
    """Return ``name`` as one line of at most ``most`` characters, the middle left out where it is longer."""
    name = _UNPRINTABLE.sub("\ufffd", name)
    return name if len(name) <= most else f"{name[: most // 2 - 1]}\u2026{name[-(most - most // 2) :]}"


def powers(axis: Any, base: int = 10) -> None:
    """Show an axis, "x" or "y" of `Axes`, in powers of ``base``, written as numbers."""
    from matplotlib.ticker import FuncFormatter, LogLocator, NullLocator

    ax: Axes = axis.axes
    (ax.set_xscale if axis.axis_name == "x" else ax.set_yscale)("log", base=base)
    low, high = sorted(axis.get_view_interval())
    decades = _log(high / low, base)
    if base == 2:
        axis.set_major_locator(LogLocator(base=2 if decades <= 9 else 4, numticks=20))
    else:
        axis.set_major_locator(LogLocator(base=10, subs=(1, 2, 5) if decades <= 2.5 else (1,), numticks=8))
    axis.set_minor_locator(NullLocator())
    axis.set_major_formatter(FuncFormatter(lambda value, _: number(value)))


def wide(values: Sequence[float], least: float) -> bool:
    """Tell whether ``values`` are all above 0 and the largest at least ``least`` times the smallest."""
    return bool(values) and min(values) > 0 and max(values) >= least * min(values)


def number(value: float) -> str:
    """Return a number at an axis or a mark, as short as it can be."""
    if value and not 1e-3 <= abs(value) < 1e6:
        return re.sub(r"e([+-])0*", lambda m: "e" + m[1].replace("+", ""), f"{value:.3g}")
    return f"{value:,.4g}" if abs(value) < 1000 else f"{value:,.0f}"


def plain_axis(axis: Any) -> None:
    """Write the numbers of a linear axis in full, as short as they can be."""
    from matplotlib.ticker import FuncFormatter

    axis.set_major_formatter(FuncFormatter(lambda value, _: number(0.0 if abs(value) < 1e-15 else value)))


def _log(value: float, base: float) -> float:
    import math

    return math.log(value, base) if value > 0 else 0.0
