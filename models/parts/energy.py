"""The energy of a layer by the machine's table, or the warning that says why there is none."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ...simulator.energy import EnergyTable
    from ...simulator.result import Energy


def energy_of(
    table: EnergyTable | None, cycles: int, units: Mapping[str, int], counts: Mapping[str, int], **bits: int
) -> tuple[Energy | None, list[str]]:
    """Return the energy and no warning; no energy and one warning where ``table`` is for words of other ``bits``.

    Arguments are those of `EnergyTable.energy` and, by name, of `EnergyTable.misfit`. Without a table there is neither.
    """
    if table is None:
        return None, []
    misfit = table.misfit(**bits)
    if misfit is not None:
        return None, [misfit]
    return table.energy(cycles, units, counts), []
