"""A vision transformer small enough for a CPU, every projection a linear layer of its own, so that each is prunable."""

from __future__ import annotations

import math

import torch
from torch import nn


class Attention(nn.Module):
    """Self-attention of ``heads`` heads: softmax(q k / sqrt(d)) v, between projections q, k, v and out."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.q = nn.Linear(width, width)
        self.k = nn.Linear(width, width)
        self.v = nn.Linear(width, width)
        self.out = nn.Linear(width, width)
        self.heads = heads

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return (batch, tokens, width) for the same."""
        q, k, v = (self._split(projection(x)) for projection in (self.q, self.k, self.v))
        scores = q @ k.transpose(-1, -2) / math.sqrt(q.shape[-1])  # (batch, heads, tokens, tokens)
        mixed: torch.Tensor = (scores.softmax(dim=-1) @ v).transpose(1, 2).flatten(start_dim=2)
        out: torch.Tensor = self.out(mixed)
        return out

    def _split(self, x: torch.Tensor) -> torch.Tensor:
        batch, tokens, width = x.shape
        return x.reshape(batch, tokens, self.heads, width // self.heads).transpose(1, 2)  # (batch, heads, tokens, ...)


class Encoder(nn.Module):
    """Attention, then two linear layers with GELU between, of twice the width; each after a norm, each added."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(width)
        self.attention = Attention(width, heads)
        self.norm2 = nn.LayerNorm(width)
        self.up = nn.Linear(width, 2 * width)
        self.down = nn.Linear(2 * width, width)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return (batch, tokens, width) for the same."""
        x = x + self.attention(self.norm1(x))
        down: torch.Tensor = self.down(nn.functional.gelu(self.up(self.norm2(x))))
        return x + down


class VisionTransformer(nn.Module):
    """Patches become tokens by a linear layer and a learned position; encoders; a norm, the mean token, linear."""

    def __init__(
        self, shape: tuple[int, int, int], classes: int, *, patch: int, width: int, layers: int, heads: int
    ) -> None:
        super().__init__()
        channels, rows, columns = shape[0], shape[1] // patch, shape[2] // patch
        self.patch = patch
        self.embed = nn.Linear(channels * patch * patch, width)
        self.position = nn.Parameter(torch.empty(rows * columns, width))
        nn.init.trunc_normal_(self.position, std=0.02)
        self.encoders = nn.Sequential(*(Encoder(width, heads) for _ in range(layers)))
        self.norm = nn.LayerNorm(width)
        self.fc = nn.Linear(width, classes)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Return the scores of the classes, (batch, classes)."""
        batch, channels, height, width = images.shape
        p = self.patch
        tiles = images.reshape(batch, channels, height // p, p, width // p, p)
        patches = tiles.permute(0, 2, 4, 1, 3, 5).flatten(3).flatten(1, 2)  # (batch, tokens, channels * p * p)
        x = self.encoders(self.embed(patches) + self.position)
        scores: torch.Tensor = self.fc(self.norm(x).mean(dim=1))
        return scores
