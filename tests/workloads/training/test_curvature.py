import math

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn.functional import cross_entropy

from gossamer.workloads.training.curvature import hessian_trace, top_eigenvalue

from .solutions import LOADER, WHOLE, A, drawn, small, state


class Quadratic(nn.Module):
    """The loss p' H p / 2, whatever the samples."""

    def __init__(self, hessian):
        super().__init__()
        self.p = nn.Parameter(torch.zeros(len(hessian), dtype=torch.float64))
        self.register_buffer("hessian", torch.from_numpy(np.array(hessian, float)))

    def forward(self, inputs):
        return self.p @ self.hessian @ self.p / 2


def bowl(hessian):
    module = Quadratic(hessian)
    return module, {"p": np.ones(len(hessian))}, LOADER


def as_it_is(outputs, labels):
    return outputs


def test_the_trace_of_a_diagonal_hessian_is_exact_with_any_probe():
    found = hessian_trace(*bowl(np.diag([4.0, 2, -1, 0.5])), samples=5, loss=as_it_is)
    assert (found.mean, found.samples) == (pytest.approx(5.5), 5)
    assert found.standard_error == pytest.approx(0, abs=1e-12)


def rotated(eigenvalues, seed=0):
    turn, _ = np.linalg.qr(np.random.default_rng(seed).normal(size=(len(eigenvalues),) * 2))
    return turn @ np.diag(eigenvalues) @ turn.T


def test_the_standard_error_is_that_of_the_probes():
    hessian = rotated([5, 3, 2, 1, 0.5, 0.1])
    errors = [hessian_trace(*bowl(hessian), samples=40, seed=s, loss=as_it_is) for s in range(30)]
    off = np.array([(found.mean - 11.6) / found.standard_error for found in errors])
    assert np.abs(off).max() < 4
    assert 0.7 < off.std() < 1.4
    # The variance of a probe of random signs is twice the sum of the squares off the diagonal.
    spread = math.sqrt(2 * (np.sum(hessian**2) - np.sum(np.diag(hessian) ** 2)) / 40)
    assert np.mean([found.standard_error for found in errors]) == pytest.approx(spread, rel=0.1)


@pytest.mark.parametrize("eigenvalues", [[5, 3, 2, 1], [5, -3, 2], [-7, 2, 1], [-3, -2, -1], [2, 2, 1], [1e-6, 1e-7]])
def test_power_iteration_finds_the_largest_eigenvalue(eigenvalues):
    found = top_eigenvalue(*bowl(rotated(eigenvalues)), tolerance=1e-4, iterations=2000, loss=as_it_is)
    assert found.converged
    assert found.residual <= 1e-4
    assert found.value == pytest.approx(max(eigenvalues), rel=1e-4)


def test_power_iteration_says_when_it_did_not_converge():
    found = top_eigenvalue(*bowl(rotated([5, 4.9, 4.8])), tolerance=1e-6, iterations=3, loss=as_it_is)
    assert not found.converged
    assert found.iterations == 3
    assert found.residual > 1e-6
    assert 4.8 <= found.value <= 5


def test_a_flat_loss_has_no_curvature():
    assert top_eigenvalue(*bowl(np.zeros((3, 3))), loss=as_it_is).value == 0
    assert hessian_trace(*bowl(np.eye(2)), samples=2, loss=lambda outputs, labels: outputs * 0 + 1).mean == 0
    assert hessian_trace(nn.Linear(4, 1), state(nn.Linear(4, 1)), LOADER, samples=2,
                         loss=lambda outputs, labels: outputs.mean()).mean == 0  # fmt: skip


def exact_hessian(module, solution):
    names = list(solution)
    shapes = [solution[name].shape for name in names]
    sizes = [int(np.prod(shape)) for shape in shapes]
    inputs, labels = (torch.cat(parts) for parts in zip(*LOADER, strict=True))

    def loss(flat):
        parts = [part.reshape(shape) for part, shape in zip(flat.split(sizes), shapes, strict=True)]
        outputs = torch.func.functional_call(module, dict(zip(names, parts, strict=True)), inputs.double())
        return cross_entropy(outputs, labels)

    flat = torch.cat([torch.from_numpy(solution[name]).ravel() for name in names])
    return torch.autograd.functional.hessian(loss, flat).numpy()


@pytest.mark.parametrize("masked", [False, True])
def test_trace_and_eigenvalue_are_those_of_the_exact_hessian(masked):
    module = drawn(small, 5).double()
    solution = state(module)
    loader = [(inputs.double(), labels) for inputs, labels in LOADER]
    masks = {"0.weight": np.random.default_rng(1).random((6, 4)) < 0.4} if masked else None
    if masked:
        solution["0.weight"] = solution["0.weight"] * masks["0.weight"]
    hessian = exact_hessian(module, solution)
    kept = np.concatenate([
        (masks or {}).get(name, np.ones(value.shape, bool)).ravel() for name, value in solution.items()
    ])  # fmt: skip
    hessian = hessian[np.ix_(kept, kept)]
    top = top_eigenvalue(module, solution, loader, tolerance=1e-3, masks=masks)
    assert top.converged
    assert top.value == pytest.approx(np.linalg.eigvalsh(hessian)[-1], rel=1e-5)
    found = hessian_trace(module, solution, loader, samples=150, masks=masks)
    assert abs(found.mean - np.trace(hessian)) < 4 * found.standard_error
    assert found.standard_error < 0.1 * np.trace(hessian)


def test_batches_of_any_size_give_the_curvature_of_all_samples():
    one = hessian_trace(small(), A, LOADER, samples=4)
    assert hessian_trace(small(), A, WHOLE, samples=4).mean == pytest.approx(one.mean, rel=1e-5)
    assert hessian_trace(small(), A, LOADER, samples=4) == one
    assert hessian_trace(small(), A, LOADER, samples=4, seed=1) != one


def test_fused_attention_has_a_curvature_too():
    class Attention(nn.Module):
        def __init__(self):
            super().__init__()
            self.qkv = nn.Linear(4, 12)

        def forward(self, inputs):
            q, k, v = self.qkv(inputs[:, None, None, :].repeat(1, 1, 3, 1)).chunk(3, dim=-1)
            return nn.functional.scaled_dot_product_attention(q, k, v)[:, 0, 0, :3]

    module = drawn(Attention, 0)
    assert hessian_trace(module, state(module), LOADER, samples=3).mean != 0
