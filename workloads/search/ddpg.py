"""The agent of AMC: deep deterministic policy gradient (DDPG) for one number between 0 and 1 a step.

An actor proposes the action of a state; a critic values state and action; both have a slow copy, the target, from
which the next state's value is taken. Noise is truncated normal noise around the actor's action and dies out with the
episodes. Every transition of an episode carries the reward of its end, less a moving average of rewards.
Sources: He et al., AMC, ECCV 2018, section 3; Lillicrap et al., ICLR 2016 (DDPG). Numbers: `Published`.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass, field
from statistics import NormalDist
from typing import NamedTuple

import numpy as np
import torch
from torch import nn

from ..training.loop import seed_torch

NORMAL = NormalDist()


@dataclass(frozen=True)
class Published:
    """The numbers of AMC's agent. ``replay``: transitions that are remembered, for each layer of an episode.

    Source: the paper's public code, github.com/mit-han-lab/amc, defaults of amc_search.py and, for ``baseline_rate``
    (``moving_alpha``), of lib/agent.py; its noise decays by episode, its warm-up draws actions evenly.
    """

    hidden: int = 300
    actor_rate: float = 1e-4
    critic_rate: float = 1e-3
    tau: float = 0.01
    discount: float = 1.0
    batch: int = 64
    replay: int = 100
    sigma: float = 0.5
    sigma_decay: float = 0.95
    warm_up: int = 100
    baseline_rate: float = 0.5

    def sigma_of(self, episode: int) -> float:
        """Return the noise's standard deviation in an episode, from 0: it decays from the end of the warm-up on."""
        return self.sigma * self.sigma_decay ** max(episode - self.warm_up, 0)


class Actor(nn.Module):
    """The policy: features to one action in (0, 1), by two hidden layers and a sigmoid."""

    def __init__(self, features: int, hidden: int) -> None:
        super().__init__()
        self.fc1 = nn.Linear(features, hidden)
        self.fc2 = nn.Linear(hidden, hidden)
        self.fc3 = nn.Linear(hidden, 1)

    def forward(self, states: torch.Tensor) -> torch.Tensor:
        """Return actions (batch, 1) of states (batch, features)."""
        x = torch.relu(self.fc1(states))
        return torch.sigmoid(self.fc3(torch.relu(self.fc2(x))))


class Critic(nn.Module):
    """The value of an action in a state, by two hidden layers; state and action have a first layer each, summed."""

    def __init__(self, features: int, hidden: int) -> None:
        super().__init__()
        self.of_state = nn.Linear(features, hidden)
        self.of_action = nn.Linear(1, hidden)
        self.fc2 = nn.Linear(hidden, hidden)
        self.fc3 = nn.Linear(hidden, 1)

    def forward(self, states: torch.Tensor, actions: torch.Tensor) -> torch.Tensor:
        """Return values (batch, 1) of states (batch, features) and actions (batch, 1)."""
        x = torch.relu(self.of_state(states) + self.of_action(actions))
        values: torch.Tensor = self.fc3(torch.relu(self.fc2(x)))
        return values


class Transitions(NamedTuple):
    """A batch of steps: states and next states (batch, features), the rest (batch, 1).

    ``alive`` is 1 where the episode went on, 0 where the step was its last: no value follows it.
    """

    states: np.ndarray
    actions: np.ndarray
    rewards: np.ndarray
    next_states: np.ndarray
    alive: np.ndarray


class Replay:
    """The last ``capacity`` transitions; a full memory forgets its oldest one for each new one."""

    def __init__(self, capacity: int, features: int) -> None:
        shapes = (features, 1, 1, features, 1)
        self._rows = Transitions(*(np.zeros((capacity, width), np.float32) for width in shapes))
        self._added = 0

    def __len__(self) -> int:
        return min(self._added, len(self._rows.states))

    def append(self, state: np.ndarray, action: float, reward: float, next_state: np.ndarray, last: bool) -> None:
        """Remember one step; ``last`` says that it ended its episode."""
        row = self._added % len(self._rows.states)
        values = (state, action, reward, next_state, 0.0 if last else 1.0)
        for rows, value in zip(self._rows, values, strict=True):
            rows[row] = value
        self._added += 1

    def sample(self, count: int, generator: np.random.Generator) -> Transitions:
        """Return ``count`` different transitions, all of them where there are no more; copies."""
        chosen = generator.choice(len(self), min(count, len(self)), replace=False)
        return Transitions(*(rows[chosen] for rows in self._rows))


@dataclass
class Baseline:
    """The moving average of mean rewards that is subtracted from rewards; the first mean is where it starts."""

    rate: float
    value: float = field(default=float("nan"))

    def follow(self, mean: float) -> float:
        """Move towards ``mean`` by ``rate`` of the way, and return where the average then is."""
        self.value = mean if np.isnan(self.value) else self.value + self.rate * (mean - self.value)
        return self.value


def truncated_normal(mean: float, sigma: float, share: float) -> float:
    """Return the point of [0, 1] below which ``share`` of a normal distribution cut to [0, 1] lies.

    With ``share`` uniform in (0, 1) it is a draw of the distribution. ``mean`` is within [0, 1]; with ``sigma`` 0, or
    where a float cannot tell them apart, it is what comes back.
    """
    if not sigma > 0:
        return mean
    low, high = NORMAL.cdf((0 - mean) / sigma), NORMAL.cdf((1 - mean) / sigma)
    place = low + share * (high - low)
    if not 0 < place < 1:
        return mean
    return min(max(mean + sigma * NORMAL.inv_cdf(place), 0.0), 1.0)


def soft_update(target: nn.Module, source: nn.Module, tau: float) -> None:
    """Move each parameter of ``target`` by ``tau`` of its way to that of ``source``."""
    with torch.no_grad():
        for slow, fast in zip(target.parameters(), source.parameters(), strict=True):
            slow.lerp_(fast, tau)


class Agent:
    """Actor, critic, their targets and the replay memory, drawn from ``seed``; it acts, remembers and learns.

    ``features`` is the length of a state, ``layers`` that of an episode. Everything random comes from generators of
    its own: two agents of one seed that see the same rewards act the same.
    """

    def __init__(self, features: int, layers: int, seed: int, numbers: Published | None = None) -> None:
        self.numbers = Published() if numbers is None else numbers
        with torch.random.fork_rng(devices=[]):
            seed_torch(seed)
            self.actor = Actor(features, self.numbers.hidden)
            self.critic = Critic(features, self.numbers.hidden)
        self.target_actor, self.target_critic = copy.deepcopy(self.actor), copy.deepcopy(self.critic)
        self.replay = Replay(self.numbers.replay * layers, features)
        self.baseline = Baseline(self.numbers.baseline_rate)
        self._draws = np.random.default_rng(seed)
        self._of_actor = torch.optim.Adam(self.actor.parameters(), lr=self.numbers.actor_rate, fused=True)
        self._of_critic = torch.optim.Adam(self.critic.parameters(), lr=self.numbers.critic_rate, fused=True)

    def policy(self, state: np.ndarray) -> float:
        """Return the actor's action, without noise."""
        with torch.no_grad():
            return float(self.actor(torch.from_numpy(state.astype(np.float32))[None]))

    def act(self, state: np.ndarray, episode: int) -> float:
        """Return the action in [0, 1] to try: any during the warm-up, then the actor's with noise."""
        share = float(self._draws.random())
        if episode < self.numbers.warm_up:
            return share
        return truncated_normal(self.policy(state), self.numbers.sigma_of(episode), share)

    def learn(self) -> None:
        """Take one step of critic and actor on a batch of the memory, and let the targets follow."""
        self.step(self.replay.sample(self.numbers.batch, self._draws))

    def step(self, batch: Transitions) -> None:
        """Take one step of critic and actor on ``batch``: towards `values_of` it, and up the critic."""
        wanted = self.values_of(batch)
        states, actions = torch.from_numpy(batch.states), torch.from_numpy(batch.actions)
        with torch.enable_grad():
            self._of_critic.zero_grad()
            torch.autograd.backward(nn.functional.mse_loss(self.critic(states, actions), wanted))
            self._of_critic.step()
            self._of_actor.zero_grad()
            torch.autograd.backward(-self.critic(states, self.actor(states)).mean())
            self._of_actor.step()
        soft_update(self.target_actor, self.actor, self.numbers.tau)
        soft_update(self.target_critic, self.critic, self.numbers.tau)

    def values_of(self, batch: Transitions) -> torch.Tensor:
        """Return what the critic should say (batch, 1): reward less baseline, and the target's value of what follows.

        The baseline follows the batch's mean reward first.
        """
        rewards = torch.from_numpy(batch.rewards - np.float32(self.baseline.follow(float(batch.rewards.mean()))))
        with torch.no_grad():
            following = torch.from_numpy(batch.next_states)
            values: torch.Tensor = self.target_critic(following, self.target_actor(following))
        return rewards + self.numbers.discount * torch.from_numpy(batch.alive) * values
