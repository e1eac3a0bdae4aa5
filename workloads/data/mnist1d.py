"""Sequences of 40 numbers in 10 classes, in the manner of MNIST-1D.

Alike with MNIST-1D (Greydanus and Kobak, arXiv 2011.14439): 5,000 samples, as many of each class; a template of 12
points, padded with 36 to 60 zeros, stretched to one length, scaled, translated by up to 48 of 72 places around the end;
correlated noise in place of the padding, independent noise over all; sheared, and sampled at 40 points; all with its
constants; mean 0 and deviation 1 over the whole set.
Not alike: the templates are our own, so is the order of the draws, and the split is drawn anew for each seed.
Accuracies measured on MNIST-1D do not carry over to the point.
"""

from __future__ import annotations

import numpy as np

from .samples import Data, check_fraction

SAMPLES, LENGTH = 5000, 40
PADDING = (36, 60)  # zeros behind a template
SCALE = 0.4  # the amplitude is drawn from 1 - SCALE / 2 to 1 + SCALE / 2
TRANSLATION = 48
CORRELATED_NOISE, CORRELATION = 0.25, 2.0  # the latter: deviation of the smoothing Gaussian, in places
NOISE = 0.02
SHEAR = 0.75  # the slope is drawn from -SHEAR / 2 to SHEAR / 2 over the whole sequence
SEED = 2011

# One row a class, drawn by hand: no two differ by translation, scale and slope alone.
TEMPLATES = np.array(
    [
        [0, 2, 4, 5, 6, 6, 6, 6, 5, 4, 2, 0],  # a dome
        [0, 0, 0, 1, 5, 8, 5, 1, 0, 0, 0, 0],  # a peak
        [0, 3, 5, 5, 3, 0, -3, -5, -5, -3, -1, 0],  # a wave
        [0, 4, 6, 4, 1, 0, 0, 1, 4, 6, 4, 0],  # two domes
        [0, 6, 6, 6, -3, -3, -3, 6, 6, 6, 3, 0],  # a trench
        [0, -5, -5, -5, -5, 0, 5, 5, 5, 5, 2, 0],  # a step up
        [0, -2, -4, -5, -6, -6, -6, -6, -5, -4, -2, 0],  # a bowl
        [0, 7, 6, 5, 4, 3, 2, 1, 0, -1, -1, 0],  # a cliff and its slope
        [0, 6, -2, 6, -2, 6, -2, 6, -2, 6, -2, 0],  # teeth
        [0, -1, -2, -3, -4, -5, -6, 6, 6, 3, 1, 0],  # a slope and its cliff
    ],
    np.float64,
)


def mnist1d(test_fraction: float, seed: int) -> Data:
    """Return 5,000 sequences of 40 numbers, 10 classes, of which ``seed`` draws those to test; always the same ones."""
    check_fraction(test_fraction, SAMPLES)
    inputs, labels = generate()
    order = np.random.default_rng(seed).permutation(SAMPLES)
    tested, trained = np.split(order, [round(test_fraction * SAMPLES)])
    return Data(inputs[trained], labels[trained], inputs[tested], labels[tested])


def generate(samples: int = SAMPLES, seed: int = SEED) -> tuple[np.ndarray, np.ndarray]:
    """Return ``samples`` sequences, float32 (samples, 40), and their classes, int64, in turns; ``seed`` draws them."""
    rng = np.random.default_rng(seed)
    labels = np.arange(samples) % len(TEMPLATES)
    length = TEMPLATES.shape[1] + PADDING[1]  # 72 places, to which every padded template is stretched
    padded = TEMPLATES.shape[1] + rng.integers(PADDING[0], PADDING[1] + 1, samples)
    shift = rng.integers(0, TRANSLATION, samples)
    place = (np.arange(length) - shift[:, None]) % length * ((padded - 1) / (length - 1))[:, None]
    x = _drawn(_white(TEMPLATES), labels, place)
    x *= 1 + SCALE * (rng.random((samples, 1)) - 0.5)
    background = place > TEMPLATES.shape[1] - 1
    x += background * CORRELATED_NOISE * _smooth(rng.standard_normal((samples, length)))
    x += NOISE * rng.standard_normal((samples, length))
    x = _resampled(x, LENGTH)
    x -= SHEAR * (rng.random((samples, 1)) - 0.5) * np.linspace(-0.5, 0.5, LENGTH)
    x = (x - x.mean()) / x.std()
    return x.astype(np.float32), labels.astype(np.int64)


def _white(templates: np.ndarray) -> np.ndarray:
    """Return the templates with deviation 1/6 each, their first value 0."""
    white = templates / templates.std(axis=1, keepdims=True) / 6
    shifted: np.ndarray = white - white[:, :1]
    return shifted


def _drawn(templates: np.ndarray, labels: np.ndarray, place: np.ndarray) -> np.ndarray:
    """Return the template of each label at the places asked for, between its points in proportion; behind it 0."""
    last = templates.shape[1] - 1
    rows = np.pad(templates, ((0, 0), (0, 2)))[labels]
    place = np.minimum(place, last + 1)
    left = place.astype(np.int64)
    share = place - left
    a, b = (np.take_along_axis(rows, left + i, axis=1) for i in (0, 1))
    drawn: np.ndarray = (1 - share) * a + share * b
    return drawn


def _smooth(noise: np.ndarray) -> np.ndarray:
    """Return each row smoothed by a Gaussian, mirrored at its ends."""
    reach = round(4 * CORRELATION)
    kernel = np.exp(-0.5 * (np.arange(-reach, reach + 1) / CORRELATION) ** 2)
    kernel /= kernel.sum()
    mirrored = np.pad(noise, ((0, 0), (reach, reach)), mode="symmetric")
    smooth: np.ndarray = np.lib.stride_tricks.sliding_window_view(mirrored, len(kernel), axis=1) @ kernel
    return smooth


def _resampled(x: np.ndarray, length: int) -> np.ndarray:
    """Return each row at ``length`` evenly spaced places, between its values in proportion."""
    place = np.linspace(0, x.shape[1] - 1, length)
    left = np.minimum(place.astype(np.int64), x.shape[1] - 2)
    share = place - left
    between: np.ndarray = (1 - share) * x[:, left] + share * x[:, left + 1]
    return between
