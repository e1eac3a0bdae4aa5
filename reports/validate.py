"""Published against simulated: checks with source, error, tolerance and verdict. Misses are listed, not tuned away."""

from __future__ import annotations

import tomllib
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any

from ..workloads.errors import InputError
from . import ese_figures, gpu_figures, patdnn_figures, pointacc_figures, spatten_figures, tensorcore_figures
from .eie_figures import (
    dump_figures,
    layer_figures,
    layer_runs,
    limit_figures,
    table_figures,
    trend_figures,
)


@dataclass(frozen=True, kw_only=True)
class Check:
    """A published figure beside the simulated one.

    ``published`` is None where the paper tells a trend in words, ``simulated`` where the check was skipped. ``error``
    is simulated / published - 1. ``tolerance`` says what a hit is. ``verdict``: "hit"; "miss", out of tolerance;
    "known miss", out of tolerance by the stated amount, the note giving the cause; "information", not asserted;
    "skipped". ``group``: the heading.
    """

    name: str
    source: str
    published: float | None
    simulated: float | None
    unit: str
    error: float | None
    tolerance: str
    verdict: str
    note: str = ""
    group: str = ""


def failed(checks: Iterable[Check]) -> bool:
    """Tell whether any check is out of its tolerance without being a known miss of the stated size."""
    return any(check.verdict == "miss" for check in checks)


def validate_eie(dump: str | Path | None = None) -> list[Check]:
    """Return the checks of the EIE paper, in its order; without ``dump`` those of the real layer are skipped.

    ``dump``: the data folder of the authors' own simulator. Raises InputError where it is not one.
    """
    paper = read_paper("eie")
    slack = paper["slack"]
    real = dump_figures(Path(dump)) if dump is not None else None  # first: a wrong path is told at once
    uniform, unequal, alex7, alex7_256 = layer_runs()
    return [
        *_checks(paper["dump"], real, slack),
        *_layer_checks(paper["layers"], layer_figures(uniform, unequal), slack),
        *_checks(paper["tables"], table_figures(alex7, alex7_256), slack),
        *_checks(paper["trends"], trend_figures(uniform, unequal), slack),
        *_checks(paper["limits"], limit_figures(uniform), slack),
    ]


def validate_ese(dump: str | Path | None = None) -> list[Check]:
    """Return the checks of ESE: its LSTM, what is assumed of its schedule, queues, and balanced pruning.

    Raises InputError for a ``dump``: all that was published is bundled.
    """
    if dump is not None:
        raise InputError(f"{dump}: ese needs no data of its own; leave the path out")
    paper = read_paper("ese")
    slack = paper["slack"]
    return [
        *_checks(paper["lstm"], ese_figures.lstm_figures(), slack),
        *_checks(paper["schedule"], ese_figures.schedule_figures(), slack),
        *_checks(paper["queues"], ese_figures.queue_figures(), slack),
        *_checks(paper["balance"], ese_figures.balance_figures(), slack),
    ]


def validate_tensor_core(dump: str | Path | None = None) -> list[Check]:
    """Return the checks of sparse tensor cores: instructions, Sparseloop's study, the dual-side core, whole products.

    Raises InputError for a ``dump``: all that was published is bundled.
    """
    if dump is not None:
        raise InputError(f"{dump}: tensor-core needs no data of its own; leave the path out")
    paper = read_paper("tensor-core")
    slack = paper["slack"]
    return [
        *_instruction_checks(paper["instructions"], slack),
        *_checks(paper["borrowed"], tensorcore_figures.borrowed_figures(), slack),
        *_checks(paper["sparseloop"], tensorcore_figures.study_figures(), slack),
        *_checks(paper["dstc"], tensorcore_figures.dual_side_figures(), slack),
        *_checks(paper["gemm"], tensorcore_figures.product_figures(), slack),
        *_checks(paper["measured"], tensorcore_figures.measured_figures(), slack),
    ]


def validate_pointacc(dump: str | Path | None = None) -> list[Check]:
    """Return the checks of point clouds: PointAcc's closed forms and networks, TorchSparse's grouping, generated scans.

    Raises InputError for a ``dump``: all that was published is bundled, and scans are generated.
    """
    if dump is not None:
        raise InputError(f"{dump}: pointacc needs no data of its own; leave the path out")
    paper = read_paper("pointacc")
    slack = paper["slack"]
    scans = pointacc_figures.scans()
    gpu = pointacc_figures.gpu_figures(scans)
    return [
        *_checks(paper["forms"], pointacc_figures.form_figures(scans[0]), slack),
        *_checks(paper["grouping"], pointacc_figures.grouping_figures(), slack),
        *_checks(paper["network"], pointacc_figures.network_figures(scans), slack),
        *_checks(paper["cache"], pointacc_figures.cache_figures(scans[0]), slack),
        *_checks(paper["hash"], pointacc_figures.hash_figures(scans), slack),
        *_checks(paper["scenes"], pointacc_figures.scene_figures(scans), slack),
        *_checks(paper["gpu"], gpu, slack),
        *_checks(paper["claims"], gpu | pointacc_figures.fusion_figures(), slack),
    ]


def validate_patdnn(dump: str | Path | None = None) -> list[Check]:
    """Return the checks of PatDNN: patterns, storage, and what each technique gains on drawn layers of VGG-16.

    Raises InputError for a ``dump``: all that was published is bundled, and layers are drawn.
    """
    if dump is not None:
        raise InputError(f"{dump}: patdnn needs no data of its own; leave the path out")
    paper = read_paper("patdnn")
    slack = paper["slack"]
    layers = patdnn_figures.traces()
    gains = patdnn_figures.ablation_figures(layers)
    return [
        *_checks(paper["patterns"], patdnn_figures.pattern_figures(layers), slack),
        *_checks(paper["storage"], patdnn_figures.storage_figures(), slack),
        *_checks(paper["techniques"], gains, slack),
        *_checks(paper["ablation"], gains, slack),
        *_checks(paper["network"], gains, slack),
    ]


def validate_spatten(dump: str | Path | None = None) -> list[Check]:
    """Return the checks of SpAtten: its top-k engine, whole layers of attention, and what is only told in words.

    Raises InputError for a ``dump``: all that was published is bundled.
    """
    if dump is not None:
        raise InputError(f"{dump}: spatten needs no data of its own; leave the path out")
    paper = read_paper("spatten")
    slack = paper["slack"]
    return [
        *_checks(paper["engine"], spatten_figures.engine_figures(), slack),
        *_checks(paper["pipeline"], spatten_figures.pipeline_figures(), slack),
        *_checks(paper["trends"], spatten_figures.trend_figures(), slack),
        *_checks(paper["shares"], None, slack),
    ]


def validate_gpu_kernels(dump: str | Path | None = None) -> list[Check]:
    """Return the checks of sparse kernels on GPUs: times measured on an A100, Sputnik's paper, row swizzle, blocks.

    Raises InputError for a ``dump``: all that was published is bundled.
    """
    if dump is not None:
        raise InputError(f"{dump}: gpu-kernels needs no data of its own; leave the path out")
    paper = read_paper("gpu-kernels")
    slack = paper["slack"]
    return [
        *_checks(paper["measured"], gpu_figures.measured_figures(), slack),
        *_checks(paper["paper"], gpu_figures.paper_figures(), slack),
        *_checks(paper["balance"], gpu_figures.balance_figures(), slack),
        *_checks(paper["blocks"], gpu_figures.block_figures(), slack),
    ]


VALIDATIONS: dict[str, Callable[[Path | None], list[Check]]] = {
    "eie": validate_eie,
    "ese": validate_ese,
    "tensor-core": validate_tensor_core,
    "pointacc": validate_pointacc,
    "patdnn": validate_patdnn,
    "spatten": validate_spatten,
    "gpu-kernels": validate_gpu_kernels,
}


def validations(what: str) -> Callable[[Path | None], list[Check]]:
    """Return the function that validates the accelerator ``what``, given the path of data that cannot be bundled."""
    if what not in VALIDATIONS:
        raise InputError(f"unknown accelerator {what!r} to validate; known: {', '.join(VALIDATIONS)}")
    return VALIDATIONS[what]


def drawings(what: str) -> Callable[[Path], list[Path]]:
    """Return the function that draws the plots of ``what`` into a folder. Raises InputError where there are none."""
    if what == "tensor-core":
        from .tensorcore_plots import draw_all as draw_tensor_core

        return draw_tensor_core
    if what == "pointacc":
        from .pointacc_plots import draw_all as draw_pointacc

        return draw_pointacc
    raise InputError(
        f"--plots must come with tensor-core or pointacc, whose plots it draws, not with {what}; leave it out"
    )


def judge(entry: dict[str, Any], value: float | None, slack: float, *, group: str = "", note: str = "") -> Check:
    """Return the check that ``entry``, a table of a papers file, makes of the simulated ``value``; None skips it.

    ``entry`` has name, source and unit, and either published and tolerance (relative) or within (in the unit), or
    at_least or at_most; its known_miss gives the error (of a bound: the value) that is known, met when it is off by
    ``slack`` at most. With ``information`` nothing is asserted.
    """
    published = entry.get("published")
    known = entry.get("known_miss")
    error = None if published is None or value is None else value / published - 1
    informs = entry.get("information", False)
    if informs:
        tolerance, off, hit = "not asserted", error, True
    elif "within" in entry:
        tolerance, off = f"{entry['within']:g} {entry['unit']}", error
        hit = value is not None and abs(value - entry["published"]) <= entry["within"] + 1e-12
    elif published is not None:
        tolerance, off = _percent(entry["tolerance"]), error
        hit = error is not None and abs(error) <= entry["tolerance"] + 1e-12
    elif "at_least" in entry:
        tolerance, off = f"at least {entry['at_least']:,}", value
        hit = value is not None and value >= entry["at_least"]
    else:
        tolerance, off = f"at most {entry['at_most']:,}", value
        hit = value is not None and value <= entry["at_most"]
    verdict = "information" if informs else "hit" if hit else "miss"
    if off is None and not (informs and value is not None):
        verdict = "skipped"
    elif not hit and known is not None:
        same = abs(off - known["error"]) <= slack + 1e-12
        verdict = "known miss" if same else "miss"
        note = known["cause"] if same else f"the known miss was {known['error']:+.3g}: {known['cause']}"
    words = [f"the paper says: {entry['words']}"] if "words" in entry else []
    return Check(
        name=entry["name"],
        source=entry["source"],
        published=published,
        simulated=value,
        unit=entry["unit"],
        error=error,
        tolerance=tolerance,
        verdict=verdict,
        note="; ".join([*words, *([note] if note else [])]),
        group=group,
    )


def _checks(
    section: dict[str, Any], figures: Mapping[str, tuple[float | None, str]] | None, slack: float
) -> Iterator[Check]:
    about = section.get("note", "")
    for entry in section["check"]:
        value, note = (None, section["absent"]) if figures is None else figures[entry["key"]]
        other = entry.get("note", "" if "words" in entry else about)
        yield judge(entry, value, slack, group=section["group"], note=note or other)


def _layer_checks(section: dict[str, Any], figures: dict[str, dict[str, float]], slack: float) -> Iterator[Check]:
    """Yield the four checks of each layer: theoretical time, time with rows alike and unequal, and their ratio."""
    for layer in section["layer"]:
        known = layer.get("known_miss", {})
        published = {
            "theoretical": layer["theoretical_us"],
            "uniform": layer["actual_us"],
            "rows": layer["actual_us"],
            "ratio": layer["actual_us"] / layer["theoretical_us"],
        }
        titles = {
            "theoretical": " theoretical",
            "uniform": ", uniform rows",
            "rows": ", row_sigma 0.13",
            "ratio": " actual / theoretical",
        }
        for key, value in figures[layer["name"]].items():
            entry = {
                "name": layer["name"] + titles[key],
                "source": section["source"],
                "published": published[key],
                "unit": "ratio" if key == "ratio" else "us",
                "tolerance": section["ratio_tolerance"] if key == "ratio" else layer["density_tolerance"],
            }
            if key in known:
                entry["known_miss"] = {"error": known[key], "cause": known["cause"]}
            yield judge(entry, value, slack, group=section["group"], note=section["note"])


def _instruction_checks(section: dict[str, Any], slack: float) -> Iterator[Check]:
    """Yield the latency of each instruction, and its throughput for each number of warps; then the rows kept aside."""
    group = section["group"]
    for row in section["row"]:
        name, source = tensorcore_figures.instruction_name(row), row["source"]
        latency, _ = tensorcore_figures.instruction_figure(row, 1, 1)
        entry = {"name": name, "source": source, "published": row["latency"], "unit": "cycles"}
        yield judge(entry | {"within": section["within"]}, latency, slack, group=group)
        for loop in row["throughput"]:
            _, rate = tensorcore_figures.instruction_figure(row, loop["warps"], loop["ilp"])
            entry = {"name": f"{name}: {loop['warps']} warps, ILP {loop['ilp']}", "source": source, "unit": "FMA/clk"}
            entry |= {"tolerance": section["tolerance"], "published": loop["published"]}
            if "known_miss" in loop:
                entry["known_miss"] = loop["known_miss"]
            yield judge(entry, rate, slack, group=group, note=section["note"] if row["sparse"] else "")
    for row in section["aside"]:
        _, rate = tensorcore_figures.instruction_figure(row, row["warps"], row["ilp"])
        yield Check(
            name=f"{tensorcore_figures.instruction_name(row)}: {row['warps']} warps, ILP {row['ilp']}",
            source=row["source"],
            published=None,
            simulated=rate,
            unit="FMA/clk",
            error=row["known_error"],
            tolerance="kept aside",
            verdict="known miss",
            note=f"the published value is kept aside; of the error only this size is known; {row['cause']}",
            group=group,
        )


def _percent(tolerance: float) -> str:
    return "exact" if tolerance == 0 else f"{100 * tolerance:.3g} %"


def read_paper(name: str) -> dict[str, Any]:
    """Return the published figures of ``papers/NAME.toml``."""
    file = resources.files(__package__) / "papers" / f"{name}.toml"
    return tomllib.loads(file.read_text("utf-8"))
