"""What a file left out and a declared seed draws: activations of a declared density, values of a bare pattern."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ..errors import InputError
from ..limits import ELEMENTS_LIMIT


@dataclass(frozen=True, kw_only=True)
class Draw:
    """How to draw what a file does not hold.

    ``act_density``: share of the activations that are not zero, 0 to 1; None refuses to draw any. ``samples``: inputs
    in the batch. ``input_size``: height and width of what a convolution is fed. Raises InputError.
    """

    act_density: float | None = None
    samples: int = 1
    seed: int = 0
    input_size: tuple[int, int] | None = None

    def __post_init__(self) -> None:
        density = self.act_density
        if density is not None and (
            isinstance(density, bool) or not isinstance(density, int | float) or not 0 <= density <= 1
        ):
            raise InputError(f"act_density must be a number from 0 to 1, not {density!r}")
        for name, value, least in (("samples", self.samples, 1), ("seed", self.seed, 0)):
            if isinstance(value, bool) or not isinstance(value, int) or value < least:
                raise InputError(f"{name} must be a whole number of at least {least}, not {value!r}")
            if value >= 2**63:
                raise InputError(f"{name} must be at most {2**63 - 1}, not {value!r:.40}")
        size = self.input_size
        if size is not None and not (
            isinstance(size, tuple | list)
            and len(size) == 2
            and all(isinstance(side, int) and not isinstance(side, bool) and side >= 1 for side in size)
        ):
            raise InputError(f"input_size must be two whole numbers of at least 1 (height, width), not {size!r}")

    def activations(self, index: int, shape: tuple[int, ...]) -> np.ndarray:
        """Return activations for the layer at ``index``, float32 (samples, *shape).

        Each sample has exactly round(act_density x size) values from (0, 1] at random places; the rest is 0.
        """
        assert self.act_density is not None
        size = int(np.prod(shape, dtype=np.float64))
        if self.samples * size > ELEMENTS_LIMIT:
            raise InputError(f"activations must come to at most {ELEMENTS_LIMIT} numbers, not {self.samples} x {shape}")
        rng = np.random.default_rng([self.seed, index])
        flat = np.zeros((self.samples, size), np.float32)
        count = round(self.act_density * size)
        for sample in flat:
            sample[rng.permutation(size)[:count]] = 1 - rng.random(count, np.float32)
        return flat.reshape(self.samples, *shape)

    def check_needed(self, drawn: list[str]) -> None:
        """Raise InputError where activations were asked for and no layer, of those in ``drawn``, needs them."""
        if self.act_density is not None and not drawn:
            raise InputError(
                f"act_density is for layers without activations, and all have theirs; leave out {self.act_density}"
            )

    def values(self, count: int) -> np.ndarray:
        """Return ``count`` weights, float32 and normal, none of them 0."""
        values = np.random.default_rng([self.seed, 0, 1]).standard_normal(count, np.float32)
        values[values == 0] = 1
        return values

    def linear_inputs(self, columns: int) -> np.ndarray:
        """Return activations for the one layer of a bare matrix with ``columns`` inputs. Raises InputError."""
        if self.act_density is None:
            raise InputError("a bare matrix comes without activations; give act_density to have some drawn")
        return self.activations(0, (columns,))

    def provenance(self) -> dict[str, object]:
        """Return how activations were drawn, as JSON data."""
        return {"distribution": "uniform", "act_density": self.act_density, "samples": self.samples, "seed": self.seed}
