"""Recipes: everything a training run depends on, in one TOML file."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from types import NoneType
from typing import Annotated, Any, Literal, get_args, get_origin, get_type_hints

import msgspec
from msgspec import Meta

from ..data import DATA
from ..errors import InputError, nearest, shown
from ..files.settings import parse_toml, read_toml
from ..networks import NETWORKS

FOLDER = Path(__file__).resolve().parent.parent / "recipes"

NAME_LIMIT = 200  # bytes: a file system takes 255, suffixes included
BASES_LIMIT = 32  # above one another

Count = Annotated[int, Meta(ge=0)]
Seed = Annotated[int, Meta(ge=0, le=2**32 - 1)]
Positive = Annotated[float, Meta(gt=0)]
Share = Annotated[float, Meta(ge=0, lt=1)]
Whole = Annotated[int, Meta(ge=1)]
Threads = Annotated[int, Meta(ge=1, le=1024)]
NotNegative = Annotated[float, Meta(ge=0)]

MOST, MOST_RATE = 2**31 - 1, 1e6  # of what is counted, and of any other number: for more PyTorch has no room
LONGEST = 4096  # group of N:M: a layer is padded to whole ones
NM_METHODS = ("asp", "ste", "sr-ste", "mdgf-linear", "mdgf-exponential", "sdgf-stepwise", "sdgf-geometric")
STRATEGY_KEYS = {  # a field that only some strategies take, and need
    "pe_count": ("balanced",), "scope": ("balanced",), "block": ("block", "equal-blocks"), "vector": ("vector",),
    "patterns": ("pattern",),
}  # fmt: skip
# A field that only some methods read, and what it is elsewhere: a setting without effect is a mistake.
METHOD_KEYS: tuple[tuple[str, object, tuple[str, ...]], ...] = (
    ("control", "none", ("imp",)),
    ("particles", 1, ("swamp",)),
    ("solo_levels", 0, ("swamp",)),
    ("true_derivative", False, ("mdgf-linear", "mdgf-exponential")),
    ("admm_rounds", 4, ("admm",)),
    ("admm_epochs", 2, ("admm",)),
    ("rho", 0.3, ("admm",)),
)


class Recipe(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A training run. A TOML file gives these keys; ``base`` there names a recipe that it changes.

    What is trained:

    - ``name``: of the run and its files; the recipe file's name where it is not given.
    - ``network``, ``data``: a key of `NETWORKS` and of `DATA`; "" where `prune` is given a module and loaders.
    - ``data_folder``: where the data lie that do not come with a package.
    - ``test_fraction``, ``split_seed``: the share of the samples held out for the test, and the seed that draws them.
    - ``seed``: of the first weights, of the order of the samples and of all else that is drawn.

    How it is pruned:

    - ``method``: "dense". Of magnitude: "one-shot": train, prune, fine-tune; "iterative": prune more and fine-tune
      again; "imp": with rewinding; "swamp": with rewinding, of averaged weights. Of batch-norm scales: "slimming".
      "admm": pulled towards what pruning would leave, then pruned and fine-tuned.
      Of N:M groups: "asp", "ste", "sr-ste", "mdgf-linear", "mdgf-exponential", "sdgf-stepwise", "sdgf-geometric".
    - ``strategy``: what is pruned of the weights, but for N:M and slimming. "magnitude-global": one threshold for all
      layers; "magnitude-layer": one for each layer; "balanced": the same sparsity in every layer and on every
      processing element. Whole pieces, by their norm, the same share in every layer: "block", "equal-blocks" (as many
      in every row of blocks), "vector" (segments of a row), "kernel" (of convolutions alone), "channel" (never of the
      last layer). "pattern", of convolutions alone: kernels of 3 x 3 keep 4 weights in one of a few patterns, then
      whole kernels go; of "one-shot" and "admm".
    - ``pe_count``, ``scope``: of "balanced" only: rows interleaved over so many PEs, balanced by "pe" or "pe-column".
    - ``block``: of "block" and "equal-blocks" only: rows and columns of a block. ``vector``: of "vector" only: its
      length.
    - ``patterns``: of "pattern" only: so many in the dictionary, which all convolutions share.
    - ``admm_rounds``, ``admm_epochs``, ``rho``: of "admm" only: so many rounds of so many epochs, at the fine-tuning
      rate; how strongly weights are pulled.
    - ``sparsity``: of the prunable weights at the end, pruned / all; of "slimming": of the channels. 0 with N:M.
    - ``rate``: "iterative", "imp", "swamp": the fraction of the surviving weights that each level prunes.
    - ``rewind_step``: "imp", "swamp": every level starts from the weights after so many steps, in the same place of
      the schedule and of the order of samples; 0 is the original lottery ticket.
    - ``control``: of "imp": the network that each level's mask is tried on. "none": the ticket; "reinitialised":
      one with other first weights; "shuffled": the ticket with each layer's mask shuffled; "random": with a random
      mask of the same sparsity over all layers.
    - ``prune_output``: whether the last layer is prunable. Biases, norms and embeddings never are.
    - ``exclude``: layers that are left dense, by name; * stands for any letters.

    N:M, and its training flow:

    - ``n``, ``m``, ``axis``: at most n of m consecutive weights along the axis, 1 being the input channels, are kept.
    - ``pad``: whether a side that is no whole number of groups is lengthened by zeros, not refused.
    - ``dense_epochs``, ``epochs``, ``finetune_epochs``: phases of one schedule: nothing pruned; the method at work;
      the mask frozen. "asp" goes through ``epochs`` twice, dense and pruned, and has no other phases.
    - ``decay``: the c of "mdgf-linear", 1 - c j, and "mdgf-exponential", exp(-c j), at step j of the second phase.
    - ``true_derivative``: "mdgf-...": whether the gradient is that of the decayed weight, not straight through.
    - ``sr_decay``: the lambda of "sr-ste".

    Averages:

    - ``swa_epochs``, ``swa_learning_rate``: the weights are averaged over the last so many epochs of a training,
      which run at this constant rate; 0 averages nothing.
    - ``particles``: of "swamp": so many networks a level, which see the samples in different orders.
    - ``solo_levels``: of "swamp": so many levels, from the first, that train one particle (SWAMP+).

    How it is optimised, the loss being cross-entropy:

    - ``epochs``, ``batch_size``: passes over the training samples, and samples a step (the last batch may be smaller).
    - ``optimizer``: "sgd" with ``momentum``, or "adam"; both with ``learning_rate`` and ``weight_decay``, which is L2.
    - ``l1``: times the sum of magnitudes of the prunable weights, added to the loss.
    - ``scale_l1``: times that of the batch-norm scales; "slimming" needs it, until it has pruned.
    - ``schedule``: "constant"; "cosine", down to 0 at the end; "multistep": times ``gamma`` after each of the
      ``milestones``, in epochs.
    - ``finetune_epochs``, ``finetune_learning_rate``: after pruning, at a constant rate: of "one-shot", "slimming",
      "admm" and each level of "iterative" (a tenth or a hundredth of the learning rate: Han et al., NIPS 2015).
    - ``device``: "cpu", or "cuda" where there is one. ``threads``: of the CPU; results may differ with their number.

    What is written:

    - ``samples``: the first so many test samples go through the network, and each layer's inputs into the trace.
    """

    name: str
    network: str = "lenet-300-100"
    data: str = "digits"
    data_folder: str | None = None
    test_fraction: Annotated[float, Meta(gt=0, lt=1)] = 0.2
    split_seed: Seed = 0
    seed: Seed = 0
    method: Literal[
        "dense",
        "one-shot",
        "iterative",
        "imp",
        "swamp",
        "slimming",
        "admm",
        "asp",
        "ste",
        "sr-ste",
        "mdgf-linear",
        "mdgf-exponential",
        "sdgf-stepwise",
        "sdgf-geometric",
    ] = "dense"
    strategy: Literal[
        "magnitude-global",
        "magnitude-layer",
        "balanced",
        "block",
        "equal-blocks",
        "vector",
        "kernel",
        "channel",
        "pattern",
    ] = "magnitude-global"
    pe_count: Whole | None = None
    scope: Literal["pe", "pe-column"] | None = None
    block: tuple[Whole, Whole] | None = None
    vector: Whole | None = None
    patterns: Whole | None = None
    admm_rounds: Whole = 4
    admm_epochs: Whole = 2
    rho: Positive = 0.3
    sparsity: Share = 0.0
    rate: Annotated[float, Meta(ge=0.001, lt=1)] = 0.2
    rewind_step: Count = 0
    control: Literal["none", "reinitialised", "shuffled", "random"] = "none"
    prune_output: bool = True
    exclude: tuple[str, ...] = ()
    n: Whole | None = None
    m: Whole | None = None
    axis: Count = 1
    pad: bool = False
    dense_epochs: Count = 0
    decay: Positive = 2e-4
    true_derivative: bool = False
    sr_decay: NotNegative = 2e-4
    swa_epochs: Count = 0
    swa_learning_rate: Positive = 0.05
    particles: Whole = 1
    solo_levels: Count = 0
    epochs: Whole = 30
    batch_size: Whole = 64
    optimizer: Literal["sgd", "adam"] = "sgd"
    learning_rate: Positive = 0.1
    momentum: Share = 0.9
    weight_decay: NotNegative = 0.0
    l1: NotNegative = 0.0
    scale_l1: NotNegative = 0.0
    schedule: Literal["constant", "cosine", "multistep"] = "constant"
    milestones: tuple[Whole, ...] = ()
    gamma: Positive = 0.1
    finetune_epochs: Count = 30
    finetune_learning_rate: Positive = 0.01
    device: Literal["cpu", "cuda"] = "cpu"
    threads: Threads = 1
    samples: Whole = 8

    def __post_init__(self) -> None:
        for key in self.__struct_fields__:
            _checked(key, getattr(self, key))
        if not self.name or Path(self.name).name != self.name or not self.name.isprintable():
            raise InputError(f"name must be the stem of a file, not {self.name!r}")
        if len(self.name.encode()) > NAME_LIMIT:
            raise InputError(f"name must take at most {NAME_LIMIT} bytes, not {len(self.name.encode())}")
        for key, known in (("network", NETWORKS), ("data", DATA)):
            if getattr(self, key) not in ("", *known):
                raise InputError(f"unknown {key} {getattr(self, key)!r}; known: {', '.join(known)}")
        for key, strategies in STRATEGY_KEYS.items():
            self._demand(self.strategy in strategies, f"strategy {self.strategy}", key)
        for key in ("n", "m"):
            self._demand(self.is_nm, f"method {self.method}", key)
        if self.m is not None and self.m > LONGEST:
            raise InputError(f"m must be at most {LONGEST}, not {self.m}")
        if self.n is not None and self.m is not None and self.n >= self.m:
            raise InputError(f"n must be below m = {self.m}, not {self.n}")
        free = self.method == "dense" or self.is_nm
        if free != (self.sparsity == 0):
            wanted = "0" if free else "above 0"
            raise InputError(f"sparsity must be {wanted} for method {self.method}, not {self.sparsity}")
        if self.method == "slimming" and not self.scale_l1:
            raise InputError("scale_l1 must be above 0 for method slimming, not 0.0")
        if self.swa_epochs > self.epochs:
            raise InputError(f"swa_epochs must be at most epochs = {self.epochs}, not {self.swa_epochs}")
        if self.strategy == "pattern" and self.method not in ("one-shot", "admm"):
            raise InputError(f"strategy pattern must be of method one-shot or admm, not {self.method}")
        if self.control in ("shuffled", "random") and not self.strategy.startswith("magnitude"):
            raise InputError(
                f"control {self.control} must be of strategy magnitude-global or magnitude-layer, not {self.strategy}"
            )
        for key, usual, methods in METHOD_KEYS:
            if self.method not in methods and getattr(self, key) != usual:
                raise InputError(
                    f"{key} must be {usual} but for method {' or '.join(methods)}, "
                    f"not {getattr(self, key)!r} for {self.method}"
                )

    def _demand(self, wanted: bool, whose: str, key: str) -> None:
        """Raise InputError unless the field ``key`` is given where ``wanted``, and only there."""
        if wanted == (getattr(self, key) is None):
            rule = "needs" if wanted else "takes no"
            raise InputError(f"{whose} {rule} {key}, and has {getattr(self, key)!r}")

    @property
    def is_nm(self) -> bool:
        """Tell whether the method makes N:M groups."""
        return self.method in NM_METHODS

    @property
    def target_sparsity(self) -> float:
        """Return the sparsity asked for, that of the N:M groups included."""
        return self.sparsity if self.n is None or self.m is None else 1 - self.n / self.m

    @property
    def schedule_epochs(self) -> int:
        """Count the epochs that the schedule of learning rates covers."""
        phased = self.is_nm and self.method != "asp"
        return self.epochs + phased * (self.dense_epochs + self.finetune_epochs)

    @property
    def digest(self) -> str:
        """Return 10 hexadecimal digits of the SHA-256 of all fields: what the run is addressed by."""
        return hashlib.sha256(msgspec.json.encode(self, order="deterministic")).hexdigest()[:10]


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
    try:
        is_there = path.is_file()
    except OSError:  # a name that no file can have
        is_there = False
    if not is_there and path.suffix != ".toml":  # of a file, reading it tells what is wrong
        raise InputError(
            f"{name}: a recipe must be a bundled name or a TOML file, and this is neither"
            f"{nearest(str(name), recipe_names())}; "
            f"bundled: {', '.join(recipe_names())}"
        )
    return path


def _read(path: Path, above: tuple[Path, ...]) -> dict[str, Any]:
    """Return the keys of the file, those of its base filled in; ``above`` are the files whose base it is."""
    values = read_toml(path, "a recipe")
    base = values.pop("base", None)
    if base is None:
        return values
    if len(above) > BASES_LIMIT:
        raise InputError(f"{path}: a base may have a base, but not {BASES_LIMIT} of them; state more in one file")
    if not isinstance(base, str):
        raise InputError(f"{path}: base must be the name of a recipe, not {shown(base)}")
    beside = path.parent / base
    try:
        found = beside if beside.is_file() else _find(base)
    except InputError as error:
        raise InputError(f"{path}: base {error}") from None
    except OSError as error:
        raise InputError(f"{path}: base must be the name of a recipe, and: {error.strerror}; correct it") from None
    if found.resolve() in (*above, path.resolve()):
        raise InputError(f"{path}: base must lead to a recipe without one, and {base!r} leads back; break the circle")
    inherited = _read(found, (*above, path.resolve()))
    inherited.pop("name", None)
    return inherited | values


def build_recipe(values: Mapping[str, Any], where: str) -> Recipe:
    """Return the recipe of these fields, each checked; ``where`` begins the message of the InputError."""
    if "name" not in values:
        raise InputError(f"{where}: a recipe needs a name, and has none")
    try:
        return Recipe(**{key: _checked(key, value) for key, value in values.items()})
    except InputError as error:
        raise InputError(f"{where}: {error}") from None


@cache
def _hints() -> dict[str, Any]:
    return get_type_hints(Recipe, include_extras=True)


def _checked(key: str, value: Any) -> Any:
    """Return ``value`` as the type of the field ``key``. Raises InputError."""
    hints = _hints()
    if key not in hints:
        raise InputError(f"unknown key {shown(key)}{nearest(key, hints)}; known: {', '.join(hints)}")
    try:
        made = msgspec.convert(value, hints[key])
    except (msgspec.ValidationError, UnicodeError):  # half of a character is no text
        raise InputError(f"{key} must be {_rule(hints[key])}, not {shown(value)}") from None
    for each in made if isinstance(made, tuple) else (made,):
        most = MOST_RATE if isinstance(each, float) else MOST
        if isinstance(each, int | float) and hints[key] is not Seed and each > most:
            raise InputError(f"{key} must be at most {most:.10g}, not {shown(value)}")
    return made


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
        return parse_toml(f"value = {value}")["value"]
    except ValueError:
        return value
