"""The instructions of tensor cores: which there are, what one takes, in cycles and in ticks, and when they issued.

What both engines of `parts.tensorcore.instruction`, which has the rules, start from and come to.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import TYPE_CHECKING

import numpy as np

from ....workloads.errors import InputError
from .config import ACCUMULATES, Config

if TYPE_CHECKING:
    from ....simulator.machine import Machine

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


def time_instruction(machine: Machine, instruction: Instruction) -> Timing:
    """Return what ``instruction`` takes on ``machine``. Raises InputError, listing the legal ones, for one it has not.

    Source: rules 4 and 5 of `parts.tensorcore.instruction`; shapes and metadata are those of the PTX ISA.
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
        issue=max(multiply, exact(least)),
        latency=exact(config.latency_base_cycles) + exact(config.latency_per_cycle) * multiply,
        fma=m * n * k,
        metadata_bits=4 * m * k // METADATA_GROUP.get(instruction.dtype, 4) if instruction.sparse else 0,
    )


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
        spacing, overhead = exact(config.instruction_spacing_cycles), exact(config.loop_overhead_cycles)
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


def exact(value: float) -> Fraction:
    """Return the decimal number that ``value`` was written as."""
    return Fraction(repr(value))


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
