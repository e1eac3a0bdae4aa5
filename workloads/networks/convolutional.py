"""Small convolutional networks, over images and over sequences."""

from __future__ import annotations

import torch
from torch import nn


class ConvNet(nn.Module):
    """Three convolutions of 3 x 3 with batch norm and ReLU, strides 1, 2 and 2, a mean over what is left, linear."""

    def __init__(self, channels: int, height: int, width: int, classes: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels, 16, 3, padding=1, bias=False)
        self.norm1 = nn.BatchNorm2d(16)
        self.conv2 = nn.Conv2d(16, 32, 3, stride=2, padding=1, bias=False)
        self.norm2 = nn.BatchNorm2d(32)
        self.conv3 = nn.Conv2d(32, 64, 3, stride=2, padding=1, bias=False)
        self.norm3 = nn.BatchNorm2d(64)
        self.fc = nn.Linear(64, classes)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Return the scores of the classes, (batch, classes)."""
        x = torch.relu(self.norm1(self.conv1(images)))
        x = torch.relu(self.norm2(self.conv2(x)))
        x = torch.relu(self.norm3(self.conv3(x)))
        scores: torch.Tensor = self.fc(x.mean(dim=(2, 3)))
        return scores


class ConvNet1d(nn.Module):
    """Three convolutions with ReLU over a sequence (batch, steps) or (batch, steps, features), then linear."""

    def __init__(self, features: int, steps: int, classes: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv1d(features, 25, 5, stride=2, padding=1)
        self.conv2 = nn.Conv1d(25, 25, 3, stride=2, padding=1)
        self.conv3 = nn.Conv1d(25, 25, 3, stride=2, padding=1)
        for kernel in (5, 3, 3):
            steps = (steps + 2 - kernel) // 2 + 1
        self.fc = nn.Linear(25 * steps, classes)

    def forward(self, sequences: torch.Tensor) -> torch.Tensor:
        """Return the scores of the classes, (batch, classes)."""
        x = sequences[:, None] if sequences.ndim == 2 else sequences.transpose(1, 2)
        x = torch.relu(self.conv1(x))
        x = torch.relu(self.conv2(x))
        x = torch.relu(self.conv3(x))
        scores: torch.Tensor = self.fc(x.flatten(start_dim=1))
        return scores
