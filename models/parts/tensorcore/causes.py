"""Ticks of a product in whole cycles: what each SM, and each unit beside it, spent them on."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from ..ticks import TICKS
from .config import Config
from .gemm import BUSY, Account
from .tiles import Times


def by_cycles(
    config: Config, times: Times, account: Account, spent: Mapping[str, np.ndarray]
) -> tuple[dict[str, dict[str, int]], dict[str, dict[str, list[int]]]]:
    """Return cycles by cause, of all units and of each, of the ticks ``spent``, (slots,) a cause.

    Ends of causes are rounded up, one after another, so that each unit's causes add up to the cycles of the layer.
    """
    per_sm = config.ctas_per_sm
    of_sm = np.stack(list(spent.values())).reshape(len(spent), config.sm_count, per_sm).sum(axis=2)
    cycles = np.diff(_whole(of_sm.cumsum(axis=0), per_sm), axis=0, prepend=0)
    each = {"sm": {cause: row.tolist() for cause, row in zip(spent, cycles, strict=True)}}
    working = {unit: account.busy[unit].reshape(config.sm_count, per_sm).sum(axis=1) // per_sm for unit in BUSY}
    working["l2"] = np.array([account.l2 // times.running])
    working["hbm"] = np.array([times.hbm])
    for unit, ticks in working.items():
        busy = _whole(np.minimum(ticks, account.total), 1)
        each[unit] = {"busy": busy.tolist(), "idle": (account.cycles - busy).tolist()}
    return {unit: {cause: sum(row) for cause, row in causes.items()} for unit, causes in each.items()}, each


def _whole(ticks: np.ndarray, share: int) -> np.ndarray:
    return -(-ticks // (TICKS * share))
