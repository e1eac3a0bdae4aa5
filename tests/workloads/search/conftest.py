"""Small networks, trained once for all tests of searches."""

import pytest

from gossamer.workloads.search import Trained
from gossamer.workloads.search.channels import ChannelSpace
from gossamer.workloads.search.sparsities import SparsitySpace
from gossamer.workloads.training import load_recipe


@pytest.fixture(scope="session")
def mlp():
    return Trained.of(load_recipe("lenet-digits-dense", network="mlp-100-100", epochs=5, samples=2), seed=3)


@pytest.fixture(scope="session")
def convnet():
    return Trained.of(load_recipe("convnet-digits-dense", epochs=2, samples=2), seed=3)


@pytest.fixture(scope="session")
def densities(mlp):
    return SparsitySpace(mlp)


@pytest.fixture(scope="session")
def widths(convnet):
    return ChannelSpace(convnet)
