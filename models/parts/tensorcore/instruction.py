"""One SM at the level of instructions: warps on sub-cores, an issue interval, a latency, chains of accumulators.

The machine, in seven rules. A sub-core is a tensor core with its own dispatch port; sub-cores do not meet.

1. Warp w runs on sub-core w mod tensor_cores_per_sm.
2. A warp runs its program, a list of instructions, once a *round*. Its instructions issue in order.
3. A sub-core takes turns: one instruction of each warp, then the next of each, until all have run their programs; a
   warp that is not ready holds up those behind it.
4. An instruction multiplies for c = m * n * k * share / rate cycles (share: 1/2 of the logical k if sparse) and keeps
   the sub-core for II = max(c, issue_min_cycles or sparse_issue_min_cycles).
5. Its results come back L = latency_base_cycles + latency_per_cycle * c after the issue.
6. A warp's register port passes an instruction every instruction_spacing_cycles: two issue no closer; and
   accumulators reach the instruction that adds to the same register only behind those issued between the two.
7. After each round the sub-core closes its loop for loop_overhead_cycles and issues nothing.

So, with t the issue time of a warp's instruction p, q the last before it on the same register,

    t[p] = max( port free,  t[p-1] + spacing,  t[q] + L[q] + spacing * (p - q - 1) ).

For W warps that loop over I instructions of one kind, each on a register of its own, every cycle of these waits is one
round long or a round of issues, and the greatest of them is the time of a round:

    T = max( ceil(W / 4) * I * II + overhead,  L + spacing * (I - 1) ).

`schedule` runs any mix for so many rounds, by these recurrences or (engine "event") by the processes of
`parts.tensorcore.warps`. Times are whole numbers of a tick, in which all constants are whole: no rounding. Fitted: the
constants of rules 4 to 7; on what is said in the configuration's sources. Assumed: rules 3, 6 and 7 are what makes this
T, not what is known of the hardware.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import TYPE_CHECKING

import numpy as np
from numba import njit

from ....workloads.errors import InputError
from .mma import Instruction, Schedule, Ticks, exact, time_instruction

if TYPE_CHECKING:
    from ....simulator.machine import Machine
    from ....simulator.timeline import Timeline

ENGINES = ("fast", "event")


@dataclass(frozen=True)
class Throughput:
    """What one kind of instruction reaches in a loop.

    ``latency_cycles``: from the issue of one instruction of one warp to its results. ``fma_per_clk_per_sm``: on
    logical k, in the steady state. ``round_cycles``: of one iteration of all warps. ``issue_cycles``: the issue
    interval. ``bound``: "issue" or "latency", whichever sets ``round_cycles``.
    """

    latency_cycles: float
    fma_per_clk_per_sm: float
    round_cycles: float
    issue_cycles: float
    bound: str


def instruction_throughput(
    machine: Machine,
    shape: Sequence[int] = (16, 8, 32),
    dtype: str = "fp16",
    accumulate: str = "fp32",
    sparse: bool = True,
    warps: int = 8,
    ilp: int = 2,
) -> Throughput:
    """Return latency and steady throughput of ``warps`` warps that each loop over ``ilp`` independent instructions.

    Each instruction adds to the accumulators that it wrote an iteration before. Raises InputError for an instruction
    that the machine has not, or counts below 1.
    """
    for name, value in (("warps", warps), ("ilp", ilp)):
        if not isinstance(value, int) or isinstance(value, bool) or value < 1:
            raise InputError(f"{name} must be a whole number of at least 1, not {value!r}")
    program = [Instruction(_triple(shape), dtype, accumulate, sparse, register) for register in range(ilp)]
    timing = time_instruction(machine, program[0])
    period = steady_round(machine, [program] * warps)
    busiest = -(-warps // machine.config.tensor_cores_per_sm)
    issuing = busiest * ilp * timing.issue + exact(machine.config.loop_overhead_cycles)
    return Throughput(
        latency_cycles=float(timing.latency),
        fma_per_clk_per_sm=float(warps * ilp * timing.fma / period),
        round_cycles=float(period),
        issue_cycles=float(timing.issue),
        bound="issue" if period == issuing else "latency",
    )


def schedule(
    machine: Machine,
    programs: Sequence[Sequence[Instruction]],
    rounds: int = 1,
    engine: str = "fast",
    timeline: Timeline | None = None,
) -> Schedule:
    """Return when each instruction issues: warp w runs ``programs[w]``, ``rounds`` times over.

    ``engine``: "fast" solves the recurrences, "event" runs a process a warp and a sub-core; they agree exactly.
    ``timeline``: filled by the event engine, in cycles rounded down: a track a sub-core, with what it issues, and one a
    warp and accumulator, with what is on its way there.
    Raises InputError for an instruction that the machine has not, more warps than an SM holds, rounds below 1, or a
    timeline without the event engine.
    """
    if engine not in ENGINES:
        raise InputError(f"engine must be {' or '.join(ENGINES)}, not {engine!r}")
    if timeline is not None and engine != "event":
        raise InputError(f"a timeline needs engine event, not {engine!r}")
    if rounds < 1:
        raise InputError(f"rounds must be at least 1, not {rounds}")
    ticks = Ticks.of(machine, programs)
    if engine == "event":
        from .warps import run

        return run(machine.config, ticks, programs, rounds, timeline)
    issues = [np.zeros((rounds, len(program)), np.int64) for program in programs]
    end = 0
    for core in range(machine.config.tensor_cores_per_sm):
        turns = _turns(programs, range(core, len(programs), machine.config.tensor_cores_per_sm), ticks)
        times = np.zeros((rounds, len(turns.warp)), np.int64)
        _issue(turns.issue, turns.before, turns.spacing, turns.register, turns.wait, ticks.overhead, times)
        if times.size:
            end = max(end, int((times + turns.latency).max()))
        for warp in np.unique(turns.warp):
            issues[warp][:] = times[:, turns.warp == warp]
    return Schedule(ticks.per_cycle, tuple(issues), end)


def steady_round(machine: Machine, programs: Sequence[Sequence[Instruction]]) -> Fraction:
    """Return the cycles that a round takes once the loop has settled, exactly: those of the slowest sub-core.

    A sub-core's waits repeat once the times of a round, relative to its first, are those of an earlier round; all are
    whole ticks within one latency, so that they do. Raises InputError as `schedule` does.
    """
    ticks = Ticks.of(machine, programs)
    slowest = Fraction(0)
    for core in range(machine.config.tensor_cores_per_sm):
        turns = _turns(programs, range(core, len(programs), machine.config.tensor_cores_per_sm), ticks)
        if len(turns.warp):
            slowest = max(slowest, _period(turns, ticks))
    return slowest / ticks.per_cycle


@dataclass(frozen=True, eq=False)
class Turns:
    """A sub-core's round, turn by turn: whose it is, and what it waits for; arrays of int64, one entry a turn.

    ``before``: the turn of the warp's instruction before; ``register``: that of the last on the same register. Turns
    count backwards from the start of a round into the round before: -1 is its last.
    """

    warp: np.ndarray
    issue: np.ndarray
    latency: np.ndarray
    before: np.ndarray
    spacing: np.ndarray
    register: np.ndarray
    wait: np.ndarray


def _turns(programs: Sequence[Sequence[Instruction]], warps: range, ticks: Ticks) -> Turns:
    """Return one round of the sub-core that has ``warps``: an instruction of each in turn (rules 2 and 3)."""
    order = [
        (warp, place)
        for place in range(max((len(programs[warp]) for warp in warps), default=0))
        for warp in warps
        if place < len(programs[warp])
    ]
    turn_of = {key: turn for turn, key in enumerate(order)}
    writers = {
        warp: {i.register: place - len(programs[warp]) for place, i in enumerate(programs[warp])} for warp in warps
    }
    rows = []
    for warp, place in order:
        program = programs[warp]
        instruction, length = program[place], len(program)
        last = writers[warp][instruction.register]
        writers[warp][instruction.register] = place
        rows.append(
            (
                warp,
                ticks.issue(instruction),
                ticks.latency(instruction),
                turn_of[warp, (place - 1) % length] - (len(order) if place == 0 else 0),
                ticks.spacing,
                turn_of[warp, last % length] - (len(order) if last < 0 else 0),
                ticks.latency(program[last]) + ticks.spacing * (place - last - 1),
            )
        )
    return Turns(*np.array(rows, np.int64).reshape(-1, 7).T.copy())


def _period(turns: Turns, ticks: Ticks) -> Fraction:
    """Return the ticks of a round in the steady state."""
    seen: dict[bytes, tuple[int, int]] = {}
    rounds = 8
    while True:
        times = np.zeros((rounds, len(turns.warp)), np.int64)
        _issue(turns.issue, turns.before, turns.spacing, turns.register, turns.wait, ticks.overhead, times)
        seen.clear()
        for number, row in enumerate(times):
            first = int(row[0])
            state = (row - first).tobytes()
            if state in seen:
                earlier, start = seen[state]
                return Fraction(first - start, number - earlier)
            seen[state] = (number, first)
        rounds *= 8


def _triple(shape: Sequence[int]) -> tuple[int, int, int]:
    if len(shape) != 3 or not all(isinstance(size, (int, np.integer)) for size in shape):
        raise InputError(f"shape must be three whole numbers, m, n and k, not {shape!r}")
    return int(shape[0]), int(shape[1]), int(shape[2])


@njit(cache=True)
def _issue(issue, before, spacing, register, wait, overhead, times):  # type: ignore[no-untyped-def]
    rounds, turns = times.shape
    flat = times.reshape(-1)
    free = 0
    for r in range(rounds):
        for s in range(turns):
            now = r * turns + s
            time = free
            place = r * turns + before[s]
            if place >= 0:
                time = max(time, flat[place] + spacing[s])
            place = r * turns + register[s]
            if place >= 0:
                time = max(time, flat[place] + wait[s])
            flat[now] = time
            free = time + issue[s]
        free += overhead
