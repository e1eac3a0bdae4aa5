"""LSTM layers executed in numpy.

    i, f, o = sigmoid(W_x x(t) + W_r y(t-1) + peephole c + b)       o sees c(t), i and f see c(t-1)
    g       = tanh(W_x x(t) + W_r y(t-1) + b)
    c(t)    = f c(t-1) + i g
    m(t)    = o tanh(c(t));   y(t) = projection m(t), or m(t) where there is none

Source: Sak et al., "Long short-term memory based recurrent neural network architectures for large vocabulary speech
recognition", 2014 (arXiv 1402.1128), whose LSTM ESE runs; without peepholes and projection that of torch.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from .lstm_rules import GATES, split
from .trace import Layer


@dataclass(frozen=True, eq=False)
class LstmRun:
    """What an LSTM computes, in float64, for each sample and step.

    ``gates``: (samples, steps, 4, C), before the sigmoid or tanh. ``cells``: c, (samples, steps, C). ``memory``: m,
    (samples, steps, C). ``hidden``: y, (samples, steps, R). ``peak``: the largest magnitude of a gate, or of the share
    that one of its two matrices has in it.
    """

    gates: np.ndarray
    cells: np.ndarray
    memory: np.ndarray
    hidden: np.ndarray
    peak: float

    @cached_property
    def before(self) -> np.ndarray:
        """Return the hidden state that each step met, (samples, steps, R): 0, then that of the step before."""
        return np.concatenate([np.zeros_like(self.hidden[:, :1]), self.hidden[:, :-1]], axis=1)


def sigmoid(values: np.ndarray) -> np.ndarray:
    """Return 1 / (1 + exp(-values)); no value overflows."""
    return 0.5 + 0.5 * np.tanh(0.5 * values)


def run_lstm(layer: Layer) -> LstmRun:
    """Return what ``layer``, of op lstm, computes from its inputs; the first hidden state and cells are 0."""
    inputs, weight = layer.inputs.astype(np.float64), layer.weight.astype(np.float64)
    samples, steps, features = inputs.shape
    cells, size = len(weight) // 4, weight.shape[1] - features
    gates = np.empty((samples, steps, 4, cells))
    c, m, y = (np.empty((samples, steps, width)) for width in (cells, cells, size))
    projection = None if layer.projection is None else layer.projection.astype(np.float64)
    see = np.zeros((3, cells)) if layer.peephole is None else layer.peephole.astype(np.float64)
    fed = inputs @ weight[:, :features].T  # all steps at once: the input waits for nobody
    peak = np.abs(fed).max()
    if layer.bias is not None:
        fed += layer.bias
    hidden, cell = np.zeros((samples, size)), np.zeros((samples, cells))
    for t in range(steps):
        back = hidden @ weight[:, features:].T
        now = (fed[:, t] + back).reshape(samples, 4, cells)
        now[:, :2] += see[:2] * cell[:, None]
        cell = sigmoid(now[:, 1]) * cell + sigmoid(now[:, 0]) * np.tanh(now[:, 2])
        now[:, 3] += see[2] * cell
        gates[:, t], c[:, t] = now, cell
        peak = max(peak, np.abs(back).max(), np.abs(now).max())
        m[:, t] = sigmoid(now[:, 3]) * np.tanh(cell)
        hidden = y[:, t] = m[:, t] if projection is None else m[:, t] @ projection.T
    return LstmRun(gates, c, m, y, float(peak))


def matrices(layer: Layer) -> dict[str, np.ndarray]:
    """Return the matrices of an lstm layer by name, float32 views: x_i to x_o, r_i to r_o, and its projection p."""
    parts = split(layer.weight, layer.inputs.shape[2])
    return parts if layer.projection is None else parts | {"p": layer.projection}


__all__ = ["GATES", "LstmRun", "matrices", "run_lstm", "sigmoid"]
