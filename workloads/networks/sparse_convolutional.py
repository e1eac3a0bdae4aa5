"""Convolutions that compute where voxels are, and a small network of them that tells what a cloud of points is."""

from __future__ import annotations

import math

import torch
from torch import nn

from .voxels import Voxels, voxels_of


class SparseConv3d(nn.Module):
    """A convolution of features that lie on voxels: each offset of a cubic kernel has a matrix of its own.

    ``weight`` is (out, in, kernel_size ** 3), offsets with x slowest and z fastest, as layers of op sparse_conv3d keep
    it. With ``stride`` 1 the outputs lie where the inputs do, with a larger one on `Voxels.coarser`.
    Source: Graham et al., "3D Semantic Segmentation with Submanifold Sparse Convolutional Networks", CVPR 2018.
    """

    def __init__(
        self, in_channels: int, out_channels: int, kernel_size: int = 3, stride: int = 1, bias: bool = True
    ) -> None:
        super().__init__()
        self.in_channels, self.out_channels = in_channels, out_channels
        self.kernel_size, self.stride = kernel_size, stride
        self.weight = nn.Parameter(torch.empty(out_channels, in_channels, kernel_size**3))
        self.bias = nn.Parameter(torch.empty(out_channels)) if bias else None
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw weights and bias from torch's generator, as torch's own convolutions do."""
        nn.init.kaiming_uniform_(self.weight, a=math.sqrt(5))
        if self.bias is not None:
            bound = 1 / math.sqrt(self.weight[0].numel())
            nn.init.uniform_(self.bias, -bound, bound)

    def forward(self, features: torch.Tensor, voxels: Voxels) -> torch.Tensor:
        """Return the features of the outputs, (voxels, out), of those of ``voxels``, (voxels, in)."""
        pairs = voxels.pairs(self.kernel_size, self.stride)
        inputs, outputs = (torch.from_numpy(each).to(features.device) for each in (pairs.inputs, pairs.outputs))
        met = torch.split(features.index_select(0, inputs), list(pairs.counts))
        products = [rows @ matrix for rows, matrix in zip(met, self.weight.permute(2, 1, 0), strict=True) if len(rows)]
        rows = len(voxels.coarser(self.stride).coordinates)
        sums = features.new_zeros(rows, self.out_channels).index_add(0, outputs, torch.cat(products))
        return sums if self.bias is None else sums + self.bias

    def uses(self, features: torch.Tensor, voxels: Voxels) -> float:
        """Return how often these features use a weight, on average over the offsets of the kernel."""
        return sum(voxels.pairs(self.kernel_size, self.stride).counts) / self.kernel_size**3


class SparseConvNet(nn.Module):
    """Three sparse convolutions of 3 cells a side, halved in between, the largest of each channel a cloud, linear.

    Batch norm and ReLU follow each convolution. All that goes in is where the points are: a voxel with any has feature
    1. A voxel is an eighth of the unit in which points come, so that a cloud of radius 1 spans 16.
    """

    VOXEL_SIZE = 0.125
    COARSEST = 4

    def __init__(self, classes: int) -> None:
        super().__init__()
        self.conv1 = SparseConv3d(1, 16, bias=False)
        self.norm1 = nn.BatchNorm1d(16)
        self.down1 = SparseConv3d(16, 32, kernel_size=2, stride=2, bias=False)
        self.norm2 = nn.BatchNorm1d(32)
        self.conv2 = SparseConv3d(32, 32, bias=False)
        self.norm3 = nn.BatchNorm1d(32)
        self.down2 = SparseConv3d(32, 64, kernel_size=2, stride=2, bias=False)
        self.norm4 = nn.BatchNorm1d(64)
        self.conv3 = SparseConv3d(64, 64, bias=False)
        self.norm5 = nn.BatchNorm1d(64)
        self.fc = nn.Linear(64, classes)

    def forward(self, points: torch.Tensor) -> torch.Tensor:
        """Return the scores of the classes, (batch, classes), of clouds (batch, points, 3)."""
        voxels = voxels_of(points.detach().cpu().numpy(), self.VOXEL_SIZE, self.COARSEST)
        x = points.new_ones(len(voxels.coordinates), 1)
        for conv, norm in (
            (self.conv1, self.norm1),
            (self.down1, self.norm2),
            (self.conv2, self.norm3),
            (self.down2, self.norm4),
            (self.conv3, self.norm5),
        ):
            x = torch.relu(norm(conv(x, voxels)))
            voxels = voxels.coarser(conv.stride)
        scores: torch.Tensor = self.fc(largest(x, voxels))
        return scores


def largest(features: torch.Tensor, voxels: Voxels) -> torch.Tensor:
    """Return the largest feature of each channel in each cloud, (clouds, channels)."""
    cloud = torch.from_numpy(voxels.cloud).to(features.device)
    room = features.new_zeros(voxels.clouds, features.shape[1])
    return room.scatter_reduce(0, cloud[:, None].expand_as(features), features, "amax", include_self=False)
