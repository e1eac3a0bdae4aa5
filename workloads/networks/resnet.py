"""Residual networks for small images, He et al., CVPR 2016, section 4.2."""

from __future__ import annotations

import torch
from torch import nn

WIDTHS = (16, 32, 64)


class Block(nn.Module):
    """Two convolutions of 3 x 3 with batch norm, beside a shortcut without parameters.

    Where the sides are halved, the shortcut takes every second pixel and fills the new channels with zeros (option A).
    """

    def __init__(self, channels: int, width: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels, width, 3, stride=stride, padding=1, bias=False)
        self.norm1 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, padding=1, bias=False)
        self.norm2 = nn.BatchNorm2d(width)
        self.stride, self.added = stride, width - channels

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return what follows the block, (batch, width, height / stride, width / stride)."""
        shortcut = x[:, :, :: self.stride, :: self.stride]
        if self.added:
            shortcut = nn.functional.pad(shortcut, (0, 0, 0, 0, 0, self.added))
        x = torch.relu(self.norm1(self.conv1(x)))
        return torch.relu(self.norm2(self.conv2(x)) + shortcut)


class ResNet(nn.Module):
    """A convolution, three stages of ``blocks`` blocks, a mean over what is left and linear: 6 blocks + 2 layers."""

    def __init__(self, channels: int, classes: int, blocks: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, WIDTHS[0], 3, padding=1, bias=False)
        self.norm = nn.BatchNorm2d(WIDTHS[0])
        before = WIDTHS[0]
        for stage, width in enumerate(WIDTHS, start=1):
            made = []
            for i in range(blocks):
                made.append(Block(before, width, stride=2 if i == 0 and stage > 1 else 1))
                before = width
            self.add_module(f"stage{stage}", nn.Sequential(*made))
        self.fc = nn.Linear(WIDTHS[-1], classes)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight)  # as the paper draws them

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Return the scores of the classes, (batch, classes)."""
        x = torch.relu(self.norm(self.conv(images)))
        x = self.get_submodule("stage3")(self.get_submodule("stage2")(self.get_submodule("stage1")(x)))
        scores: torch.Tensor = self.fc(x.mean(dim=(2, 3)))
        return scores
