"""Which sparse convolutions build a kernel map, and which find the one that an earlier layer left."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import replace

from .calls import Call


def built_once(calls: Iterable[Call]) -> Iterator[Call]:
    """Yield the calls, sparse convolutions with their ``builds_map``: of those with one map, the first builds it.

    They share a map if their coordinates are the same arrays and their kernels and strides are alike: `Voxels` keeps
    its coarser ones, so that layers of one network meet the same.
    """
    left: set[tuple[int, ...]] = set()
    for call in calls:
        if call.op != "sparse_conv3d":
            yield call
            continue
        about = call.attributes
        arrays = (id(array) for array in call.points.values())
        key = (*arrays, about["kernel_size"], about["stride"], about["tensor_stride"])
        yield replace(call, attributes=about | {"builds_map": key not in left})
        left.add(key)
