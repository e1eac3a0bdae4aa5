"""A recurrent network that reads a sequence and then decides."""

from __future__ import annotations

import torch
from torch import nn


class SequenceClassifier(nn.Module):
    """One LSTM layer over the steps, and a linear layer on its last state.

    Samples are (steps, features), (steps,) of single numbers, or images (channels, height, width) read by row.
    """

    def __init__(self, shape: tuple[int, ...], classes: int, units: int) -> None:
        super().__init__()
        features = {1: 1, 2: shape[-1], 3: shape[0] * shape[-1]}[len(shape)]
        self.lstm = nn.LSTM(features, units, batch_first=True)
        self.fc = nn.Linear(units, classes)

    def forward(self, samples: torch.Tensor) -> torch.Tensor:
        """Return the scores of the classes, (batch, classes)."""
        if samples.ndim == 2:
            steps = samples[:, :, None]
        else:
            steps = samples if samples.ndim == 3 else samples.transpose(1, 2).flatten(start_dim=2)
        states, _ = self.lstm(steps)
        scores: torch.Tensor = self.fc(states[:, -1])
        return scores
