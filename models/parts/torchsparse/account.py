"""What either engine finds of a layer on a GPU that runs TorchSparse."""

from __future__ import annotations

from dataclasses import dataclass

from .config import Config
from .plan import CAUSES


@dataclass
class Account:
    """What either engine finds: cycles by cause, bytes of DRAM by the cause of the kernel, and sums."""

    causes: dict[str, int]
    dram: dict[str, int]
    kernels: int = 0
    tiles: int = 0
    steps: int = 0
    rows: int = 0
    l2: int = 0

    @classmethod
    def empty(cls) -> Account:
        """Return an account of nothing."""
        return cls(dict.fromkeys(CAUSES, 0), dict.fromkeys(("mapping", "gather", "matmul", "scatter"), 0))

    @property
    def cycles(self) -> int:
        """Return the cycles of all kernels."""
        return sum(self.causes.values())

    def book(self, config: Config, cause: str, computed: int, moved: int) -> None:
        """Add the cycles of a kernel whose SMs are done after ``computed`` cycles, DRAM and L2 after ``moved``."""
        self.causes["launch"] += config.launch_cycles
        self.causes[cause] += computed if cause == "matmul" else max(computed, moved)
        if cause == "matmul":
            self.causes["memory"] += max(0, moved - computed)
