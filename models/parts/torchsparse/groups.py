"""Which products of a sparse convolution are computed together: TorchSparse's grouping of matrix multiplications.

Each offset of a kernel has a map, and a product of as many rows. Few rows fill a GPU badly; products in a batch fill it
better and must all have the rows of the largest. Adaptive grouping takes offsets as mirror pairs, (0, K - 1),
(1, K - 2) and so on, whose maps have one size in a submanifold convolution, and closes a group where the share of rows
that the smallest would be padded by, 1 - min / max, exceeds ``epsilon``. A group whose largest map is below
``threshold`` is one batch; the products of another are as large as to fill the GPU alone.

Source: Tang et al., "TorchSparse", MLSys 2022, section 4.2; order, test of a group and search grid as in its code.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias

Grouping: TypeAlias = Literal["adaptive", "tuned", "separate", "batched", "fixed"]
EPSILONS = (0.0, 0.1, 0.2, 0.3, 0.4, 0.5)
THRESHOLDS = (0, 5000, 7500, 10000, 12500, 15000, 17500, 20000, 22500, 25000)


@dataclass(frozen=True)
class Group:
    """Offsets that are computed together: ``batched`` to the rows of the largest, or one after another."""

    offsets: tuple[int, ...]
    sizes: tuple[int, ...]
    batched: bool

    @property
    def largest(self) -> int:
        """Return the rows of the largest map."""
        return max(self.sizes)

    @property
    def rows(self) -> int:
        """Return the rows that are multiplied, padding among them."""
        return len(self.sizes) * self.largest if self.batched else sum(self.sizes)

    @property
    def padding(self) -> int:
        """Return the rows that are multiplied in vain."""
        return self.rows - sum(self.sizes)


def mirror_order(offset_count: int, has_centre: bool) -> list[int]:
    """Return the offsets as mirror pairs; the middle one comes last, or not at all where it is the identity."""
    order = [offset for pair in range(offset_count // 2) for offset in (pair, offset_count - 1 - pair)]
    return order if has_centre or offset_count % 2 == 0 else [*order, offset_count // 2]


def adaptive(sizes: Sequence[int], epsilon: float, threshold: float, *, has_centre: bool = False) -> list[Group]:
    """Return the groups of maps of these ``sizes``, one an offset, as a sweep over mirror pairs finds them.

    ``has_centre``: the middle offset maps every point to itself; it needs no gathering and stands in no group.
    """
    groups: list[list[int]] = []
    least = most = 0
    for offset in mirror_order(len(sizes), has_centre):
        low, high = min(least, sizes[offset]), max(most, sizes[offset])
        if groups and (1 - low / high if high else 0.0) <= epsilon:
            groups[-1].append(offset)
            least, most = low, high
        else:
            groups.append([offset])
            least = most = sizes[offset]
    return [_group(sizes, group, max(sizes[offset] for offset in group) < threshold) for group in groups]


def separate(sizes: Sequence[int], *, has_centre: bool = False) -> list[Group]:
    """Return a group for each map."""
    return [_group(sizes, [offset], False) for offset in sorted(mirror_order(len(sizes), has_centre))]


def batched(sizes: Sequence[int], *, has_centre: bool = False) -> list[Group]:
    """Return one batch of all maps."""
    order = sorted(mirror_order(len(sizes), has_centre))
    return [_group(sizes, order, True)] if order else []


def fixed(sizes: Sequence[int], group_size: int, *, has_centre: bool = False) -> list[Group]:
    """Return batches of ``group_size`` maps, in mirror order, whatever their sizes."""
    order = mirror_order(len(sizes), has_centre)
    return [_group(sizes, order[first : first + group_size], True) for first in range(0, len(order), group_size)]


def _group(sizes: Sequence[int], offsets: Sequence[int], is_batched: bool) -> Group:
    return Group(tuple(offsets), tuple(int(sizes[offset]) for offset in offsets), is_batched and len(offsets) > 1)
