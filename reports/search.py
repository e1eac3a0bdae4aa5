"""A search from a trace, or a checkpoint, and a machine: what the command line runs, seed by seed."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any

from ..simulator.cost import QUANTITIES, cost_function
from ..simulator.machine import Machine
from ..workloads.checks import counted
from ..workloads.errors import InputError
from ..workloads.extras import need

if TYPE_CHECKING:
    from ..workloads.search import Space, Trained
    from ..workloads.search.found import Found, Progress
    from ..workloads.search.sensitivity import CostScan
    from ..workloads.training import Recipe, Run

KINDS = ("channels", "sparsity", "nm")
KIND_OF_MODEL = {"systolic": "channels", "tensorcore": "nm", "sparseloop_stc": "nm"}
"""What machines of a model gain by; of any other one, sparsity."""


@dataclass(frozen=True)
class Job:
    """What is searched for: the options of `gossamer search`. ``target``: (quantity, share), share None for a scan."""

    method: str
    source: str
    machine: Machine
    target: tuple[str, float | None]
    kind: str | None = None
    changes: Mapping[str, Any] | None = None
    epochs: int = 10
    short_epochs: int = 2
    steps: int = 40
    episodes: int = 400
    max_drop: float | None = None
    ns: str = "2"
    m: int = 4
    pe_count: int | None = None

    def checked(self) -> Job:
        """Return the job itself, its source read. Raises InputError for what is wrong before anything is trained."""
        if self.kind is not None and self.kind not in KINDS:
            raise InputError(f"--kind must be one of {', '.join(KINDS)}, not {self.kind!r}")
        self._ns()
        if self.pe_count is not None and (self.chosen_kind != "sparsity" or self.pe_count < 1):
            raise InputError(
                f"--pe-count is for --kind sparsity, and at least 1, not {self.pe_count} for {self.chosen_kind}"
            )
        need("train", "torch", "sklearn")
        _ = self.recipe
        return self

    @property
    def quantity(self) -> str:
        """Return what is minimised."""
        return self.target[0]

    @property
    def share(self) -> float | None:
        """Return the share of the dense network's cost that is aimed at."""
        return self.target[1]

    @property
    def chosen_kind(self) -> str:
        """Return what is pruned: as it was asked for, or what the machine gains by."""
        return self.kind or KIND_OF_MODEL.get(self.machine.model, "sparsity")

    @cached_property
    def _run(self) -> Run | None:
        """Return the run of a checkpoint, None where the source is a trace."""
        from ..workloads.training import is_checkpoint, load_checkpoint

        return load_checkpoint(self.source) if is_checkpoint(self.source) else None

    @cached_property
    def recipe(self) -> Recipe:
        """Return the recipe that the source names, with the fields that were to be replaced. Raises InputError."""
        from ..workloads import load_trace
        from ..workloads.search.trained import dense_recipe
        from ..workloads.training.recipe import build_recipe, override

        if self._run is not None:
            found = self._run.recipe
        else:
            values = load_trace(self.source).provenance.get("recipe")
            if not isinstance(values, dict):
                raise InputError(
                    f"{self.source}: a search trains the network, and needs a trace that names its recipe, which this "
                    "one does not; give one that gossamer train wrote, or a checkpoint"
                )
            found = build_recipe(values, self.source)
        if not found.network or not found.data:
            raise InputError(
                f"{self.source}: a search needs a recipe with network and data, and this run was given a module; "
                "use gossamer.workloads.search.Trained.of_module"
            )
        return override(dense_recipe(found, None), **(self.changes or {}))

    @property
    def name(self) -> str:
        """Return the name of the recipe, that of the trace."""
        return self.recipe.name

    def trained(self, seed: int) -> Trained:
        """Return the network that is searched: trained dense with ``seed``, or that of the checkpoint."""
        from ..workloads.search import Trained

        if self._run is None:
            return Trained.of(self.recipe, seed=seed)
        return Trained.of_run(replace(self._run, recipe=self.recipe), seed=seed)

    def space(self, trained: Trained) -> Space:
        """Return what may be pruned of ``trained``."""
        from ..workloads.search.channels import ChannelSpace
        from ..workloads.search.patterns import NmSpace
        from ..workloads.search.sparsities import SparsitySpace

        if self.chosen_kind == "channels":
            return ChannelSpace(trained)
        if self.chosen_kind == "nm":
            return NmSpace(trained, m=self.m, ns=self._ns())
        return SparsitySpace(trained, pe_count=self.pe_count)

    def _ns(self) -> list[int]:
        numbers = [counted(text) for text in self.ns.split(",")]
        if not all(1 <= n <= self.m for n in numbers):
            raise InputError(f"--n must be whole numbers from 1 to --m, which is {self.m}, not {self.ns!r}; as in 1,2")
        return numbers


@dataclass(frozen=True, eq=False)
class Pair:
    """A search of one seed and its baseline, ``even``; ``cpu_s``: process time of the search alone.

    ``accuracy``: of the dense network, on the test samples. ``seen``: see `Trained`. ``scan``: of a sensitivity search.
    """

    seed: int
    found: Found
    even: Found
    accuracy: float
    cpu_s: float
    seen: bool
    scan: CostScan | None = None


def read_target(text: str | None, method: str, max_drop: float | None) -> tuple[str, float | None]:
    """Return quantity and share of --target; without one, of a scan by ``max_drop``, latency and None. InputError."""
    if method == "sensitivity" and (text is None) == (max_drop is None):
        raise InputError("a sensitivity search needs --target or --max-drop, one of the two")
    if method != "sensitivity" and max_drop is not None:
        raise InputError(f"--max-drop is for sensitivity, not {method}; leave it out")
    if text is None:
        if method != "sensitivity":
            raise InputError(f"{method} needs a --target, as in --target latency=0.5")
        return "latency", None
    quantity, _, value = text.partition("=")
    try:
        share = float(value)
    except ValueError:
        share = 0.0
    if quantity not in QUANTITIES or not 0 < share < 1:
        raise InputError(
            f"--target must be {', '.join(QUANTITIES)} = a share above 0 and below 1, not {text!r}; as in latency=0.5"
        )
    return quantity, share


def run_job(job: Job, seed: int, progress: Progress = lambda share, what: None) -> Pair:
    """Return what the job finds with ``seed``, and the even network that costs as much. Raises InputError."""
    from ..workloads.search.uniform import uniform

    progress(0.0, "training")
    trained = job.trained(seed)
    began = time.process_time()
    space = job.space(trained)
    cost = cost_function(job.machine, job.quantity)
    found, scanned = _search(job, space, seed, progress)
    spent = time.process_time() - began
    even = uniform(space, cost, found.cost, epochs=found.candidate.epochs)
    return Pair(seed, found, even, space.dense.test_accuracy(), spent, trained.seen, scanned)


def _search(job: Job, space: Space, seed: int, progress: Progress) -> tuple[Found, CostScan | None]:
    cost = cost_function(job.machine, job.quantity)
    if job.method == "sensitivity":
        from ..workloads.search.sensitivity import from_scan, scan

        scanned = scan(space, cost, progress=progress)
        return from_scan(scanned, cost, max_drop=job.max_drop, target=job.share, epochs=job.epochs), scanned
    assert job.share is not None
    if job.method == "amc":
        from ..workloads.search.amc import run_amc

        return run_amc(
            space, cost, job.share, episodes=job.episodes, seed=seed, epochs=job.epochs, progress=progress
        ), None
    from ..workloads.search.netadapt import Settings, netadapt

    how = Settings(steps=job.steps, short_epochs=job.short_epochs, long_epochs=job.epochs)
    return netadapt(space, cost, job.share, settings=how, progress=progress), None


def seed_numbers(pairs: list[Pair]) -> str:
    """Return the seeds in words."""
    return f"seed {pairs[0].seed}" if len(pairs) == 1 else f"seeds {pairs[0].seed} to {pairs[-1].seed}"
