"""SWAMP: iterative magnitude pruning of the average of several particles, each an average itself."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import numpy as np

from ...pruning import Weights, sparsity_levels
from .solution import Solution, prune

if TYPE_CHECKING:
    from ..loop import Loop


def swamp(loop: Loop) -> Iterator[Solution]:
    """Train N particles from the matching ticket, prune their average, rewind to the ticket, and again.

    Particles share the mask and differ in the order of their samples; each is the average over the recipe's SWA
    epochs. One particle without SWA is `imp` to the bit. SWAMP+ trains one particle in the first levels.
    Source: Choi et al., ICLR 2024 (arXiv 2305.14852), algorithm 1.
    """
    recipe, masks = loop.recipe, loop.full_masks()
    k, T = recipe.rewind_step, loop.steps
    weights = ticket = loop.train(loop.weights(), masks, 0, k, stage="rewound")
    for level, sparsity in enumerate(sparsity_levels(recipe.sparsity, recipe.rate)):
        masks = prune(loop, weights, masks, sparsity)
        particles = tuple(
            loop.train(ticket, masks, k, T, stage=f"level-{level:02}-particle-{n}", particle=n, average=True)
            for n in range(particle_count(loop, level))
        )
        weights = particles[0] if len(particles) == 1 else loop.recalibrate(mean(particles))
        yield Solution(weights, masks, particles)


def particle_count(loop: Loop, level: int) -> int:
    """Return how many particles the level trains."""
    return 1 if level < loop.recipe.solo_levels else loop.recipe.particles


def mean(particles: Sequence[Weights]) -> Weights:
    """Return the mean of each array over the particles, in its own dtype; counters are those of the first."""
    return {
        name: np.mean([particle[name] for particle in particles], axis=0, dtype=np.float64).astype(value.dtype)
        if value.dtype.kind == "f"
        else value
        for name, value in particles[0].items()
    }


def swamp_steps(loop: Loop) -> int:
    """Count the steps of `swamp`."""
    levels = len(sparsity_levels(loop.recipe.sparsity, loop.recipe.rate))
    trained = sum(particle_count(loop, level) for level in range(levels))
    return loop.recipe.rewind_step + trained * (loop.steps - loop.recipe.rewind_step)
