"""What is bundled, as tables."""

from __future__ import annotations

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from ..models import list_energy_tables, list_machines
from ..workloads.errors import InputError
from ..workloads.load import bundled_traces, load_trace
from ..workloads.networks import NETWORKS
from ..workloads.points.network import POINT_NETWORKS
from ..workloads.training import Recipe, load_recipe, recipe_names

KINDS = ("machines", "traces", "networks", "recipes")


def catalogue(what: str) -> RenderableType:
    """Return the bundled things of the kind ``what``, or of all kinds. Raises InputError for an unknown kind."""
    if what not in (*KINDS, "all"):
        raise InputError(f"what to list must be one of {', '.join(KINDS)}, or nothing for all, not {what!r}")
    makers = {"machines": _machines, "traces": _traces, "networks": _networks, "recipes": _recipes}
    return Group(*(maker() for kind, maker in makers.items() if what in (kind, "all")))


def _table(title: str, *headings: str) -> Table:
    table = Table(title=title, title_justify="left", box=None, pad_edge=False)
    for heading in headings:
        table.add_column(heading, justify="right" if heading in ("layers", "sparsity", "accuracy") else "left")
    return table


def _machines() -> RenderableType:
    table = _table("Machines", "name", "description")
    for name, description in list_machines().items():
        table.add_row(name, description)
    return Group(table, Text(f"Energy tables: {', '.join(list_energy_tables())}\n"))


def _traces() -> RenderableType:
    table = _table("Traces", "name", "layers", "sparsity", "accuracy", "made by")
    for name in bundled_traces():
        trace = load_trace(name)
        accuracy = trace.provenance.get("accuracy")
        recipe = trace.provenance.get("recipe")
        table.add_row(
            name,
            str(len(trace.layers)),
            f"{trace.sparsity:.2%}",
            f"{accuracy:.2%}" if isinstance(accuracy, float) else "",
            f"gossamer train {recipe['name']}" if isinstance(recipe, dict) and "name" in recipe else "",
        )
    return Group(table, Text())


def _networks() -> RenderableType:
    table = _table("Networks", "name", "description")
    for name, network in NETWORKS.items():
        table.add_row(name, (network.__doc__ or "").partition("\n")[0].removeprefix("Return the "))
    clouds = _table("Networks for point clouds (--network)", "name", "description")
    for name, of_points in POINT_NETWORKS.items():
        clouds.add_row(name, of_points.description)
    return Group(table, Text(), clouds, Text())


def _recipes() -> RenderableType:
    table = _table("Recipes", "name", "method", "pruned", "sparsity")
    for name in recipe_names():
        recipe = load_recipe(name)
        table.add_row(name, recipe.method, _pruned(recipe), f"{recipe.target_sparsity:.0%}")
    return table


def _pruned(recipe: Recipe) -> str:
    """Say what the recipe prunes of its weights."""
    if recipe.method == "dense":
        return ""
    if recipe.is_nm:
        return f"{recipe.n}:{recipe.m} along axis {recipe.axis}"
    if recipe.method == "slimming":
        return "channels by their scale"
    scope = f" over {recipe.pe_count} PEs, by {recipe.scope}" if recipe.pe_count else ""
    control = "" if recipe.control == "none" else f", control {recipe.control}"
    return recipe.strategy + scope + control
