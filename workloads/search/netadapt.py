"""NetAdapt: step by step to a budget, each step shrinking the one layer that can best bear it.

    resource_0 = cost(network)
    while resource_(i-1) > budget:
        target_i = resource_(i-1) - dR * decay^(i-1)
        for each layer: the largest choice with which the look-up table says that target_i is met; short fine-tuning
        keep the network of the highest accuracy
    long fine-tuning

Source: Yang et al., ECCV 2018. The look-up table there holds latencies that were measured, here it is simulated; after
each step the cost of the whole network is simulated too, which also holds for costs that do not add up over layers.
The authors' code, github.com/denru01/netadapt, keeps what loses the least accuracy for the cost it saves, and tries a
layer that cannot meet the target at its smallest; here it is the paper's rule, and such a layer is left out.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from ..errors import InputError
from .found import Found, Progress, Step, Trial
from .space import Candidate, Cost, Space
from .table import Table

STEPS = 40
NEAR = 0.02  # of the target: how much of it may be left unspent
REPAIRS = 4  # steps after the long fine-tuning, where that has moved the cost off its target
HALVED = 12  # sizes of a step that are tried, each half of the one before
CUTS = 4  # sizes of a layer that are tried below the one it has, when another layer is given something back
TRIED_BACK = 8  # networks that are simulated, the most promising first, when layers are given something back


@dataclass(frozen=True)
class Settings:
    """How NetAdapt goes: ``reduction`` (dR), a share of the first cost, and ``decay``.

    Without them each of ``steps`` steps takes the same share of what the one before left, down to the target; published
    are 0.025 and 0.96, which lead to a half in 40 steps, and no further than to 0.375. ``short_epochs`` after each
    trial, ``long_epochs`` at the end. ``near``: the share of the target that may be left unspent before layers are
    given something back.
    """

    reduction: float | None = None
    decay: float | None = None
    steps: int = STEPS
    short_epochs: int = 2
    long_epochs: int = 10
    near: float = NEAR

    def __post_init__(self) -> None:
        if (self.reduction is None) != (self.decay is None):
            raise InputError(f"reduction and decay go together, and are {self.reduction} and {self.decay}; give both")
        if self.reduction is not None and not 0 < self.reduction < 1:
            raise InputError(f"reduction must be a share above 0 and below 1, not {self.reduction}")
        if self.decay is not None and not 0 < self.decay <= 1:
            raise InputError(f"decay must be above 0 and at most 1, not {self.decay}")
        if self.steps < 1:
            raise InputError(f"steps must be at least 1, not {self.steps}")
        for name in ("short_epochs", "long_epochs"):
            if getattr(self, name) < 0:
                raise InputError(f"{name} must be at least 0, not {getattr(self, name)}")
        if not 0 <= self.near < 1:
            raise InputError(f"near must be a share of at least 0 and below 1, not {self.near}")

    def schedule(self, target: float) -> tuple[float, float]:
        """Return dR, as a share of the first cost, and decay."""
        if self.reduction is not None and self.decay is not None:
            return self.reduction, self.decay
        decay = target ** (1 / self.steps)
        return 1 - decay, decay


def netadapt(
    space: Space,
    cost: Cost,
    target: float,
    *,
    settings: Settings | None = None,
    progress: Progress = lambda share, what: None,
) -> Found:
    """Return the network that NetAdapt finds at ``target`` of the dense network's cost, a share, fine-tuned.

    Where no layer alone can take a step, the step is halved until one can; where the choices do not go so low, the
    search ends with more than was asked for, and `Found.reached` is False. Where its last step went further than it had
    to, layers are given back what is left of the budget; so they are after the long fine-tuning. ``progress`` is told
    the way covered, 0 to 1, and the step. Raises InputError for a target that is no share.
    """
    if not 0 < target < 1:
        raise InputError(f"target must be a share of the dense network's cost, above 0 and below 1, not {target}")
    return _Search(space, Table(space, cost), target, settings or Settings(), progress).run()


@dataclass(eq=False)
class _Search:
    space: Space
    table: Table
    share: float
    how: Settings
    progress: Progress

    def run(self) -> Found:
        candidate = self.space.dense
        dense = resource = self.table.exact(candidate.trace())
        if dense == 0:
            raise InputError("the cost of the dense network must be above 0, and is 0; choose another cost")
        budget = self.share * dense
        reduction, decay = self.how.schedule(self.share)
        steps: list[Step] = []
        while resource > budget:
            step = min(reduction * dense * decay ** len(steps), resource - budget)
            for halved in range(HALVED):  # where no layer alone can take a step, a smaller one is taken
                target = resource - step / 2**halved
                tried = list(self._trials(candidate, resource, target))
                if tried:
                    break
            else:
                break
            trial, candidate = max(tried, key=_merit)
            resource = trial.cost
            steps.append(self._step(len(steps) + 1, target, trial, candidate, [each for each, _ in tried]))
            done = min((dense - resource) / (dense - budget), 1.0)
            self.progress(done, f"step {len(steps)}: {trial.layer} to {trial.choice:.3g}")
        if resource < (1 - self.how.near) * budget:
            candidate, resource, refilled = self._refill(candidate, resource, budget)
            if refilled is not None:
                steps.append(self._step(len(steps) + 1, budget, refilled, candidate, []))
        candidate = candidate.fine_tune(self.how.long_epochs)
        resource = self.table.exact(candidate.trace())
        for _ in range(REPAIRS):  # training moves activations, and with them what some machines take
            if resource > budget:
                tried = list(self._trials(candidate, resource, budget))
                if not tried:
                    break
                trial, candidate = max(tried, key=_merit)
                made = [each for each, _ in tried]
            elif resource < (1 - self.how.near) * budget:
                candidate, resource, refilled = self._refill(candidate, resource, budget)
                if refilled is None:
                    break
                trial, made = refilled, []
            else:
                break
            resource = trial.cost
            steps.append(self._step(len(steps) + 1, budget, trial, candidate, made))
        self.progress(1.0, "fine-tuned")
        return Found("netadapt", candidate, resource, dense, budget, tuple(steps))

    def _trials(self, start: Candidate, resource: float, target: float) -> Iterator[tuple[Trial, Candidate]]:
        """Yield, for each layer that alone can meet ``target``, the network with the most of it that does."""
        now = self.table.network(start.choices)
        for layer in self.space.layers:
            lower = [choice for choice in layer.choices if choice < start.choices[layer.index]]
            best = self._largest(start.choices, layer.index, lower, target * now / resource)
            stride = 1
            while best >= 0:  # what the table tells is verified; where it told too little, more must go
                shrunk = self.space.apply(_with(start.choices, layer.index, lower[best]), start)
                exact = self.table.exact(shrunk.trace())
                if exact <= target:
                    yield self._judge(layer.name, lower[best], shrunk.fine_tune(self.how.short_epochs))
                    break
                best, stride = best - stride, 2 * stride

    def _judge(self, layer: str, choice: float, tuned: Candidate) -> tuple[Trial, Candidate]:
        cost = self.table.exact(tuned.trace())
        return Trial(layer, choice, cost, tuned.accuracy(), tuned.loss()), tuned

    def _largest(self, choices: Sequence[float], index: int, legal: Sequence[float], limit: float) -> int:
        """Return the place of the largest of ``legal``, ascending, that the table puts within ``limit``; -1 for none.

        Found by bisection: a layer is taken not to cost less when more of it is kept.
        """
        low, high = -1, len(legal) - 1
        while low < high:
            middle = (low + high + 1) // 2
            if self.table.network(_with(choices, index, legal[middle])) <= limit * (1 + 1e-12):
                low = middle
            else:
                high = middle - 1
        return low

    def _refill(self, start: Candidate, resource: float, budget: float) -> tuple[Candidate, float, Trial | None]:
        """Return the network with one layer larger, or one larger and one smaller, and more of the budget spent.

        One layer alone is given something back if that comes near enough. What is given back has its trained weights.
        """
        scale = self.table.network(start.choices) / resource
        floor = (1 - self.how.near) * budget
        alone: list[tuple[float, str, tuple[float, ...]]] = []
        paired: list[tuple[float, str, tuple[float, ...]]] = []
        for grown in self.space.layers:
            higher = [choice for choice in grown.choices if choice > start.choices[grown.index]]
            for choices in (start.choices, *self._smaller(start.choices, grown.index)):
                best = self._largest(choices, grown.index, higher, budget * scale)
                if best >= 0:
                    found_one = _with(choices, grown.index, higher[best])
                    told = self.table.network(found_one) / scale
                    (alone if choices is start.choices else paired).append((told, grown.name, found_one))
        found: tuple[Trial, Candidate] | None = None
        for group in (alone, paired):
            for told, name, choices in sorted(group, reverse=True)[:TRIED_BACK]:
                if found is not None and (found[0].cost >= floor or told <= found[0].cost):
                    break
                grown_back = self.space.apply(choices, start)
                if not resource < self.table.exact(grown_back.trace()) <= budget:
                    continue
                index = next(layer.index for layer in self.space.layers if layer.name == name)
                judged = self._judge(name, choices[index], grown_back.fine_tune(self.how.short_epochs))
                if found is None or judged[0].cost > found[0].cost:
                    found = judged
        return (start, resource, None) if found is None else (found[1], found[0].cost, found[0])

    def _smaller(self, choices: Sequence[float], grown: int) -> Iterator[tuple[float, ...]]:
        """Yield the choices with another layer than ``grown`` cut, by as little as the table notices, and further."""
        for layer in self.space.layers:
            if layer.index == grown:
                continue
            cut = tuple(choices)
            for _ in range(CUTS):
                lower = [choice for choice in layer.choices if choice < cut[layer.index]]
                best = self._largest(cut, layer.index, lower, self.table.network(cut) * (1 - 1e-6))
                if best < 0:
                    break
                cut = _with(cut, layer.index, lower[best])
                yield cut

    @staticmethod
    def _step(number: int, target: float, kept: Trial, candidate: Candidate, tried: Sequence[Trial]) -> Step:
        return Step(number, target, kept.layer, candidate.choices, kept.cost, kept.accuracy, kept.loss, tuple(tried))


def _merit(tried: tuple[Trial, Candidate]) -> tuple[float, float, float]:
    trial, _ = tried
    return trial.accuracy, -trial.loss, -trial.cost


def _with(choices: Sequence[float], index: int, choice: float) -> tuple[float, ...]:
    return (*choices[:index], choice, *choices[index + 1 :])
