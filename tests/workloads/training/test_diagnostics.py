"""What all diagnostics leave behind, and what they refuse."""

import numpy as np
import pytest
import torch

from gossamer.workloads.training.diagnostics import (
    Scan,
    choose_sparsities,
    hessian_trace,
    lines_between,
    loss_along_line,
    loss_surface,
    sensitivity_scan,
    top_eigenvalue,
)

from ..refusals import message
from .solutions import LOADER, A, B, C, drawn, normed, samples, small, state, trained_statistics


def every_diagnostic(module, a, b, c, masks, training):
    loss_along_line(module, a, b, LOADER, points=3, recalibrate=training)
    loss_surface(module, a, b, c, LOADER, steps=2, recalibrate=training)
    hessian_trace(module, a, LOADER, samples=2, masks=masks)
    top_eigenvalue(module, a, LOADER, iterations=2, masks=masks)
    sensitivity_scan(module, a, masks, LOADER, recalibrate=training)


def test_the_module_the_weights_and_torch_are_left_as_they_were():
    a, b, c = (trained_statistics(seed) for seed in (1, 2, 3))
    masks = {"0.weight": np.random.default_rng(0).random((6, 4)) < 0.5}
    module = drawn(normed, 8)
    module.train()
    module[1].eval()
    module[0].weight.grad = torch.full((6, 4), 3.0)
    before, gradient = state(module), module[0].weight.grad
    copies = [{name: value.copy() for name, value in s.items()} for s in (a, b, c, masks)]
    generator, threads = torch.get_rng_state(), torch.get_num_threads()
    every_diagnostic(module, a, b, c, masks, samples(30))
    assert all(np.array_equal(value, before[name]) for name, value in state(module).items())
    assert module.training and module[3].training and not module[1].training
    assert module[0].weight.grad is gradient and bool((gradient == 3).all())
    assert all(parameter.grad is None for parameter in module[4].parameters())
    for given_, copy in zip((a, b, c, masks), copies, strict=True):
        assert all(np.array_equal(given_[name], value) for name, value in copy.items())
    assert torch.equal(torch.get_rng_state(), generator)
    assert torch.get_num_threads() == threads
    assert not torch.are_deterministic_algorithms_enabled()


def test_the_module_is_given_back_even_after_an_error():
    module = small()
    before = state(module)

    def broken():
        yield LOADER[0]
        raise RuntimeError("no more")

    with pytest.raises(RuntimeError, match="no more"):
        loss_along_line(module, A, B, broken())
    assert all(np.array_equal(value, before[name]) for name, value in state(module).items())
    assert module.training


ONES = {"0.weight": np.ones((6, 4), bool)}


@pytest.mark.parametrize(
    ("act", "said"),
    [
        (lambda: loss_along_line(small(), A, B, LOADER, points=1), "a line must have at least 2 points, not 1"),
        (lambda: loss_along_line(small(), A, {"0.bias": A["0.bias"]}, LOADER),
         "solutions must have the same parameters and buffers, and one of them lacks 0.weight, 2.bias, 2.weight"),
        (lambda: loss_along_line(small(), {"x": A["0.bias"]}, {"x": A["0.bias"]}, LOADER),
         "weights must be those of the module: 0.weight, 0.bias, 2.weight, 2.bias; unknown: x; "
         "missing: 0.weight, 0.bias, 2.weight, 2.bias"),
        (lambda: sensitivity_scan(small(), {**A, "0.bias": np.ones(5)}, {}, LOADER),
         "weight 0.bias must be (6,) in the module, not (5,)"),
        (lambda: lines_between(small(), [A], LOADER), "lines need at least 2 solutions, not 1"),
        (lambda: loss_along_line(small(), A, B, iter(LOADER)),
         "a loader must give at least one batch each time it is walked; give a list or a DataLoader"),
        (lambda: loss_surface(small(), A, B, C, LOADER, steps=1),
         "a surface must have steps >= 2 and a margin >= 0, not 1 and 0.2"),
        (lambda: loss_surface(small(), A, B, A, LOADER),
         "a surface needs three solutions that are not on one line, and these are; give others"),
        (lambda: loss_surface(small(), A, A, B, LOADER),
         "a surface needs three solutions that are not on one line, and these are; give others"),
        (lambda: loss_surface(normed(), *(trained_statistics(s) for s in (1, 2, 3)), LOADER),
         "a surface of a module with batch norm needs recalibrate, a loader of training samples"),
        (lambda: hessian_trace(small(), A, LOADER, samples=1),
         "samples must be at least 2, for a standard error, not 1"),
        (lambda: hessian_trace(small(), A, LOADER, masks={"x": np.ones(3, bool)}),
         "mask x must belong to a weight of its shape (3,), and there is none"),
        (lambda: top_eigenvalue(small(), A, LOADER, tolerance=0),
         "tolerance must be above 0 and iterations at least 1, not 0 and 200"),
        (lambda: sensitivity_scan(small(), A, ONES, LOADER, sparsities=(0.5, 2)),
         "sparsities must be fractions between 0 and 1, at least one, not [0.5, 2]"),
        (lambda: sensitivity_scan(small(), A, {"2.weight": ONES["0.weight"]}, LOADER),
         "mask 2.weight must belong to a weight of its shape (6, 4), and there is none"),
        (lambda: choose_sparsities(Scan(np.zeros(1), {}, {}, 1, 0), -0.1),
         "max_drop must be a fraction of at least 0, not -0.1"),
    ],
)  # fmt: skip
def test_what_cannot_be_measured_is_refused_in_one_line(act, said):
    assert message(act) == said
