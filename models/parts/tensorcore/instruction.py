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

import math
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import TYPE_CHECKING

import numpy as np
from numba import njit

from ....workloads.errors import InputError
from .config import ACCUMULATES, Config

if TYPE_CHECKING:
    from ....simulator.machine import Machine
    from ....simulator.timeline import Timeline

# Shapes (m, n, k) by dtype. Source: NVIDIA, PTX ISA, mma and mma.sp.
SHAPES = {
    "fp16": ((16, 8, 8), (16, 8, 16)),
    "bf16": ((16, 8, 8), (16, 8, 16)),
    "tf32": ((16, 8, 4), (16, 8, 8)),
    "int8": ((8, 8, 16), (16, 8, 16), (16, 8, 32)),
    "int4": ((8, 8, 32), (16, 8, 32), (16, 8, 64)),
    "b1": ((8, 8, 128), (16, 8, 128), (16, 8, 256)),
}
SPARSE_SHAPES = {
    "fp16": ((16, 8, 16), (16, 8, 32)),
    "bf16": ((16, 8, 16), (16, 8, 32)),
    "tf32": ((16, 8, 8), (16, 8, 16)),
    "int8": ((16, 8, 32), (16, 8, 64)),
    "int4": ((16, 8, 64), (16, 8, 128)),
}
KEPT = Fraction(1, 2)  # 2:4, 1:2 and pairwise 4:8 alike
METADATA_GROUP = {"tf32": 2, "int4": 8}  # logical k for which a nibble of metadata stands; 4 elsewhere
MOST_WARPS = 64
ENGINES = ("fast", "event")


@dataclass(frozen=True)
class Instruction:
    """An mma (or, if ``sparse``, mma.sp) of a warp: ``shape`` is (m, n, k), adding to accumulator ``register``."""

    shape: tuple[int, int, int]
    dtype: str = "fp16"
    accumulate: str = "fp32"
    sparse: bool = False
    register: int = 0

    def __str__(self) -> str:
        m, n, k = self.shape
        return f"mma{'.sp' * self.sparse} m{m}n{n}k{k} {self.dtype}, {self.accumulate}"


@dataclass(frozen=True)
class Timing:
    """What an instruction takes, in cycles, exactly: of multiplying (c), of the sub-core (II), until its results (L).

    ``fma``: multiply-adds on logical k. ``metadata_bits``: positions that the warp brings, 0 where dense.
    """

    multiply: Fraction
    issue: Fraction
    latency: Fraction
    fma: int
    metadata_bits: int


@dataclass(frozen=True, eq=False)
class Schedule:
    """When instructions issued: for each warp (rounds, program length), in ticks; ``end`` is the last result's tick."""

    ticks_per_cycle: int
    issues: tuple[np.ndarray, ...]
    end: int

    @property
    def cycles(self) -> float:
        """Return the time from the first issue to the last result, in cycles."""
        return self.end / self.ticks_per_cycle


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
    issuing = busiest * ilp * timing.issue + _exact(machine.config.loop_overhead_cycles)
    return Throughput(
        latency_cycles=float(timing.latency),
        fma_per_clk_per_sm=float(warps * ilp * timing.fma / period),
        round_cycles=float(period),
        issue_cycles=float(timing.issue),
        bound="issue" if period == issuing else "latency",
    )


def time_instruction(machine: Machine, instruction: Instruction) -> Timing:
    """Return what ``instruction`` takes on ``machine``. Raises InputError, listing the legal ones, for one it has not.

    Source: rules 4 and 5 above; shapes and metadata are those of the PTX ISA.
    """
    config: Config = machine.config
    _check(machine, instruction)
    m, n, k = instruction.shape
    share = KEPT if instruction.sparse else Fraction(1)
    # A whole number times a decimal one: the float's rounding is undone.
    rate = Fraction(config.fma_per_clk(instruction.dtype, instruction.accumulate)).limit_denominator(1 << 20)
    if not rate:
        least_rate = f"{instruction.dtype}_fma_per_clk x fp32_accumulate_rate must be at least 2^-20"
        raise InputError(
            f"{machine.name}: {least_rate}, not {config.fma_per_clk(instruction.dtype, instruction.accumulate):g}"
        )
    multiply = m * n * k * share / rate
    least = config.sparse_issue_min_cycles if instruction.sparse else config.issue_min_cycles
    return Timing(
        multiply=multiply,
        issue=max(multiply, _exact(least)),
        latency=_exact(config.latency_base_cycles) + _exact(config.latency_per_cycle) * multiply,
        fma=m * n * k,
        metadata_bits=4 * m * k // METADATA_GROUP.get(instruction.dtype, 4) if instruction.sparse else 0,
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
class Ticks:
    """All constants in whole ticks: ``per_cycle`` of them make a cycle; ``timings`` by kind of instruction."""

    per_cycle: int
    spacing: int
    overhead: int
    timings: dict[Instruction, Timing]

    @classmethod
    def of(cls, machine: Machine, programs: Sequence[Sequence[Instruction]]) -> Ticks:
        """Return the ticks in which ``programs`` run on ``machine``."""
        if len(programs) > MOST_WARPS:
            raise InputError(f"warps must be at most {MOST_WARPS}, those of one SM, not {len(programs)}")
        config: Config = machine.config
        timings = {i: time_instruction(machine, i) for i in {i for program in programs for i in program}}
        spacing, overhead = _exact(config.instruction_spacing_cycles), _exact(config.loop_overhead_cycles)
        times = [spacing, overhead, *(x for t in timings.values() for x in (t.issue, t.latency))]
        per_cycle = math.lcm(*(time.denominator for time in times))
        if per_cycle * max(times) > 1 << 40:
            raise InputError(f"{machine.name}: cycle constants must have fewer decimal places; six each are enough")
        return cls(per_cycle, int(spacing * per_cycle), int(overhead * per_cycle), timings)

    def issue(self, instruction: Instruction) -> int:
        """Return the issue interval of ``instruction``."""
        return int(self.timings[instruction].issue * self.per_cycle)

    def latency(self, instruction: Instruction) -> int:
        """Return the ticks from the issue of ``instruction`` to its results."""
        return int(self.timings[instruction].latency * self.per_cycle)


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


def _exact(value: float) -> Fraction:
    """Return the decimal number that ``value`` was written as."""
    return Fraction(repr(value))


def _triple(shape: Sequence[int]) -> tuple[int, int, int]:
    if len(shape) != 3 or not all(isinstance(size, (int, np.integer)) for size in shape):
        raise InputError(f"shape must be three whole numbers, m, n and k, not {shape!r}")
    return int(shape[0]), int(shape[1]), int(shape[2])


def _check(machine: Machine, instruction: Instruction) -> None:
    config: Config = machine.config
    shapes = SPARSE_SHAPES if instruction.sparse else SHAPES
    if instruction.sparse and config.sparsity == "dense":
        raise InputError(f"{machine.name}: sparse must be false, as sparsity is dense, and {instruction} is not")
    known = [dtype for dtype in shapes if getattr(config, f"{dtype}_fma_per_clk")]
    legal = (
        instruction.dtype in known
        and instruction.accumulate in ACCUMULATES[instruction.dtype]
        and tuple(instruction.shape) in shapes[instruction.dtype]
    )
    if not legal:
        listed = "; ".join(
            f"{dtype}, {' or '.join(ACCUMULATES[dtype])}: " + ", ".join(f"m{m}n{n}k{k}" for m, n, k in shapes[dtype])
            for dtype in known
        )
        kind = "sparse" if instruction.sparse else "dense"
        raise InputError(f"{machine.name}: a {kind} instruction must be one of {listed}; not {instruction}")


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
