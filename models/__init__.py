"""Which hardware is simulated: one accelerator a module, its parts in ``parts``, its configurations in ``configs``."""

from .loader import list_energy_tables, list_machines, load_machine, vary

__all__ = ["list_energy_tables", "list_machines", "load_machine", "vary"]
