"""Results as rows of plain numbers, and what every column means: the figures behind tables, plots and CSV files."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from ..simulator.frames import padding_ratio as padding_ratio
from ..simulator.result import Result
from ..simulator.result import layer_rows as layer_rows

if TYPE_CHECKING:
    from ..simulator.sweep import Outcome

Row = dict[str, Any]

COLUMNS: dict[str, tuple[str, str]] = {
    # what was run
    "trace": ("", "name of the trace"),
    "machine": ("", "name of the machine; a sweep's settings stand in columns of their own"),
    "engine": ("", "fast (recurrences) or event (stepped units); both give the same figures"),
    "version": ("", "version of gossamer that simulated it"),
    "layer": ("", "name of the layer"),
    "op": ("", "operation of the layer"),
    "shape": ("", "shape of the layer's weight, outputs first"),
    "samples": ("samples", "inputs in the batch; all figures are sums over them"),
    "vectors": ("vectors", "matrix-vector products the samples came to; a convolution makes one an output position"),
    "accuracy": ("share", "accuracy of the pruned network on its test set, from the trace's provenance"),
    "sparsity": ("share", "weights of the trace that are zero / all weights"),
    "error": ("", "why the case failed; empty where it did not"),
    # time
    "cycles": ("cycles", "clock cycles from the first input to the last result"),
    "cycles_per_sample": ("cycles", "cycles / samples"),
    "latency_us": ("us", "cycles / clock"),
    "latency_per_sample_us": ("us", "latency / samples"),
    "theoretical_cycles": ("cycles", "cycles with all units busy all the time; padding counts as work"),
    "speedup": ("ratio", "latency per sample of the baseline / that of this row. Baseline of a sweep: the first case "
                "of the same trace and machine that finished; of a comparison: its first row"),
    "speedup_over_dense": ("ratio", "latency per sample of the network's dense trace on the same machine / that of "
                           "this row, where both are compared"),
    "utilization": ("share", "useful MACs / (multipliers x cycles)"),
    "load_balance": ("share", "1 - (starved + drained) / (PEs x cycles): PE cycles not spent waiting; a sum over "
                     "layers is weighted by cycles"),
    "padding_ratio": ("share", "padding entries / processed entries"),
    # energy and size
    "energy_uj": ("uJ", "energy of all samples, by the energy table; figures of different tables do not compare"),
    "energy_per_sample_uj": ("uJ", "energy / samples"),
    "energy_delay_pjs": ("pJ s", "energy per sample x latency per sample"),
    "energy_table": ("", "the table that gave the energies"),
    "area_mm2": ("mm2", "area of the machine, by the energy table"),
    "storage_bits": ("bits", "the encoded weights, with pointers and codebook"),
    "output_error": ("ratio", "rms error of the outputs in the machine's arithmetic / rms of the float64 outputs; the "
                     "worst layer"),
    "max_abs_error": ("", "largest error of an output in the machine's arithmetic, against float64"),
    "same_argmax": ("share", "vectors whose largest output is the one that float64 gives"),
    # roofline
    "macs_per_byte": ("MACs/byte", "operational intensity: useful MACs / bytes to and from HBM"),
    "ridge_macs_per_byte": ("MACs/byte", "intensity from which the multipliers are the roof, and no longer HBM"),
    "bound_macs_per_s": ("MACs/s", "the roof at this intensity: that of all multipliers, or of HBM if lower"),
    "achieved_macs_per_s": ("MACs/s", "useful MACs / latency"),
    # counts of EIE
    "macs": ("MACs", "useful multiply-accumulates: both operands nonzero where the machine skips zeros"),
    "entries": ("entries", "stored weights processed, padding included"),
    "padding": ("entries", "of these, the zeros that only bridge long runs"),
    "broadcasts": ("activations", "nonzero activations sent to all PEs, biases included"),
    "ptr_reads": ("reads", "lookups of a column's two pointers: PEs x broadcasts"),
    "spmat_reads": ("reads", "rows read from the matrix SRAMs"),
    "act_reads": ("words", "activations and accumulators read: every activation scanned, one accumulator a MAC"),
    "act_writes": ("words", "accumulators written, one a MAC; with act_batches also words stored to the Act SRAM"),
    "queue_pushes": ("activations", "writes to activation queues: PEs x broadcasts"),
    # counts of the systolic array
    "register_reads": ("words", "registers of the cells read: weight, input and partial sum at each MAC"),
    **{
        f"{sram}_sram_{act}": ("words", f"words {act.replace('reads', 'read from').replace('writes', 'written to')} "
                               f"the {what} SRAM")
        for sram, what in (("ifmap", "input"), ("filter", "weight"), ("ofmap", "output"))
        for act in ("reads", "writes")
    },
    "dram_reads": ("words", "words read from DRAM"),
    "dram_writes": ("words", "words written to DRAM"),
    # counts of Sparseloop's sparse tensor core
    "weight_register_reads": ("words", "weights read from the multipliers' own registers, one a MAC"),
    "weight_register_writes": ("words", "kept weights loaded into them, once a tile of columns"),
    "register_metadata_reads": ("words", "their metadata read with them, in words of the machine's width"),
    "register_metadata_writes": ("words", "their metadata loaded"),
    "accumulator_reads": ("words", "sums read: one an addition of a row's products, the last read included"),
    "accumulator_writes": ("words", "sums written: one an addition of a row's products"),
    "smem_reads": ("words", "weights and inputs read from shared memory"),
    "smem_writes": ("words", "weights and inputs written to shared memory"),
    "metadata_reads": ("words", "metadata read from shared memory, in words of the machine's width"),
    "metadata_writes": ("words", "metadata written to shared memory"),
    "dram_metadata_reads": ("words", "metadata read from DRAM"),
    # counts of tensor cores; multiplications and HBM bytes also of dual-side ones
    "instructions": ("instructions", "mma or mma.sp of warps, those on padding and repeated ones included"),
    "multiplications": ("MACs", "multiply-accumulates of all instructions, zeros and padding included; on dstc, those "
                        "of two nonzeros"),
    "ctas": ("CTAs", "tiles of outputs"),
    "waves": ("waves", "tiles / tiles that can run at once, rounded up"),
    "repeated_groups": ("groups", "groups of a row issued again: more nonzeros than slots, in it or in lock-step"),
    "metadata_bytes": ("bytes", "positions of kept weights that tiles loaded, of those below"),
    "smem_read_bytes": ("bytes", "read from shared memory by the warps"),
    "smem_write_bytes": ("bytes", "written to shared memory: the steps that tiles loaded"),
    "l2_read_bytes": ("bytes", "read from L2 by the tiles, and partial sums (split_k)"),
    "l2_write_bytes": ("bytes", "outputs written through L2, and partial sums (split_k)"),
    "hbm_read_bytes": ("bytes", "weights and inputs, each once"),
    "hbm_write_bytes": ("bytes", "outputs, each once"),
    "quanta": ("quanta", "blocks of multipliers that dstc issued; some of a block may idle"),
    # counts of sparse kernels on GPUs
    "padding_multiplications": ("MACs", "of the multiplications of csr_spmm, those of zeros: residues "
        "filled up, loads aligned, edge tiles"),
    "idle_multiplications": ("MACs", "that lanes of csr_spmm could have done while another row of their "
        "warp was longer"),
    "masked_nonzeros": ("nonzeros", "of the row before, read so that vector loads are aligned"),
    "dense_rows": ("rows", "rows of the dense matrix (of a tile's columns) that warps read, each once a warp"),
    "dense_row_misses": ("rows", "of these, those that came from L2"),
    "l1_read_bytes": ("bytes", "read from L1 in lines: dense rows and nonzeros"),
    "blocks": ("blocks", "blocks of a Block-ELLPACK weight that hold a nonzero"),
    "padding_blocks": ("blocks", "blocks that only fill a block row up to the widest"),
    "fill_weights": ("weights", "zeros inside blocks that are kept"),
    # counts of PointAcc; dram_*_bytes are parts of what is read and written
    "cache_lookups": ("rows", "rows, of the channels that enter the array together, looked up in the feature cache"),
    "cache_misses": ("blocks", "blocks of rows fetched from DRAM, for rows that are not in the cache"),
    "cache_compulsory_misses": ("blocks", "of these, those of any order and any cache: one a block in use"),
    **{
        f"{memory}_sram_{act}_bytes": ("bytes", f"{what} {acted} the {where}")
        for memory, what, where in (
            ("feature", "features", "feature cache"), ("weight", "weights", "weight buffer"),
            ("sum", "partial sums", "output buffer, once an addition"),
        )
        for act, acted in (("read", "read from"), ("write", "written to"))
    },
    "dram_read_bytes": ("bytes", "read from DRAM"),
    "dram_write_bytes": ("bytes", "written to DRAM"),
    "dram_coordinate_bytes": ("bytes", "of these, keys and points, for the mapping unit"),
    "dram_feature_bytes": ("bytes", "of these, features of inputs, fetched or gathered"),
    "dram_gather_bytes": ("bytes", "of these, gathered features, written and read back (gather-scatter)"),
    "dram_weight_bytes": ("bytes", "of these, weights and biases"),
    "dram_map_bytes": ("bytes", "of these, map entries and indices, when they are made and when they are used"),
    "dram_sum_bytes": ("bytes", "of these, partial sums that do not stay on chip, to DRAM and back"),
    "dram_output_bytes": ("bytes", "of these, features of outputs"),
    "merger_steps": ("cycles", "in which the mapping unit's merger took keys, or emptied its feedback"),
    "sorter_blocks": ("blocks", "blocks of keys that went through its sorter"),
    "sorter_comparisons": ("comparisons", "of two keys or padding in the sorter"),
    "merger_comparisons": ("comparisons", "of two keys or padding in the merger"),
    "detector_comparisons": ("comparisons", "of neighbouring keys, which a map has where they are equal"),
    "key_reads": ("keys", "read from the mapping unit's buffer"),
    "key_writes": ("keys", "written to it"),
    "key_operations": ("keys", "shifted, floored or made of a point's coordinates"),
    "point_reads": ("points", "whose coordinates CalculateDistance read"),
    "distance_macs": ("MACs", "squares added up to distances"),
    "distance_reads": ("distances", "read back by farthest point sampling"),
    "distance_writes": ("distances", "stored by it"),
    "distance_comparisons": ("comparisons", "of distances with one another and with a radius"),
    "matches": ("matches", "equal keys that were found"),
    "map_writes": ("entries", "of the resulting maps: pairs of input and output, or neighbours"),
    "rounds": ("rounds", "of a hash table, in each of which a key goes to a bank at most"),
    "keys_hashed": ("keys", "put into the hash table or looked up in it"),
    "slot_reads": ("slots", "of the hash table that were looked at"),
    "slot_writes": ("slots", "of it that took a key"),
    "slots": ("slots", "of it in all"),
    # where the cycles went; PE causes are sums over the PEs
    "pe_busy": ("PE cycles", "multiply-accumulates"),
    "pe_padding": ("PE cycles", "entries that only bridge runs of zeros"),
    "pe_empty": ("PE cycles", "activations for which the PE stores nothing"),
    "pe_starved": ("PE cycles", "empty queue while other PEs hold up the broadcast, or before the first activation"),
    "pe_drained": ("PE cycles", "all done, waiting for the slowest PE and the pipeline"),
    "pe_act_sram": ("PE cycles", "moving activations between registers and Act SRAM (act_batches)"),
    "broadcaster_start": ("cycles", "before the first broadcast"),
    "broadcaster_broadcast": ("cycles", "sending an activation"),
    "broadcaster_bubble": ("cycles", "loading the next row of activations, or passing one of zeros"),
    "broadcaster_stalled": ("cycles", "a queue is full"),
    "broadcaster_done": ("cycles", "all sent"),
    "broadcaster_act_sram": ("cycles", "moving activations between registers and Act SRAM (act_batches)"),
    "array_load": ("cycles", "shifting weights in"),
    "array_compute": ("cycles", "one vector entering a cycle; on sparseloop_stc, multiplying kept weights"),
    "array_fill_drain": ("cycles", "the first input's way in and the last sum's way out"),
    "array_memory": ("cycles", "waiting for DRAM (dram_bounds_latency)"),
    "array_padding": ("cycles", "multipliers left idle by a reduction that does not fill its steps"),
    "array_smem": ("cycles", "waiting for shared memory"),
    "sm_launch": ("SM cycles", "the kernel's start"),
    "sm_fill": ("SM cycles", "before a tile's first step has arrived"),
    "sm_tensor_core": ("SM cycles", "multiplying what is no padding"),
    "sm_padding": ("SM cycles", "multiplying padding: of edge tiles, and of the last step of the reduction"),
    "sm_passes": ("SM cycles", "multiplying repeated groups"),
    "sm_shared_memory": ("SM cycles", "cores waiting for shared memory"),
    "sm_l2": ("SM cycles", "waiting for a step to arrive from L2"),
    "sm_epilogue": ("SM cycles", "writing outputs"),
    "sm_idle": ("SM cycles", "no tile left, others not done"),
    "sm_hbm": ("SM cycles", "all tiles done, HBM still moving operands and outputs"),
    "sm_split_k": ("SM cycles", "the second kernel, which adds the partial sums of a split reduction"),
    "sm_kernel": ("SM cycles", "what a real kernel takes beyond the bounds (kernel_efficiency)"),
    "sm_start": ("SM cycles", "warps of csr_spmm finding their rows"),
    "sm_fma": ("SM cycles", "multiplying what is no padding"),
    "sm_subwarp_idle": ("SM cycles", "lanes whose row is done, another of the warp longer: imbalance within a warp"),
    "sm_core": ("SM cycles", "waiting for the sub-core, which has other instructions or warps"),
    "sm_l1": ("SM cycles", "waiting for L1 and shared memory"),
    "sm_latency": ("SM cycles", "a warp's own loads, one after another"),
    "sm_warp_idle": ("SM cycles", "warps that are done, another of the thread block not: imbalance within a block"),
    "sm_padding_blocks": ("SM cycles", "multiplying blocks that only fill a block row"),
    **{
        f"{unit}_{act}": (of, f"{what} {act}")
        for unit, of, what in (
            ("tensor_core", "SM cycles", "tensor cores of the SMs"), ("shared_memory", "SM cycles", "shared memories"),
            ("l2", "cycles", "L2 serving loads,"), ("hbm", "cycles", "HBM"),
        )
        for act in ("busy", "idle")
    },
    "core_launch": ("core cycles", "the kernel's start"),
    "core_multiply": ("core cycles", "issuing quanta"),
    "core_idle": ("core cycles", "no tile left, others not done"),
    "core_hbm": ("core cycles", "all tiles done, HBM still moving operands and outputs"),
    "matrix_busy": ("cycles", "of PointAcc's array, a row entering"),
    "matrix_fill": ("cycles", "its weights and first rows on their way in, and its last sums out (array_fill)"),
    "matrix_idle": ("cycles", "its others, in which mapping or memory take longer"),
    "mapping_busy": ("cycles", "PointAcc's mapping unit at work"),
    "mapping_idle": ("cycles", "the mapping unit idle"),
    "memory_busy": ("cycles", "PointAcc's DRAM moving"),
    "memory_idle": ("cycles", "DRAM idle"),
    # counts and cycles of ESE
    "assembled": ("values", "results of a matrix that ESE's PEs hand to the element-wise unit"),
    "elementwise_multiplies": ("multiplications", "of cells, gates and peepholes, element by element"),
    "elementwise_adds": ("additions", "of results, biases, peepholes and cells, element by element"),
    "table_lookups": ("look-ups", "in the tables of sigmoid and tanh"),
    "pe_memory": ("PE cycles", "waiting for the weights of the next matrix"),
    "pe_element_wise": ("PE cycles", "waiting for the element-wise unit: for room, for the operands it "
                        "makes, for the last results"),
    "channel_voice": ("channel cycles", "with a sample of the batch"),
    "channel_vacant": ("channel cycles", "without one: the last group has fewer samples than there are channels"),
    "memory_fetching": ("cycles", "ESE's DRAM streaming weights and pointers"),
    "memory_waiting": ("cycles", "DRAM waiting for half of the weight buffer, or with nothing left to fetch"),
    "element_wise_passing": ("cycles", "the element-wise units working off results"),
    "element_wise_waiting": ("cycles", "the element-wise units without results"),
    # counts and cycles of PatDNN
    "fmas": ("vector instructions", "multiply-adds of PatDNN's cores"),
    "lane_fmas": ("multiply-adds", "of their lanes, empty ones included"),
    "input_loads": ("vector instructions", "loads of activations"),
    "weight_loads": ("vector instructions", "loads of weights"),
    "spills": ("vector instructions", "loads and stores of outputs for which no register is left"),
    "stores": ("vector instructions", "of outputs"),
    "l1_words": ("words", "of all these loads and stores, empty lanes included"),
    "kernel_steps": ("steps", "kernels, or groups of kernels that share their loads, that a tile is made of"),
    "dispatches": ("look-ups", "of a kernel's pattern, where kernels are not reordered"),
    "pattern_switches": ("jumps", "to the code of another pattern than that of the kernel before"),
    "core_compute": ("core cycles", "PatDNN's cores multiplying and adding"),
    "core_load": ("core cycles", "waiting for operands"),
    "core_switch": ("core cycles", "waiting for the code of a kernel's pattern"),
    "core_overhead": ("core cycles", "beginning tiles and storing their outputs"),
    "core_fill": ("core cycles", "waiting for a tile's data from L2"),
    "core_dram": ("core cycles", "all tiles done, DRAM still moving"),
    # counts and cycles of SpAtten
    "exponentials": ("values", "of attention scores, by the softmax"),
    "comparisons": ("comparisons", "of a candidate with a pivot, by the top-k engine"),
    "passes": ("passes", "of quick-select, each over the candidates that are left"),
    "fifo_reads": ("values", "candidates read from the top-k engine's FIFOs"),
    "fifo_writes": ("values", "candidates written to them behind the zero eliminators"),
    "key_sram_reads": ("words", "words of keys read from their SRAM, once a query"),
    "value_sram_reads": ("words", "words of values read from theirs, of those that a query keeps"),
    **{
        f"{unit}_{cause}": ("cycles", f"{what} {doing}")
        for unit, what in (
            ("query_key", "Q K array"), ("softmax", "softmax"), ("quick_select", "quick-select of the top-k engine"),
            ("filter", "filter of the top-k engine"), ("prob_value", "prob V array"),
        )
        for cause, doing in (
            ("busy", "at work"), ("blocked", "done, with no place in the next queue"), ("waiting", "without a query"),
            ("drain", "while the pipeline empties (pipeline_latency)"),
            ("memory", "while DRAM still moves (dram_bounds_latency)"),
        )
    },
}  # fmt: skip
# Columns named after parts, memories and storage, which energy tables and machines are free to name.
SUFFIXES = {
    "_uj": ("uJ", "energy of the part {}, by the energy table"),
    "_bytes": ("bytes", "traffic of {}"),
    "_stored_bits": ("bits", "stored as {}, of the encoded weights"),
}


def describe(column: str) -> tuple[str, str]:
    """Return unit and definition of ``column``; a setting of a sweep and a count of a new machine are named so."""
    if column in COLUMNS:
        return COLUMNS[column]
    for suffix, (unit, definition) in SUFFIXES.items():
        if column.endswith(suffix):
            return unit, definition.format(column.removesuffix(suffix))
    return "", "a setting of the machine, or a count of its model"


def sweep_rows(outcomes: Iterable[Outcome]) -> list[Row]:
    """Return one row a case: trace, machine, its settings, and figures or the error."""
    return case_rows((o.case.trace.name, o.case.machine.name, o.case.settings, o.result, o.error) for o in outcomes)


def case_rows(cases: Iterable[tuple[str, str, Mapping[str, Any], Result | None, str | None]]) -> list[Row]:
    """Return one row for each (trace, machine, settings, result, error); a case without a result has failed."""
    rows = []
    first: dict[tuple[str, str], Result] = {}
    for trace, machine, settings, result, error in cases:
        row: Row = {"trace": trace, "machine": machine, **settings}
        if result is None:
            rows.append({**row, "error": error or "not run"})
            continue
        baseline = first.setdefault((result.trace.sha256, machine), result)
        total = result.total
        rows.append({
            **row,
            "cycles": total.cycles,
            "latency_us": total.latency_s * 1e6,
            "speedup": speedup(baseline, result),
            "load_balance": total.load_balance,
            "utilization": total.utilization,
            "padding_ratio": padding_ratio(total),
            "energy_uj": None if total.energy_j is None else total.energy_j.total * 1e6,
            "energy_table": None if total.energy_j is None else total.energy_j.table,
            "area_mm2": total.area_mm2,
            "error": "",
        })  # fmt: skip
    return rows


def csv_text(rows: Sequence[Row]) -> str:
    """Return ``rows`` as CSV text with a head; columns in the order in which they first occur, None as nothing."""
    columns = list(dict.fromkeys(column for row in rows for column in row))
    text = io.StringIO()
    writer = csv.DictWriter(text, columns, restval="", lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()


def speedup(baseline: Result, result: Result) -> float | None:
    """Return the time a sample of ``baseline`` over that of ``result``, None where that takes none."""
    latency = result.total.latency_s / result.samples
    return baseline.total.latency_s / baseline.samples / latency if latency else None
