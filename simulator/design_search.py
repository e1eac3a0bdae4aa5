"""A search for the cases that no other beats, where there are too many to simulate them all: Optuna's samplers."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from ..workloads.checks import whole
from ..workloads.errors import InputError
from ..workloads.extras import need
from .crew import Crew, crew_of
from .pareto import non_dominated
from .space import Point, Space
from .store import Store
from .sweep import Outcome, sweep

if TYPE_CHECKING:
    from optuna import Study
    from optuna.distributions import BaseDistribution
    from optuna.trial import Trial

SAMPLERS = ("tpe", "nsga2")
ROUND = 20  # cases that are proposed before any of them is known, whoever runs them: so workers change nothing
REFUSED_A_TRIAL = 50  # combinations that machines may refuse for each one that is simulated, before we give up
DRAWS = 1000  # at random for a point that is new, before it is looked for in order

Figures = Callable[[Outcome], Sequence[float | None]]


@dataclass(frozen=True)
class Found:
    """What a search simulated, in order.

    ``counted``: which figures it went by. ``refused``: how many combinations machines refused; ``refusal``: the first
    one's words.
    """

    outcomes: list[Outcome]
    counted: list[int]
    refused: int
    refusal: str


def search(
    space: Space,
    figures: Figures,
    trials: int,
    *,
    sampler: str = "tpe",
    seed: int = 0,
    store: Store | None = None,
    workers: int = 1,
    cluster: str | None = None,
    progress: Callable[[int, int, int], None] | None = None,
) -> Found:
    """Return the ``trials`` cases of ``space`` that an optimiser chose to simulate, each once.

    ``figures``: what is to be small, of an outcome with a result; None where it has no such figure. What counts is what
    the first cases all have. Proposals come in rounds, each from what the rounds before it gave: the same seed gives
    the same cases, whatever ``workers``, ``cluster`` and ``store`` are. ``progress`` is called with (done, all, size of
    the front). Raises InputError for an unknown sampler, fewer trials than traces x machines, no trials that a machine
    accepts, and where Optuna is not installed.
    """
    need("explore", "optuna")
    if sampler not in SAMPLERS:
        raise InputError(f"--sampler must be {' or '.join(SAMPLERS)}, not {sampler!r}")
    whole(seed, "--search-seed", 0, 2**32 - 1)
    pairs = len(space.traces) * len(space.machines)
    if trials < pairs:
        raise InputError(f"--trials must be at least {pairs}, one for each trace and machine, not {trials}")
    trials = min(trials, space.size)
    with closing(crew_of(space.traces, workers, cluster, stays=True)) as crew:
        return _Search(space, figures, trials, sampler, seed, store, crew, progress).run()


class _Search:
    """What is known of a space, and the study that proposes what to look at next."""

    def __init__(
        self, space: Space, figures: Figures, trials: int, sampler: str, seed: int, store: Store | None, crew: Crew,
        progress: Callable[[int, int, int], None] | None,
    ) -> None:  # fmt: skip
        self.space, self.figures, self.trials, self.sampler, self.seed = space, figures, trials, sampler, seed
        self.store, self.crew, self.progress = store, crew, progress
        self.rng = np.random.default_rng(seed)
        self.seen: set[Point] = set()
        self.points: list[Point] = []  # simulated, in order
        self.outcomes: list[Outcome] = []
        self.counted: list[int] = []  # which figures count
        self.costs: dict[Point, list[float]] = {}  # of those that have them all
        self.refused, self.refusal = 0, ""
        self.study: Study | None = None
        self.asked: dict[Point, Trial] = {}
        self.varied = {place: str(place) for place, n in enumerate(space.shape) if n > 1}
        self.spans = _spans(space, self.varied)

    def run(self) -> Found:
        self._simulate(self.space.starts(self.trials))
        while len(self.points) < self.trials:
            if self.study is None:
                self._begin()
            if not self._simulate(self._proposals(min(ROUND, self.trials - len(self.points)))):
                break
        if not self.points:
            raise InputError(f"no combination of all that were tried is one that its machine accepts: {self.refusal}")
        return Found(self.outcomes, self.counted, self.refused, self.refusal)

    def _simulate(self, points: Sequence[Point]) -> bool:
        """Simulate ``points``, and tell the study; return whether it is worth going on."""
        cases = []
        for point in points:
            self.seen.add(point)
            try:
                cases.append((point, self.space.case(point)))
            except InputError as error:
                self.refused += 1
                self.refusal = self.refusal or str(error)
        before, front = len(self.points), len(self._front())

        def progress(done: int, all_: int) -> None:
            if self.progress is not None:
                self.progress(before + done, self.trials, front)

        outcomes = sweep([case for _, case in cases], store=self.store, crew=self.crew, progress=progress)
        for (point, _), outcome in zip(cases, outcomes, strict=True):
            self.points.append(point)
            self.outcomes.append(outcome)
            self._weigh(point, outcome)
        if self.study is not None:
            self._tell(self.study, points)
        return self.refused <= REFUSED_A_TRIAL * self.trials and len(self.seen) < self.space.size

    def _weigh(self, point: Point, outcome: Outcome) -> None:
        if outcome.result is None or not self.counted:
            return
        figures = [self.figures(outcome)[i] for i in self.counted]
        if all(figure is not None for figure in figures):
            self.costs[point] = [float(figure) for figure in figures if figure is not None]

    def _begin(self) -> None:
        """Let the study begin, as soon as something was simulated: what counts is what all of that has figures for."""
        done = [self.figures(outcome) for outcome in self.outcomes if outcome.result is not None]
        if not done:
            return
        self.counted = [i for i in range(len(done[0])) if all(figures[i] is not None for figures in done)]
        if not self.counted:
            return
        for point, outcome in zip(self.points, self.outcomes, strict=True):
            self._weigh(point, outcome)
        self.study = _study(self.sampler, self.seed, len(self.counted))
        self._tell(self.study, self.points)

    def _tell(self, study: Study, points: Sequence[Point]) -> None:
        """Tell what ``points`` came to; what failed or was refused is told as such."""
        from optuna.trial import TrialState

        for point in points:
            trial = self.asked.pop(point, None) or self._ask(study, point)[0]
            cost = self.costs.get(point)
            study.tell(trial, cost, state=TrialState.FAIL if cost is None else TrialState.COMPLETE)

    def _ask(self, study: Study, point: Point | None = None) -> tuple[Trial, Point]:
        """Return a trial of the sampler's choice, or of ``point``."""
        if point is not None:
            study.enqueue_trial({name: point[place] for place, name in self.varied.items()})
        trial = study.ask(self.spans)
        chosen = [0] * len(self.space.shape)
        for place, name in self.varied.items():
            chosen[place] = trial.params[name]
        return trial, self.space.plain(chosen)

    def _proposals(self, count: int) -> list[Point]:
        """Return up to ``count`` new points: the sampler's, and for each that was seen already one near the front."""
        from optuna.trial import TrialState

        new: list[Point] = []
        front = [point for point in self._front() if point in self.costs]
        while len(new) < min(count, self.space.size - len(self.seen)):
            if self.study is None:
                new.append(self._unseen(new))
                continue
            trial, point = self._ask(self.study)
            if point in self.seen or point in new:
                self.study.tell(trial, state=TrialState.FAIL)
                trial, point = self._ask(self.study, self._beside(front, new))
            self.asked[point] = trial
            new.append(point)
        return new

    def _front(self) -> list[Point]:
        points = list(self.costs)
        if not points:
            return []
        kept = non_dominated(np.array([self.costs[point] for point in points]))
        return [point for point, keep in zip(points, kept, strict=True) if keep]

    def _beside(self, front: Sequence[Point], taken: Sequence[Point]) -> Point:
        """Return a point that is new and beside one of ``front``, any of them; where none is, any new one."""
        for i in self.rng.permutation(len(front)):
            new = [point for point in self.space.near(front[i]) if point not in self.seen and point not in taken]
            if new:
                return new[self.rng.integers(len(new))]
        return self._unseen(taken)

    def _unseen(self, taken: Sequence[Point]) -> Point:
        for _ in range(DRAWS):
            point = self.space.draw(self.rng)
            if point not in self.seen and point not in taken:
                return point
        return next(point for point in self.space.every() if point not in self.seen and point not in taken)


def _spans(space: Space, varied: Mapping[int, str]) -> dict[str, BaseDistribution]:
    """Return what Optuna may choose: the place of a value among its field's, not the value itself."""
    from optuna.distributions import CategoricalDistribution, IntDistribution

    return {
        name: IntDistribution(0, space.shape[place] - 1)
        if space.is_ordered[place]
        else CategoricalDistribution(range(space.shape[place]))
        for place, name in varied.items()
    }


def _study(sampler: str, seed: int, objectives: int) -> Study:
    import optuna

    optuna.logging.set_verbosity(optuna.logging.ERROR)  # it tells of every trial
    samplers = optuna.samplers
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        made = (
            samplers.NSGAIISampler(population_size=ROUND, seed=seed)
            if sampler == "nsga2"
            else samplers.TPESampler(multivariate=True, constant_liar=True, seed=seed)
        )
    return optuna.create_study(directions=["minimize"] * objectives, sampler=made)
