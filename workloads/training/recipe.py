"""Recipes: everything a training run depends on, in one TOML file."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from pathlib import Path
from types import NoneType
from typing import Annotated, Any, Literal, get_args, get_origin, get_type_hints

import msgspec
from msgspec import Meta

from ..data import DATA
from ..errors import InputError
from ..networks import NETWORKS

FOLDER = Path(__file__).resolve().parent.parent / "recipes"

Count = Annotated[int, Meta(ge=0)]
Seed = Annotated[int, Meta(ge=0, le=2**32 - 1)]
Positive = Annotated[float, Meta(gt=0)]
Share = Annotated[float, Meta(ge=0, lt=1)]


class Recipe(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A training run. A TOML file gives these keys; ``base`` there names a recipe that it changes.

    What is trained:

    - ``name``: of the run and its files; the recipe file's name where it is not given.
    - ``network``, ``data``: a key of `NETWORKS` and of `DATA`.
    - ``test_fraction``, ``split_seed``: the share of the samples held out for the test, and the seed that draws them.
    - ``seed``: of the first weights and of the order of the samples.

    How it is pruned:

    - ``method``: "dense"; "one-shot": train, prune once, fine-tune; "imp": iterative magnitude pruning with rewinding.
    - ``strategy``: "magnitude-global": one threshold for all layers; "magnitude-layer": one for each layer;
      "balanced": the same sparsity in every layer and on every processing element.
    - ``pe_count``, ``scope``: of "balanced" only: rows interleaved over so many PEs, balanced by "pe" or "pe-column".
    - ``sparsity``: of the prunable weights at the end, pruned / all.
    - ``rate``: "imp": the fraction of the surviving weights that each level prunes.
    - ``rewind_step``: "imp": every level starts from the weights after so many steps, in the same place of the
      schedule and of the order of samples; 0 is the original lottery ticket.
    - ``prune_output``: whether the last layer is prunable. Biases never are.

    How it is optimised, the loss being cross-entropy:

    - ``epochs``, ``batch_size``: passes over the training samples, and samples a step (the last batch may be smaller).
    - ``optimizer``: "sgd" with ``momentum``, or "adam"; both with ``learning_rate`` and ``weight_decay``.
    - ``schedule``: "constant"; "cosine", down to 0 at the end; "multistep": times ``gamma`` after each of the
      ``milestones``, in epochs.
    - ``finetune_epochs``, ``finetune_learning_rate``: of "one-shot", after pruning, at a constant rate.

    What is written:

    - ``samples``: the first so many test samples go through the network, and each layer's inputs into the trace.
    """

    name: str
    network: str = "lenet-300-100"
    data: str = "digits"
    test_fraction: Annotated[float, Meta(gt=0, lt=1)] = 0.2
    split_seed: Seed = 0
    seed: Seed = 0
    method: Literal["dense", "one-shot", "imp"] = "dense"
    strategy: Literal["magnitude-global", "magnitude-layer", "balanced"] = "magnitude-global"
    pe_count: Annotated[int, Meta(ge=1)] | None = None
    scope: Literal["pe", "pe-column"] | None = None
    sparsity: Share = 0.0
    rate: Annotated[float, Meta(ge=0.001, lt=1)] = 0.2
    rewind_step: Count = 0
    prune_output: bool = True
    epochs: Annotated[int, Meta(ge=1)] = 30
    batch_size: Annotated[int, Meta(ge=1)] = 64
    optimizer: Literal["sgd", "adam"] = "sgd"
    learning_rate: Positive = 0.1
    momentum: Share = 0.9
    weight_decay: Annotated[float, Meta(ge=0)] = 0.0
    schedule: Literal["constant", "cosine", "multistep"] = "constant"
    milestones: tuple[Annotated[int, Meta(ge=1)], ...] = ()
    gamma: Positive = 0.1
    finetune_epochs: Count = 30
    finetune_learning_rate: Positive = 0.01
    samples: Annotated[int, Meta(ge=1)] = 8

    def __post_init__(self) -> None:
        for key in self.__struct_fields__:
            _checked(key, getattr(self, key))
        if Path(self.name).name != self.name or not self.name.isprintable():
            raise InputError(f"name must be the stem of a file, not {self.name!r}")
        for key, known in (("network", NETWORKS), ("data", DATA)):
            if getattr(self, key) not in known:
                raise InputError(f"unknown {key} {getattr(self, key)!r}; known: {', '.join(known)}")
        for key in ("pe_count", "scope"):
            if (self.strategy == "balanced") == (getattr(self, key) is None):
                rule = "needs" if self.strategy == "balanced" else "takes no"
                raise InputError(f"strategy {self.strategy} {rule} {key}, and has {getattr(self, key)!r}")
        if (self.method == "dense") != (self.sparsity == 0):
            wanted = "0" if self.method == "dense" else "above 0"
            raise InputError(f"sparsity must be {wanted} for method {self.method}, not {self.sparsity}")


def recipe_names() -> tuple[str, ...]:
    """Return the names of the recipes that come with the package."""
    return tuple(sorted(path.stem for path in FOLDER.glob("*.toml")))


def load_recipe(name: str | Path, /, **changes: object) -> Recipe:
    """Return the recipe of a bundled name or a TOML file, with the fields in ``changes`` replaced.

    A change given as text is read as TOML where it can be: ``sparsity="0.9"`` is the number.
    Raises InputError naming the file, the rule, the value met and the known ones.
    """
    path = _find(name)
    values = {"name": path.stem} | _read(path, ())
    recipe = build_recipe(values, str(path))
    return override(recipe, **changes) if changes else recipe


def override(recipe: Recipe, /, **changes: object) -> Recipe:
    """Return ``recipe`` with the fields in ``changes`` replaced; see `load_recipe`."""
    values = {key: getattr(recipe, key) for key in recipe.__struct_fields__}
    return build_recipe(
        values | {key: _from_text(key, value) for key, value in changes.items()}, f"recipe {recipe.name}"
    )


def _find(name: str | Path) -> Path:
    path = Path(name)
    if path.suffix != ".toml" and str(name) in recipe_names():
        return FOLDER / f"{name}.toml"
    if not path.is_file():
        raise InputError(
            f"{name}: a recipe must be a bundled name or a TOML file, and this is neither; "
            f"bundled: {', '.join(recipe_names())}"
        )
    return path


def _read(path: Path, above: tuple[Path, ...]) -> dict[str, Any]:
    """Return the keys of the file, those of its base filled in; ``above`` are the files whose base it is."""
    try:
        values = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise InputError(f"{path}: a recipe must be readable, and {error.strerror}; check the path") from None
    except (ValueError, RecursionError) as error:  # not UTF-8, or not TOML
        raise InputError(f"{path}: a recipe must be TOML, and {error}; correct the file") from None
    base = values.pop("base", None)
    if base is None:
        return values
    if not isinstance(base, str):
        raise InputError(f"{path}: base must be the name of a recipe, not {base!r}")
    beside = path.parent / base
    try:
        found = beside if beside.is_file() else _find(base)
    except InputError as error:
        raise InputError(f"{path}: base {error}") from None
    if found.resolve() in (*above, path.resolve()):
        raise InputError(f"{path}: base must lead to a recipe without one, and {base!r} leads back; break the circle")
    inherited = _read(found, (*above, path.resolve()))
    inherited.pop("name", None)
    return inherited | values


def build_recipe(values: Mapping[str, Any], where: str) -> Recipe:
    """Return the recipe of these fields, each checked; ``where`` begins the message of the InputError."""
    try:
        return Recipe(**{key: _checked(key, value) for key, value in values.items()})
    except InputError as error:
        raise InputError(f"{where}: {error}") from None


def _checked(key: str, value: Any) -> Any:
    """Return ``value`` as the type of the field ``key``. Raises InputError."""
    hints = get_type_hints(Recipe, include_extras=True)
    if key not in hints:
        raise InputError(f"unknown key {key!r}; known: {', '.join(hints)}")
    try:
        return msgspec.convert(value, hints[key])
    except msgspec.ValidationError:
        raise InputError(f"{key} must be {_rule(hints[key])}, not {value!r}") from None


def _rule(hint: Any) -> str:
    """Say in words what a field of this type takes."""
    if NoneType in get_args(hint):  # or None, which a file cannot say
        hint = get_args(hint)[0]
    if get_origin(hint) is Literal:
        return f"one of {', '.join(get_args(hint))}"
    if get_origin(hint) is tuple:
        return f"a list, each {_rule(get_args(hint)[0])}"
    kind, meta = get_args(hint) if get_origin(hint) is Annotated else (hint, Meta())
    word = {int: "a whole number", float: "a number", bool: "true or false", str: "text"}[kind]
    limits = {"of at least": meta.ge, "above": meta.gt, "below": meta.lt, "of at most": meta.le}
    return f"{word} {' and '.join(f'{limit} {at}' for limit, at in limits.items() if at is not None)}".strip()


def _from_text(key: str, value: object) -> object:
    """Return what TOML makes of a text, unless the field is one: then, and where it makes nothing, the text."""
    if not isinstance(value, str) or get_type_hints(Recipe).get(key) is str:
        return value
    try:
        return tomllib.loads(f"value = {value}")["value"]
    except (ValueError, RecursionError):
        return value
