"""AMC: an agent learns how much of each layer to keep, from the accuracy that is left and what a machine simulates.

An episode walks through the layers: the agent sees a layer's features and names the share of it to keep; where that
would leave too little for the layers behind, were they pruned as far as they may be, the share is cut down (the wall).
At the end the network is pruned, measured without training, and every step is rewarded by the error. In the place of
the paper's FLOPs stands the cost of a trace: looked up layer by layer on the way, simulated whole at the end.
Source: He et al., AMC: AutoML for Model Compression and Acceleration on Mobile Devices, ECCV 2018, arXiv 1802.03494.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any

import msgspec
import numpy as np

from ..errors import InputError
from ..extras import need
from .found import Found, Progress, Step
from .space import Candidate, Cost, Space
from .table import Table

if TYPE_CHECKING:
    from .ddpg import Agent

EPISODES = 400  # 100 of them at random: the paper's
FLOORS = {"channels": 0.2, "sparsity": 0.02, "nm": 0.0}
"""The least that is kept of a layer, by kind. 0.2: the public code's. A machine that skips single weights pays off
where far fewer are left: 0.02 is ours. Of N:M the smallest choice is the floor."""

Reward = Callable[[float, float], float]
"""(error, cost) -> reward."""
REWARDS: dict[str, Reward] = {
    "error": lambda error, cost: -error,
    "error-log-cost": lambda error, cost: -error * math.log(cost),
}
"""By name: for the best network within a budget, and for the smallest one that errs no more."""
REPAIRS = 6  # times an episode's wall is moved before it is given up
TUNINGS = 8  # networks that are fine-tuned, the first that costs what it may being the last
NEAR = 0.01  # of the target: what may be left unspent although the wall stood in the way
FEW = 16  # choices of a layer, as of N:M, of which a machine may not run the smallest fastest: all are looked at


class Episode(msgspec.Struct, frozen=True):
    """One walk through the layers, and what came of it.

    ``choices``: of all layers. ``cost``: simulated. ``accuracy``: on the validation samples, without fine-tuning.
    ``within``: whether the cost is no more than the target.
    """

    choices: tuple[float, ...]
    cost: float
    accuracy: float
    reward: float
    within: bool


@dataclass(frozen=True, eq=False)
class AmcFound(Found):
    """What AMC found. ``episodes``: all of them, in order; ``steps`` are those that were the best so far."""

    episodes: tuple[Episode, ...] = ()
    before_tuning: float = math.nan
    """The validation accuracy of the best policy before it was fine-tuned."""

    def summary(self) -> dict[str, Any]:
        """Return what was found as plain data, every episode and its rewards with it."""
        return super().summary() | {
            "before_tuning": self.before_tuning,
            "episodes": msgspec.to_builtins(self.episodes),
        }


@dataclass(frozen=True, eq=False)
class Walk:
    """The layers' states (layers, features), the actions that were asked for, and the choices that the wall left."""

    states: np.ndarray
    actions: tuple[float, ...]
    choices: tuple[float, ...]


Policy = Callable[[int, np.ndarray], float]
"""(index of the layer, its state) -> the action, from 0 to 1."""


def repeated(walked: Walk) -> Policy:
    """Return the policy of the same actions once more."""
    return lambda index, state: walked.actions[index]


class Road:
    """What an agent walks: the layers of a space with their features, the table of costs, and the wall.

    ``legal``: by layer, its choices from the floor up to the largest one that the budget (in the table's terms) allows,
    were all other layers as lean as they may be. Actions from 0 to 1 are places among them: a tight budget would else
    leave the agent a few hundredths of its range. Where all of a layer fits, its choices are evenly spaced and the
    floor is 0, an action is the share itself, as published. ``leanest``: by layer, the choice that costs least.
    """

    def __init__(self, space: Space, table: Table, floor: float, budget: float) -> None:
        self.space, self.table = space, table
        self.legal = [[c for c in layer.choices if c >= min(floor, 1.0) - 1e-12] for layer in space.layers]
        self.leanest = tuple(self._leanest(index) for index in range(len(space.layers)))
        ceilings = [self._highest(index, self.leanest, budget, legal[-1]) for index, legal in enumerate(self.legal)]
        self.legal = [[c for c in legal if c <= most] for legal, most in zip(self.legal, ceilings, strict=True)]
        ones = [1.0] * len(space.layers)
        self._dense = table.network(ones)
        self._own = [math.fsum(table.layer(name, ones) for name in layer.traced) for layer in space.layers]
        self._static = _scaled(
            [
                [layer.index, layer.type == "linear", layer.in_channels, layer.out_channels, layer.stride,
                 layer.kernel[0] * layer.kernel[1], layer.weights, own]
                for layer, own in zip(space.layers, self._own, strict=True)
            ]
        )  # fmt: skip

    def __len__(self) -> int:
        return len(self.space.layers)

    @property
    def features(self) -> int:
        """Return how many numbers a state has: 11."""
        return len(self.state(()))

    def state(self, taken: Sequence[float]) -> np.ndarray:
        """Return the features of the layer that comes after the choices ``taken``, all within [0, 1].

        Index, linear or not, channels in and out, stride, kernel, weights and cost of the layer when dense, each scaled
        over the layers; then the share of the whole cost that was saved so far, the share that lies in the layers
        behind, and the last choice.
        """
        now = len(taken)
        saved = 1 - self.table.network([*taken, *[1.0] * (len(self) - now)]) / self._dense
        rest = math.fsum(self._own[now + 1 :]) / self._dense
        last = taken[-1] if taken else 1.0
        return np.array([*self._static[now], saved, rest, last], np.float32)

    def wall(self, action: float, taken: Sequence[float], budget: float) -> float:
        """Return the choice that ``action`` asks for, or the largest below that leaves room for the layers behind.

        As the table has it; the leanest choice where nothing fits.
        """
        now = len(taken)
        legal = self.legal[now]
        asked = legal[min(max(round(action * (len(legal) - 1)), 0), len(legal) - 1)]
        return self._highest(now, [*taken, asked, *self.leanest[now + 1 :]], budget, asked)

    def _highest(self, index: int, choices: Sequence[float], budget: float, most: float) -> float:
        """Return the largest choice of layer ``index`` up to ``most`` that fits with those of the others.

        Where there are many, by bisection: more of a layer is then taken not to cost less. The leanest if none fits.
        """

        def fits(choice: float) -> bool:
            return self.table.network([*choices[:index], choice, *choices[index + 1 :]]) <= budget * (1 + 1e-9)

        legal = [choice for choice in self.legal[index] if choice <= most]
        if len(legal) <= FEW:
            return next((choice for choice in reversed(legal) if fits(choice)), self.leanest[index])
        if fits(most):
            return most
        low, high = 0, len(legal) - 1  # the floor is taken as given; the last one does not fit
        while high - low > 1:
            middle = (low + high) // 2
            low, high = (middle, high) if fits(legal[middle]) else (low, middle)
        return legal[low]

    def _leanest(self, index: int) -> float:
        """Return the choice of layer ``index`` that costs least: its smallest one, unless there are few to look at."""
        legal = self.legal[index]
        ones = [1.0] * len(self.space.layers)
        if len(legal) > FEW:
            return legal[0]
        return min(legal, key=lambda choice: self.table.network([*ones[:index], choice, *ones[index + 1 :]]))

    def walk(self, act: Policy, budget: float) -> Walk:
        """Return the walk of a policy ``act``, (index, state) -> action, under a budget in the table's terms."""
        states: list[np.ndarray] = []
        actions: list[float] = []
        taken: list[float] = []
        for index in range(len(self)):
            states.append(self.state(taken))
            actions.append(act(index, states[-1]))
            taken.append(self.wall(actions[-1], taken, budget))
        return Walk(np.stack(states), tuple(actions), tuple(taken))


class Judge:
    """Walks within a target: the table's budget follows what is simulated whole, and walks that miss it are redone.

    ``share``: the target, of the cost of the dense network. ``drift``: how much more the last network cost than the
    table says. Costs that depend on activations are told nearly by a table; with its drift the wall stands where it
    should.
    """

    def __init__(self, space: Space, table: Table, share: float, floor: float) -> None:
        dense = space.dense
        self.table, self.space = table, space
        self.dense = table.exact(dense.trace())
        if not self.dense > 0:
            raise InputError("the cost of the dense network must be above 0, and is 0; choose another cost")
        self.target = share * self.dense
        self.drift = self.dense / table.network(dense.choices)
        self.road = Road(space, table, floor, self.target / self.drift)
        self._costs: dict[tuple[float, ...], float] = {}
        self._last = dense  # one is kept, the one that is costed and then measured

    def within(self, cost: float) -> bool:
        """Tell whether a cost is no more than the target."""
        return cost <= self.target * (1 + 1e-9)

    def cost(self, choices: tuple[float, ...]) -> float:
        """Return the simulated cost of these choices, not fine-tuned."""
        if choices not in self._costs:
            self._costs[choices] = self.table.exact(self.candidate(choices).trace())
        return self._costs[choices]

    def candidate(self, choices: tuple[float, ...]) -> Candidate:
        """Return the network of these choices, not fine-tuned, batch-norm statistics recomputed where it has any."""
        if choices != self._last.choices:
            self._last = self.space.apply(choices).recalibrated()
        return self._last

    def episode(self, walked: Walk, reward: Reward) -> tuple[Episode, float]:
        """Return what came of a walk, and the loss on the validation samples, in nats."""
        candidate, cost = self.candidate(walked.choices), self.cost(walked.choices)
        accuracy, within = candidate.accuracy(), self.within(cost)
        given = reward(1 - accuracy if within else 1.0, cost)  # over the target it is as if it were never right
        return Episode(walked.choices, cost, accuracy, given, within), candidate.loss()

    def walk(self, act: Policy, margin: float = 1.0) -> Walk:
        """Return a walk whose network costs at most ``margin`` of the target, if the same actions lead to one.

        A walk whose network costs more, or less although the wall stood in its way, is walked again with the same
        actions and the wall where the simulated cost puts it.
        """
        limit = self.target * margin
        budget = limit / self.drift
        low, high = 0.0, math.inf  # budgets in the table's terms that were seen to be low enough, and too high
        walked = self.road.walk(act, budget)
        best: tuple[float, Walk] | None = None
        for _ in range(REPAIRS):
            cost = self.cost(walked.choices)
            self.drift = max(cost / self.table.network(walked.choices), 1e-12)
            if cost <= limit * (1 + 1e-9):
                low = budget
                best = (cost, walked) if best is None or cost > best[0] else best
                if cost >= (1 - NEAR) * limit:
                    break
            else:
                high = budget
            budget = limit / self.drift
            if not low < budget < high:
                budget = (low + high) / 2
            again = self.road.walk(repeated(walked), budget) if budget < math.inf else walked
            if again.choices == walked.choices and cost <= limit * (1 + 1e-9):
                break  # the wall does not stand in the way
            walked = again
        return walked if best is None else best[1]


def run_amc(
    space: Space,
    cost: Cost,
    target: float = 1.0,
    *,
    episodes: int = EPISODES,
    seed: int = 0,
    reward: str = "error",
    floor: float | None = None,
    epochs: int = 10,
    warm_up: int | None = None,
    table: Table | None = None,
    progress: Progress = lambda share, what: None,
) -> AmcFound:
    """Return the best network of ``episodes`` that costs at most the share ``target`` of the dense one, fine-tuned.

    ``epochs``: of fine-tuning, at the end alone; where it makes the network cost more than the target, a smaller one is
    tuned instead. ``seed``: of the agent; the same one finds the same network. ``reward``: "error" for the most
    accurate network within the target, "error-log-cost" to weigh cost too, which must then be above 1. ``floor``: the
    least share that is kept of a layer, see `FLOORS`. ``warm_up``: how many episodes are random, a quarter of them by
    default. ``table``: one that was filled before, of the same space and cost. The best episode is that of the highest
    reward, of equals the one of the lowest loss. Raises InputError.
    """
    need("train", "torch")
    from .ddpg import Agent, Published

    warm_up = episodes // 4 if warm_up is None else warm_up
    if not 0 <= warm_up < episodes:
        raise InputError(f"episodes must be more than the {warm_up} random ones, not {episodes}")
    if reward not in REWARDS:
        raise InputError(f"reward must be one of {', '.join(REWARDS)}, not {reward!r}")
    if not 0 < target <= 1:
        raise InputError(f"target must be a share of the dense network's cost, above 0 and at most 1, not {target}")
    if floor is not None and not 0 <= floor <= 1:
        raise InputError(f"floor must be a share between 0 and 1, not {floor}")
    if epochs < 0:
        raise InputError(f"epochs must be at least 0, not {epochs}")
    table = Table(space, cost) if table is None else table
    judge = Judge(space, table, target, FLOORS[space.kind] if floor is None else floor)
    _check(judge, reward)
    agent = Agent(judge.road.features, len(judge.road), seed, replace(Published(), warm_up=warm_up))
    history: list[Episode] = []
    steps: list[Step] = []
    best: tuple[tuple[float, float], Walk] | None = None
    for number in range(episodes):
        walked = judge.walk(partial(_act, agent, number))
        found, loss = judge.episode(walked, REWARDS[reward])
        history.append(found)
        if found.within and (best is None or (found.reward, -loss) > best[0]):
            best = (found.reward, -loss), walked
            steps.append(Step(number + 1, judge.target, "", walked.choices, found.cost, found.accuracy, loss))
        for index, (state, action) in enumerate(zip(walked.states, walked.actions, strict=True)):
            after = min(index + 1, len(walked.states) - 1)
            agent.replay.append(state, action, found.reward, walked.states[after], last=after == index)
            if number >= warm_up:
                agent.learn()
        share = found.cost / judge.dense
        progress((number + 1) / episodes, f"episode {number + 1}: {found.accuracy:.2%} at {share:.3f}")
    if best is None:
        raise InputError(
            f"some policy must cost at most {judge.target:.6g}, and none of {episodes} episodes does; raise the target"
        )
    tuned = _tuned(judge, best[1], epochs)
    return AmcFound(
        method="amc",
        candidate=tuned,
        cost=table.exact(tuned.trace()),
        dense_cost=judge.dense,
        target=judge.target,
        steps=tuple(steps),
        episodes=tuple(history),
        before_tuning=steps[-1].accuracy,
    )


def _act(agent: Agent, episode: int, index: int, state: np.ndarray) -> float:
    return agent.act(state, episode)


def _tuned(judge: Judge, best: Walk, epochs: int) -> Candidate:
    """Return the best policy's network, fine-tuned; where training has made it cost too much, a smaller one, tuned.

    Smaller: the same actions under a lower wall, which is sought by bisection between too high and too low.
    """
    tuned = judge.candidate(best.choices).fine_tune(epochs)
    over = judge.table.exact(tuned.trace()) / judge.target
    high, low, margin = 1.0, 0.0, 1 / over
    found: tuple[float, Candidate] | None = (over, tuned) if over <= 1 + 1e-9 else None
    for _ in range(TUNINGS if found is None else 0):
        choices = judge.walk(repeated(best), margin).choices
        tuned = judge.candidate(choices).fine_tune(epochs)
        over = judge.table.exact(tuned.trace()) / judge.target
        if over <= 1 + 1e-9:
            low = margin
            found = max(found or (over, tuned), (over, tuned), key=lambda each: each[0])
            if over >= 1 - NEAR:
                break
        else:
            high = margin
        margin = (low + high) / 2 if low else margin / over
    return tuned if found is None else found[1]


def _check(judge: Judge, reward: str) -> None:
    """Raise InputError where no walk can end within the target, or the reward has no logarithm to go by."""
    least = judge.cost(judge.road.leanest)
    if not judge.within(least):
        raise InputError(
            f"target must be at least {least / judge.dense:.4g}, the share of its cost that the leanest network has, "
            f"not {judge.target / judge.dense:.4g}; raise it or lower the floor"
        )
    if reward == "error-log-cost" and not least > 1:
        raise InputError(f"reward error-log-cost needs costs above 1, such as cycles, not {least:.6g}; use error")


def _scaled(columns: Sequence[Sequence[float]]) -> np.ndarray:
    """Return each column from 0 to 1 over the rows; a constant one is 0."""
    values = np.array(columns, np.float64)
    low, high = values.min(axis=0), values.max(axis=0)
    scaled: np.ndarray = (values - low) / np.where(high > low, high - low, 1.0)
    return scaled
