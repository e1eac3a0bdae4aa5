"""Fixed-point numbers as an accelerator's datapath holds them: a word of so many bits, a binary point per tensor."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property

import numpy as np


@dataclass(frozen=True)
class Format:
    """Two's-complement words of ``word_bits`` with ``fraction_bits`` behind the binary point (may be negative)."""

    word_bits: int
    fraction_bits: int

    @cached_property
    def least(self) -> int:
        """Return the least word."""
        return -(1 << (self.word_bits - 1))

    @cached_property
    def greatest(self) -> int:
        """Return the greatest word."""
        return (1 << (self.word_bits - 1)) - 1

    def to_words(self, values: np.ndarray) -> np.ndarray:
        """Return the nearest words (int64), ties to even, saturated."""
        scaled = np.rint(np.ldexp(np.asarray(values, np.float64), self.fraction_bits))
        return np.clip(scaled, self.least, self.greatest).astype(np.int64)

    def to_values(self, words: np.ndarray) -> np.ndarray:
        """Return what ``words`` stand for, in float64."""
        return np.ldexp(np.asarray(words, np.float64), -self.fraction_bits)


def largest(values: np.ndarray) -> float:
    """Return the largest magnitude in ``values``, 0.0 where there are none."""
    return float(max(values.max(initial=0.0), -values.min(initial=0.0)))


def format_for(magnitude: float, word_bits: int) -> Format:
    """Return the format of ``word_bits`` with the finest step in which ``magnitude`` does not saturate.

    For 0 all bits but the sign are fraction bits.
    """
    if magnitude == 0:
        return Format(word_bits, word_bits - 1)
    greatest = (1 << (word_bits - 1)) - 1
    fraction_bits = word_bits - math.frexp(magnitude)[1]  # too fine by one or two bits
    while round(math.ldexp(magnitude, fraction_bits)) > greatest:
        fraction_bits -= 1
    return Format(word_bits, fraction_bits)


@dataclass(frozen=True)
class Datapath:
    """The formats along a multiply-accumulate: weights and activations in, accumulators out.

    A product is shifted to the accumulator's binary point, rounding half up (`assumed`: the paper only names a shift),
    and added with saturation.
    """

    weights: Format
    activations: Format
    accumulators: Format

    @cached_property
    def shift(self) -> int:
        """Return how many fraction bits a product loses on its way to the accumulator; negative where it gains some."""
        return self.weights.fraction_bits + self.activations.fraction_bits - self.accumulators.fraction_bits

    def align(self, product: int) -> int:
        """Return ``product`` at the accumulator's binary point."""
        shift = self.shift
        return (product + (1 << (shift - 1))) >> shift if shift > 0 else product << -shift

    def accumulate(self, total: int, product: int) -> tuple[int, bool]:
        """Return ``total`` plus the aligned ``product``, saturated, and whether it had to be."""
        exact = total + self.align(product)
        held = min(max(exact, self.accumulators.least), self.accumulators.greatest)
        return held, held != exact
