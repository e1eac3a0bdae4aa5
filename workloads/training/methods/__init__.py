"""How a network is trained and pruned: one file a family of methods, each reading as its paper does.

A method takes a loop and yields a `Solution` for every network it finishes; the first is the least pruned, the last one
is the result.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from . import admm, imp, magnitude, nm, slimming, swamp
from .solution import Solution

if TYPE_CHECKING:
    from ..loop import Loop

__all__ = ["METHODS", "Method", "Solution"]


@dataclass(frozen=True)
class Method:
    """What a method does, and how many training steps that takes."""

    solutions: Callable[[Loop], Iterator[Solution]]
    steps: Callable[[Loop], int]


METHODS: Mapping[str, Method] = {
    "dense": Method(magnitude.dense, magnitude.dense_steps),
    "one-shot": Method(magnitude.one_shot, magnitude.one_shot_steps),
    "iterative": Method(magnitude.iterative, magnitude.iterative_steps),
    "imp": Method(imp.imp, imp.imp_steps),
    "swamp": Method(swamp.swamp, swamp.swamp_steps),
    "slimming": Method(slimming.slimming, magnitude.one_shot_steps),
    "admm": Method(admm.admm, admm.admm_steps),
    "asp": Method(nm.asp, nm.asp_steps),
    "ste": Method(nm.gradient_flow, nm.gradient_flow_steps),
    "sr-ste": Method(nm.gradient_flow, nm.gradient_flow_steps),
    "mdgf-linear": Method(nm.gradient_flow, nm.gradient_flow_steps),
    "mdgf-exponential": Method(nm.gradient_flow, nm.gradient_flow_steps),
    "sdgf-stepwise": Method(nm.structure_decay, nm.gradient_flow_steps),
    "sdgf-geometric": Method(nm.structure_decay, nm.gradient_flow_steps),
}
