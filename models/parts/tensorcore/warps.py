"""Warps and sub-cores as processes: the readable form of `parts.tensorcore.instruction`.

Nothing here knows a recurrence: a warp offers its next instruction when its register port and its accumulators let it,
a sub-core takes what its warps offer in turn. Time runs in ticks.
"""

from __future__ import annotations

from collections.abc import Generator, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import simpy

from ..waiting import pass_time
from .config import Config
from .mma import Instruction, Schedule, Ticks

if TYPE_CHECKING:
    from ....simulator.timeline import Timeline

Process = Generator[simpy.Event, Any, None]


def run(
    config: Config,
    ticks: Ticks,
    programs: Sequence[Sequence[Instruction]],
    rounds: int,
    timeline: Timeline | None = None,
) -> Schedule:
    """Return when each instruction of ``programs`` issues, ``rounds`` times over."""
    env = simpy.Environment()
    cores = [SubCore(env, ticks, f"core{number}", timeline) for number in range(config.tensor_cores_per_sm)]
    warps = [Warp(env, ticks, f"warp{number}", program, rounds) for number, program in enumerate(programs)]
    for number, warp in enumerate(warps):
        cores[number % len(cores)].warps.append(warp)
        env.process(warp.run())
    for core in cores:
        env.process(core.run(rounds))
    env.run()
    issues = tuple(np.array(warp.issues, np.int64).reshape(rounds, len(warp.program)) for warp in warps)
    end = max((core.end for core in cores), default=0)
    if timeline is not None:
        timeline.advance(-(-end // ticks.per_cycle))
    return Schedule(ticks.per_cycle, issues, end)


class Warp:
    """A program that is run over and over; ``offer`` holds its next instruction once it may issue."""

    def __init__(
        self, env: simpy.Environment, ticks: Ticks, name: str, program: Sequence[Instruction], rounds: int
    ) -> None:
        self.env, self.ticks, self.name, self.program, self.rounds = env, ticks, name, program, rounds
        self.offer = simpy.Store(env, capacity=1)
        self.issued = env.event()
        self.issues: list[int] = []
        self.results: dict[int, simpy.Event] = {}  # of the last instruction on each accumulator register
        self.writer: dict[int, int] = {}  # its number

    def run(self) -> Process:
        """Offer each instruction when it is ready, and the next one when that has issued."""
        for _ in range(self.rounds):
            for instruction in self.program:
                yield from self.accumulators(instruction.register)
                yield self.offer.put(instruction)
                yield self.issued
                self.issued = self.env.event()
                yield self.env.timeout(self.ticks.spacing)  # its operands pass the register port

    def accumulators(self, register: int) -> Process:
        """Wait for the results in ``register``, and for them to pass the port behind what has issued since."""
        if register in self.results:
            since = len(self.issues) - self.writer[register] - 1
            returned = yield self.results[register]
            yield self.env.timeout(max(0, returned + since * self.ticks.spacing - int(self.env.now)))

    def issue(self, instruction: Instruction, results: simpy.Event) -> None:
        """Note that ``instruction`` has issued now and will give ``results``."""
        self.results[instruction.register] = results
        self.writer[instruction.register] = len(self.issues)
        self.issues.append(int(self.env.now))
        self.issued.succeed()


class SubCore:
    """A tensor core and its dispatch port: one instruction of each warp in turn."""

    def __init__(self, env: simpy.Environment, ticks: Ticks, name: str, timeline: Timeline | None) -> None:
        self.env, self.ticks, self.name, self.timeline = env, ticks, name, timeline
        self.warps: list[Warp] = []
        self.end = 0

    def run(self, rounds: int) -> Process:
        """Issue all rounds; close the loop after each."""
        longest = max((len(warp.program) for warp in self.warps), default=0)
        for _ in range(rounds):
            for place in range(longest):
                for warp in self.warps:
                    if place < len(warp.program):
                        instruction = yield warp.offer.get()
                        warp.issue(instruction, self.env.process(self.multiply(warp, instruction)))
                        yield from self.step(self.name, f"{warp.name} {instruction}", self.ticks.issue(instruction))
            yield from self.step(self.name, "close the loop", self.ticks.overhead)

    def multiply(self, warp: Warp, instruction: Instruction) -> Generator[simpy.Event, Any, int]:
        """Return the tick in which the results of ``instruction``, issued now, come back."""
        track = f"{warp.name} r{instruction.register}"
        yield from self.step(track, str(instruction), self.ticks.latency(instruction))
        self.end = max(self.end, int(self.env.now))
        return int(self.env.now)

    def step(self, track: str, name: str, ticks: int) -> Process:
        """Pass ``ticks`` and note them in the timeline, in whole cycles."""
        return pass_time(self.env, self.timeline, track, name, ticks, self.ticks.per_cycle)
