"""Block-ELLPACK SpMM on tensor cores: square blocks of a weight are multiplied whole, the others left out.

Every block row keeps the same number of blocks, width; those that fill it up are multiplied too. A CTA has one block
row and some columns. It gathers, block by block, the rows of the dense matrix that stand under its blocks, so that to
its tensor cores, shared memory and L2 it is a dense product whose reduction is width x block long: a product of
`parts.tensorcore.gemm`, whose recurrences and units are used as they are. A weight without blocks keeps every block
with a nonzero, zeros and all.

Assumed, for the library's kernel (cuSPARSE, Block-SpMM) is not public: the tile above; that a step of the reduction
has as many blocks as fill ``cta_depth``; that an instruction's 16 rows stay idle where a block has fewer; that L2
serves every gather, and HBM moves the dense matrix once.

Source: NVIDIA, cuSPARSE documentation, "Blocked-Ellpack (Blocked-ELL)" and ``cusparseSpMM``.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from typing import TYPE_CHECKING, overload

import msgspec
import numpy as np

from ..simulator.memo import Memo
from ..simulator.result import LayerResult
from ..workloads.blocks import BLOCK, row_blocks
from ..workloads.formats.block_ell import kept_blocks, storage_bits
from ..workloads.gemm import Gemm, Operands, kept_operands, lower_gemm, operands, vectors
from ..workloads.trace import Layer
from .parts.counting import share_of
from .parts.energy import energy_of
from .parts.ranges import check_bounds
from .parts.roofline import roofline
from .parts.tensorcore import config as tensorcore_config
from .parts.tensorcore import values as tensorcore_values
from .parts.tensorcore.causes import by_cycles
from .parts.tensorcore.gemm import CAUSES, Account, count, solve
from .parts.tensorcore.plan import INSTRUCTION_ROWS, Plan, plan
from .parts.tensorcore.tiles import Times, check_ends, measure
from .parts.tensorcore.values import Rounded
from .parts.ticks import to_ticks

if TYPE_CHECKING:
    from ..simulator.machine import Machine
    from ..simulator.timeline import Timeline

OPS = ("linear", "conv2d", "matmul")
ERT_BASE = "tensorcore-event"  # which energies an Accelergy reference table replaces
OWN_CAUSES = (*CAUSES[: CAUSES.index("padding") + 1], "padding_blocks", *CAUSES[CAUSES.index("padding") + 1 :])


class Config(tensorcore_config.Config, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A GPU with tensor cores, as `parts.tensorcore.config.Config`, that multiplies blocks.

    ``block``: rows and columns of a block, which take the place of ``cta_rows``, ``warp_rows`` and, as a multiple,
    ``cta_depth``. ``index_bits``: of a block's column. Sparsity must be dense, tiling fixed and split_k 1.
    """

    block: int
    index_bits: int

    def __post_init__(self) -> None:
        super().__post_init__()
        check_bounds(self, {"block": (1, 1024), "index_bits": (1, 32)})
        for name, only in (("sparsity", "dense"), ("tiling", "fixed"), ("split_k", 1)):
            if getattr(self, name) != only:
                raise ValueError(f"{name} must be {only} where blocks are multiplied whole, not {getattr(self, name)}")
        if self.dtype == "b1":
            raise ValueError("dtype must be one that a trace has numbers of, not 'b1'")


@dataclass(frozen=True)
class Shape:
    """How many blocks the products of a layer have: ``products`` of ``block_rows`` x ``width``, ``real`` in all.

    A block row has one at least, of padding where the weight has none.
    """

    products: int
    block_rows: int
    width: int
    real: int

    @property
    def blocks(self) -> int:
        """Return the blocks that are multiplied, padding included."""
        return self.products * self.block_rows * self.width


@dataclass(frozen=True, eq=False)
class Job:
    """A layer as its machine has it: the ``whole`` product, and those of its block rows, cut by ``config``."""

    config: Config
    shape: Shape
    whole: Gemm
    gemm: Gemm
    plan: Plan
    times: Times


def fast(machine: Machine, layer: Layer, memo: Memo) -> LayerResult:
    """Return what ``layer`` costs on ``machine``, by the recurrences of `parts.tensorcore.gemm`."""
    config: Config = machine.config
    whole = memo((layer, "gemm"), lambda: lower_gemm(layer))
    shape = memo((layer, "blocks", config.block), lambda: _shape(config, layer, whole))
    job = _job(config, shape, whole)
    account = solve(job.config, job.gemm, job.plan, job.times)
    output = None
    if config.functional:
        key = (layer, "block values", config.dtype, config.accumulate, config.block, job.config.cta_depth)
        output = memo(key, lambda: _values(job, layer))
    return _result(machine, job, layer, account, output)


def events(machine: Machine, layer: Layer, timeline: Timeline | None = None) -> LayerResult:
    """Return what ``layer`` costs on ``machine``, by stepping the units of `parts.tensorcore.units`."""
    from .parts.tensorcore.units import Values, run

    config: Config = machine.config
    whole = lower_gemm(layer)
    job = _job(config, _shape(config, layer, whole), whole)
    if not config.functional:
        account = run(job.config, job.gemm, job.plan, job.times, None, timeline)
        return _result(machine, job, layer, account, None)
    given = operands(layer)
    rows = _BlockRows(job, layer, given)
    sums = [[tensorcore_values.zeros(whole.columns, config.block, config.dtype)] for _ in range(len(rows))]
    account = run(job.config, job.gemm, job.plan, job.times, Values(rows, sums), timeline)  # type: ignore[arg-type]
    return _result(machine, job, layer, account, _finish(rows, layer, [part for (part,) in sums]))


def error_bound(machine: Machine, layer: Layer) -> np.ndarray:
    """Return how far each output may be from the exact one, (vectors, out) in float64; for `gossamer check`."""
    return tensorcore_values.rounding_bound(layer, machine.config.dtype, machine.config.accumulate)


def area_mm2(machine: Machine) -> float | None:
    """Return None: no table gives the area of the chip."""
    return None


def _shape(config: Config, layer: Layer, gemm: Gemm) -> Shape:
    block = config.block
    tall, wide = -(-gemm.rows // block), -(-gemm.reduction // block)
    if layer.op == "matmul":  # what stands for its weight is not known before it is there: all of it is kept
        return Shape(gemm.count, tall, wide, gemm.count * tall * wide)
    kept = [kept_blocks(weight, block).sum(axis=1) for weight in kept_operands(layer)]
    widest = max(int(part.max()) for part in kept)
    return Shape(gemm.count, tall, max(1, widest), sum(int(part.sum()) for part in kept))


def _kept(config: Config, layer: Layer, weight: np.ndarray) -> np.ndarray:
    """Return which blocks of a product's weight, as it is multiplied, are kept, (block rows, block columns) bool."""
    if layer.op == "matmul":
        return np.ones([-(-side // config.block) for side in weight.shape], bool)
    return kept_blocks(weight, config.block)


def _job(config: Config, shape: Shape, whole: Gemm) -> Job:
    block = config.block
    at_once = max(1, config.cta_depth // block)
    own: Config = msgspec.structs.replace(config, cta_rows=block, warp_rows=block, cta_depth=block * at_once)
    # Each block row is a product of its own: to tiles and steps they are all alike.
    gemm = Gemm(
        rows=block,
        channels=shape.width * block,
        columns=whole.columns,
        count=shape.products * shape.block_rows,
        input_words=whole.input_words,
    )
    planned = plan(own, gemm, None)
    times = measure(own, gemm, planned)
    stored = storage_bits(shape.blocks, block, tensorcore_config.DTYPE_BITS[config.dtype], config.index_bits)
    surplus = sum(stored.values()) - sum(times.storage_bits.values())
    hbm_bits = 8 * Fraction(config.hbm_bytes_per_s) * Fraction(config.hbm_efficiency) / Fraction(config.clock_hz)
    read = times.hbm_read_bits + surplus
    write = whole.outputs * tensorcore_config.DTYPE_BITS[config.dtype]  # rows that fill up the last block are not there
    times = replace(
        times,
        storage_bits=stored,
        hbm_read_bits=read,
        hbm_write_bits=write,
        hbm=to_ticks((read + write) / hbm_bits),
    )
    check_ends(own, times)
    return Job(own, shape, whole, gemm, planned, times)


class _BlockRows(Sequence[Rounded]):
    """The operands of each block row: its blocks side by side, and the rows of the dense matrix that stand under them.

    Made when asked for, weights rounded then too, for all of them together would be far larger than the layer. ``job``
    has their common width; ``vectors`` are those of ``given``, the products of ``layer``, in the machine's format.
    """

    def __init__(self, job: Job, layer: Layer, given: list[Operands]) -> None:
        self.job, self.given = job, given
        self.peaks = tensorcore_values.peaks(given, job.config.dtype)
        # Without rows, and so without weights: what is left is rounded once.
        none = slice(0, 0)
        self.vectors = [Rounded.of(product.of_rows(none), job.config.dtype, *self.peaks) for product in given]
        # Weights without codes are what is kept: a convolution's need not be put in order a second time.
        stored = [product.weight for product in given] if layer.codes is None else kept_operands(layer)
        self.kept = [_kept(job.config, layer, weight) for weight in stored]
        self.held: tuple[int, Rounded] | None = None

    def __len__(self) -> int:
        return self.job.gemm.count

    @overload
    def __getitem__(self, index: int) -> Rounded: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[Rounded]: ...
    def __getitem__(self, index: int | slice) -> Rounded | Sequence[Rounded]:
        if isinstance(index, slice):
            return [self[place] for place in range(*index.indices(len(self)))]
        if self.held is None or self.held[0] != index:
            self.held = (index, self._gather(index))
        return self.held[1]

    def weight(self, product: int, rows: slice, columns: slice = slice(None)) -> np.ndarray:
        """Return some rows and columns of a product's weight in the machine's format."""
        given = self.given[product]
        part = Operands(given.weight[rows, columns], given.vectors[:0])
        return Rounded.of(part, self.job.config.dtype, *self.peaks).weight

    def lost(self) -> int:
        """Count the operands that are infinite or NaN."""
        lost = sum(tensorcore_values.count_lost(held.vectors) for held in self.vectors)
        for product, given in enumerate(self.given):
            lost += sum(tensorcore_values.count_lost(self.weight(product, rows)) for rows in row_blocks(given.weight))
        return lost

    def parts(self, index: int) -> Iterator[Rounded]:
        """Yield a block row some blocks at a time, from left to right: of a wide weight it may be all of it."""
        product, row = divmod(index, self.job.shape.block_rows)
        kept = self.kept[product][row]
        for some in row_blocks(kept, BLOCK // self.job.config.block**2):
            yield self._side_by_side(product, row, some, int(np.count_nonzero(kept[some])))

    def _gather(self, index: int) -> Rounded:
        product, row = divmod(index, self.job.shape.block_rows)
        return self._side_by_side(product, row, slice(0, self.kept[product].shape[1]), self.job.shape.width)

    def _side_by_side(self, product: int, row: int, across: slice, width: int) -> Rounded:
        """Return the blocks of a block row that are kept in the block columns ``across``, filled up to ``width``."""
        block, given = self.job.config.block, self.vectors[product]
        under = slice(across.start * block, across.stop * block)
        whole, vectors = self.weight(product, slice(row * block, (row + 1) * block), under), given.vectors[:, under]
        weight = np.zeros((block, width * block), whole.dtype)
        gathered = np.zeros((len(vectors), width * block), vectors.dtype)
        for place, column in enumerate(np.flatnonzero(self.kept[product][row, across])):
            under = slice(column * block, (column + 1) * block)
            part, inputs = whole[:, under], vectors[:, under]
            weight[: part.shape[0], place * block : place * block + part.shape[1]] = part
            gathered[:, place * block : place * block + part.shape[1]] = inputs
        return Rounded(weight, gathered, None, given.scale)


def _values(job: Job, layer: Layer) -> tuple[np.ndarray, dict[str, float]]:
    rows = _BlockRows(job, layer, operands(layer))
    return _finish(rows, layer, list(_sums(job, rows)))


def _sums(job: Job, rows: _BlockRows) -> Iterator[np.ndarray]:
    for index in range(len(rows)):
        sums = tensorcore_values.zeros(job.gemm.columns, job.gemm.rows, job.config.dtype)
        for part in rows.parts(index):
            tensorcore_values.multiply(job.config, part.weight, part.vectors, sums)
        yield sums


def _finish(rows: _BlockRows, layer: Layer, sums: list[np.ndarray]) -> tuple[np.ndarray, dict[str, float]]:
    """Return the output that the ``sums`` of all block rows, (columns, block) each, make, and its error."""
    tall, outputs = rows.job.shape.block_rows, []
    for product, (held, given) in enumerate(zip(rows.vectors, rows.given, strict=True)):
        parts = np.concatenate(sums[product * tall : (product + 1) * tall], axis=1)
        whole = replace(held, bias=given.bias)
        outputs.append(whole.finish(np.ascontiguousarray(parts[:, : rows.job.whole.rows])))
    return tensorcore_values.judge(layer, rows.given, rows.lost(), outputs)


def _causes(job: Job, account: Account) -> tuple[dict[str, dict[str, int]], dict[str, dict[str, list[int]]]]:
    """Return cycles by cause, of all units and of each, as `gossamer.models.tensorcore` does, with two more splits.

    Of the multiplying that fills its instructions, the share of padding blocks is that of the blocks; where a block has
    fewer rows than an instruction, the rows that idle are padding.
    """
    config, shape, spent = job.config, job.shape, dict(account.causes)
    used = spent["tensor_core"]
    filled = share_of(used, config.block, -(-config.block // INSTRUCTION_ROWS) * INSTRUCTION_ROWS)
    real = share_of(filled, shape.real, shape.blocks)
    spent["tensor_core"], spent["padding_blocks"] = real, filled - real
    spent["padding"] = spent["padding"] + used - filled
    return by_cycles(config, job.times, account, {cause: spent[cause] for cause in OWN_CAUSES})


def _result(
    machine: Machine,
    job: Job,
    layer: Layer,
    account: Account,
    output: tuple[np.ndarray, dict[str, float]] | None,
) -> LayerResult:
    config, shape, cycles = job.config, job.shape, account.cycles
    fma = config.tensor_cores_per_sm * config.fma_per_clk(config.dtype, config.accumulate)
    multipliers = config.sm_count * fma
    macs = job.whole.macs if layer.op == "matmul" else layer.nonzeros * job.whole.columns
    count(config, job.gemm, job.times, account, macs)
    counts = account.counts | {
        "blocks": shape.real,
        "padding_blocks": shape.blocks - shape.real,
        "fill_weights": shape.real * config.block**2 - macs // job.whole.columns,
    }
    causes, each = _causes(job, account)
    word_bits = round(8 * config.element_bytes)
    energy, warnings = energy_of(machine.energy, cycles, {"sm": config.sm_count}, counts, word_bits=word_bits)
    moved = counts["hbm_read_bytes"] + counts["hbm_write_bytes"]
    peak, bandwidth = multipliers * config.clock_hz, config.hbm_bytes_per_s * config.hbm_efficiency
    result = LayerResult(
        name=layer.name,
        op=layer.op,
        shape=layer.shape,
        samples=layer.samples,
        vectors=vectors(layer, job.whole),
        cycles=cycles,
        latency_s=cycles / config.clock_hz,
        theoretical_cycles=shape.blocks * config.block**2 * job.whole.columns / multipliers,
        macs=macs,
        utilization=macs / (multipliers * cycles),
        load_balance=shape.real / shape.blocks,
        cycles_by_cause=causes,
        cycles_per_unit=each,
        counts=counts,
        energy_j=energy,
        traffic_bytes={
            "smem": counts["smem_read_bytes"] + counts["smem_write_bytes"],
            "l2": counts["l2_read_bytes"] + counts["l2_write_bytes"],
            "hbm": moved,
        },
        storage_bits=dict(job.times.storage_bits),
        arithmetic=None if output is None else output[1],
        roofline=roofline(macs, moved, cycles / config.clock_hz, peak, bandwidth),
        tiling={"cta_rows": config.cta_rows, "cta_columns": config.cta_columns, "width": shape.width},
        warnings=[
            *warnings,
            *_pattern_warnings(config, layer),
            *([] if output is None else tensorcore_values.range_warnings(output[1], config.dtype)),
        ],
    )
    return result if output is None else result.with_output(output[0])


def _pattern_warnings(config: Config, layer: Layer) -> list[str]:
    block, kept = config.block, layer.pattern.block
    if layer.op == "matmul" or layer.pattern.kind == "dense":
        return []
    if layer.pattern.kind != "block" or kept is None:
        return [f"its pattern is {layer.pattern.kind}: every block of {block} x {block} with a nonzero is kept whole"]
    if kept[0] % block or kept[1] % block:
        return [f"its blocks of {kept[0]} x {kept[1]} do not divide into {block} x {block}: more is kept than they are"]
    return []
