"""PointAcc's mapping unit as a description, what its operations return, and which arguments they take."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Generic, Literal, NamedTuple, TypeAlias, TypeVar, get_args

import numpy as np
from numpy.typing import ArrayLike

from ....workloads.checks import whole
from ....workloads.errors import InputError
from ....workloads.points.keys import pack

Rule: TypeAlias = Literal["head-select", "two-window", "flims"]
Method: TypeAlias = Literal["auto", "stream", "tree", "sort"]
Data = TypeVar("Data")
COUNTS = (
    "merger_steps", "sorter_blocks", "sorter_comparisons", "merger_comparisons", "detector_comparisons", "key_reads",
    "key_writes", "key_operations", "point_reads", "distance_macs", "distance_reads", "distance_writes",
    "distance_comparisons", "matches", "map_writes",
)  # fmt: skip
WIDTHS, LANES, LATENCIES = (2, 4096), (1, 65536), (0, 65536)


@dataclass(frozen=True)
class Mapper:
    """A mapping unit.

    ``merger_width``: keys that sorter and merger hold, a power of 2. ``rule``: what the merger takes in a step.
    ``fps_lanes``: points whose distance is updated in a cycle; ``loop_latency``: cycles from the last of them to the
    next sample (assumed). ``exploit_symmetry``: find only the first half of the maps of a cloud onto itself, and write
    each twice. ``boundary_register``: DetectIntersection remembers the last key of the block before; without it a
    kernel map loses the matches astride two blocks (the dropping of duplicates always has it).
    """

    merger_width: int = 64
    rule: Rule = "head-select"
    fps_lanes: int = 64
    loop_latency: int = 20
    exploit_symmetry: bool = False
    boundary_register: bool = True

    def __post_init__(self) -> None:
        width = self.merger_width
        if not WIDTHS[0] <= width <= WIDTHS[1] or width & (width - 1):
            raise ValueError(f"merger_width must be a power of 2 from {WIDTHS[0]} to {WIDTHS[1]}, not {width}")
        if self.rule not in get_args(Rule):
            raise ValueError(f"rule must be one of {', '.join(get_args(Rule))}, not {self.rule!r}")
        for name, (least, most) in (("fps_lanes", LANES), ("loop_latency", LATENCIES)):
            if not least <= getattr(self, name) <= most:
                raise ValueError(f"{name} must be from {least} to {most}, not {getattr(self, name)}")

    @property
    def block(self) -> int:
        """Return P, the keys of a block."""
        return self.merger_width // 2

    @property
    def stages(self) -> int:
        """Return S, the columns of comparators of a bitonic merger."""
        return self.merger_width.bit_length() - 1

    @property
    def drain(self) -> int:
        """Return the cycles from a step to its keys' arrival; flims selects in a column of its own before merging."""
        return self.stages + (self.rule == "flims")

    @property
    def sorter_comparators(self) -> int:
        """Return the comparators of the bitonic sorter, N / 4 * S * (S + 1)."""
        return self.merger_width * self.stages * (self.stages + 1) // 4

    @property
    def top_comparators(self) -> int:
        """Return the comparators of a bitonic merger, N / 2 * S."""
        return self.block * self.stages

    @property
    def merger_comparators(self) -> int:
        """Return the comparators of the merger: of a bitonic one, and N more where flims selects."""
        return self.top_comparators + (self.merger_width if self.rule == "flims" else 0)


class Outcome(NamedTuple, Generic[Data]):
    """What an operation gives: its result, how many cycles it took, and all of `COUNTS`.

    ``merger_steps``: cycles in which the merger took keys in or emptied its feedback. ``sorter_comparisons`` and
    ``merger_comparisons``: of two keys or padding, in networks that compare whatever they hold;
    ``detector_comparisons``: of neighbouring keys. ``key_reads``, ``key_writes``: of keys in the buffers;
    ``key_operations``: coordinates shifted or floored, three at a time. ``point_reads``: of points, all their
    coordinates; ``distance_macs``: squares added up; ``distance_reads``, ``distance_writes``: of the distances that FPS
    stores; ``distance_comparisons``: MIN, Max and radius. ``matches``: equal neighbours that DetectIntersection saw;
    ``map_writes``: entries of the resulting map.
    """

    data: Data
    cycles: int
    counts: dict[str, int]


def counted(**amounts: int) -> dict[str, int]:
    """Return all of `COUNTS`, those not given as 0."""
    return dict.fromkeys(COUNTS, 0) | {name: int(amount) for name, amount in amounts.items()}


def whole_keys(keys: ArrayLike, name: str, step: int | None = None) -> np.ndarray:
    """Return ``keys`` as int64 (n,); ``step`` 0: they must ascend, 1: and differ. Raises InputError.

    The largest int64 is left to the padding of blocks.
    """
    keys = np.asarray(keys)
    if keys.ndim != 1 or (keys.size and keys.dtype.kind not in "iu"):
        raise InputError(f"{name} must be whole numbers of shape (n,), not {keys.dtype} {keys.shape}")
    if keys.size and keys.max() >= np.iinfo(np.int64).max:
        raise InputError(f"{name} must be below 2^63 - 1, not {keys.max()}")
    keys = keys.astype(np.int64)
    if step is not None:
        falls = np.flatnonzero(keys[1:] < keys[:-1] + step)
        if falls.size:
            at = int(falls[0])
            rule = "ascend and differ" if step else "ascend"
            raise InputError(f"{name} must {rule}, and {keys[at + 1]} follows {keys[at]}; sort them first")
    return keys


def cloud_keys(coords: np.ndarray) -> np.ndarray:
    """Return the packed keys of ``coords``, in their order. Raises InputError where one occurs twice."""
    keys = pack(coords)
    ordered = keys if (keys[1:] > keys[:-1]).all() else np.sort(keys)
    twice = np.flatnonzero(ordered[1:] == ordered[:-1])
    if twice.size:
        row = int(np.flatnonzero(keys == ordered[twice[0]])[1])
        at = tuple(np.asarray(coords)[row].tolist())
        raise InputError(f"every coordinate must occur once, and {at} occurs twice; downsample drops such")
    return keys


def ranking(mapper: Mapper, points: int, k: int, method: Method) -> Method:
    """Return how ``k`` of ``points`` are found. Raises InputError for what cannot be.

    "auto": stream where the k best fit into the merger's feedback, else tree.
    """
    if method not in get_args(Method):
        raise InputError(f"method must be one of {', '.join(get_args(Method))}, not {method!r}")
    if not points:
        raise InputError(f"k must be at most the number of points, 0, not {k}")
    whole(k, "k", 1, points)
    if method == "stream" and k > mapper.block:
        raise InputError(f"k must be at most {mapper.block}, half the merger_width, to stream, not {k}; take tree")
    if method == "auto":
        return "stream" if k <= mapper.block else "tree"
    return method
