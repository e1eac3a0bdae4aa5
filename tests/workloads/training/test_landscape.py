import math

import numpy as np
import pytest
import torch
from torch import nn

from gossamer.workloads.training.landscape import instability, lines_between, loss_along_line, loss_surface

from .solutions import LOADER, A, B, C, loss_at, normed, samples, small, trained_statistics


def test_a_line_has_the_losses_of_the_weights_between_its_ends():
    line = loss_along_line(small(), A, B, LOADER, points=5)
    assert line.position.tolist() == [0, 0.25, 0.5, 0.75, 1]
    between = [{name: (1 - t) * A[name] + np.float32(t) * B[name] for name in A} for t in line.position]
    assert line.loss == pytest.approx([loss_at(solution) for solution in between], rel=1e-5)


def test_a_line_has_30_points_and_no_loss_but_that_of_its_ends_between_equal_ones():
    line = loss_along_line(small(), A, A, LOADER)
    assert len(line.position) == len(line.accuracy) == 30
    assert line.loss == pytest.approx(loss_at(A), rel=1e-6)
    assert line.instability == 0
    assert line.barrier == pytest.approx(0, abs=1e-12)


def test_instability_is_the_highest_error_over_the_mean_of_the_ends():
    # Both signs give the same function; halfway the network says nothing, and class 0 wins every time.
    module = nn.Sequential(nn.Linear(1, 1, bias=False), nn.Linear(1, 2, bias=False))
    plus = {"0.weight": np.ones((1, 1), np.float32), "1.weight": np.array([[1], [-1]], np.float32)}
    minus = {name: -value for name, value in plus.items()}
    loader = [(torch.tensor([[1.0], [-1.0], [-2.0], [-3.0]]), torch.tensor([0, 1, 1, 1]))]
    line = loss_along_line(module, plus, minus, loader, points=3)
    assert line.accuracy.tolist() == [1, 0.25, 1]
    assert line.instability == instability(module, plus, minus, loader, points=3) == 0.75
    assert line.barrier == pytest.approx(math.log(2) - line.loss[0])
    # Between an end that is right and one that is wrong, the mean of both is what counts.
    wrong = {"0.weight": plus["0.weight"], "1.weight": -plus["1.weight"]}
    assert instability(module, plus, wrong, loader, points=2) == 0.5


def test_lines_go_from_each_solution_to_the_next_or_between_all():
    chain = lines_between(small(), [A, B, C], LOADER, points=3, names=["one", "two", "three"])
    assert [(line.start, line.end) for line in chain] == [("one", "two"), ("two", "three")]
    every = lines_between(small(), [A, B, C], LOADER, points=3, every_pair=True)
    assert [(line.start, line.end) for line in every] == [("1", "2"), ("1", "3"), ("2", "3")]
    assert np.array_equal(every[0].loss, chain[0].loss)
    assert every[1].loss[-1] == pytest.approx(loss_at(C), rel=1e-6)


def test_pruned_weights_stay_0_on_the_line_and_on_the_plane():
    seen = []
    module = small()
    module.register_forward_pre_hook(lambda m, _: seen.append(m[0].weight.detach().clone()))
    mask = np.random.default_rng(0).random((6, 4)) < 0.3
    a, b, c = ({**s, "0.weight": s["0.weight"] * mask} for s in (A, B, C))
    loss_along_line(module, a, b, LOADER, points=4)
    loss_surface(module, a, b, c, LOADER, steps=3)
    assert len(seen) == (4 + 9) * len(LOADER)
    assert not any(weight[torch.from_numpy(~mask)].any() for weight in seen)
    assert any(weight.any() for weight in seen)


def test_buffers_are_interpolated_and_counters_are_not():
    a, b = trained_statistics(1), trained_statistics(2)
    middle = {name: (value + b[name]) / 2 for name, value in a.items()} | {"1.num_batches_tracked": np.array(5)}
    line = loss_along_line(normed(), a, b, LOADER, points=3)
    assert line.loss == pytest.approx([loss_at(s, normed) for s in (a, middle, b)], rel=1e-5)


def test_batch_norm_is_recalibrated_on_the_loader_that_is_given():
    a, b = trained_statistics(1), trained_statistics(2)
    training = samples(50, seed=9, batch=50)
    line = loss_along_line(normed(), a, b, LOADER, points=3, recalibrate=training)
    for t, loss in zip(line.position, line.loss, strict=True):
        solution = {name: (1 - t) * value + t * b[name] for name, value in a.items()}
        hidden = training[0][0].numpy() @ solution["0.weight"].T + solution["0.bias"]
        solution["1.running_mean"], solution["1.running_var"] = hidden.mean(axis=0), hidden.var(axis=0, ddof=1)
        solution |= {"1.num_batches_tracked": np.array(1)}
        assert loss == pytest.approx(loss_at({n: v.astype(a[n].dtype) for n, v in solution.items()}, normed), rel=1e-4)


def test_a_surface_goes_through_its_three_solutions():
    # c is made so that it lies above the middle of a and b: the grid then meets all three.
    direction = {name: B[name] - A[name] for name in A}
    across = {name: C[name] - A[name] for name in A}
    width = math.sqrt(sum(float((d**2).sum()) for d in direction.values()))
    along = sum(float((across[name] * d).sum()) for name, d in direction.items()) / width**2
    c = {name: A[name] + across[name] + np.float32(0.5 - along) * d for name, d in direction.items()}
    surface = loss_surface(small(), A, B, c, LOADER, steps=5, margin=0)
    height = math.sqrt(sum(float(((c[name] - A[name] - 0.5 * d) ** 2).sum()) for name, d in direction.items()))
    assert surface.corners == pytest.approx(np.array([[0, 0], [width, 0], [width / 2, height]]), rel=1e-5)
    assert (surface.x[0], surface.x[-1], surface.y[0], surface.y[-1]) == pytest.approx((0, width, 0, height), rel=1e-5)
    corners = (surface.loss[0, 0], surface.loss[0, -1], surface.loss[-1, 2])
    assert corners == pytest.approx([loss_at(s) for s in (A, B, c)], rel=1e-4)
    inner = {name: A[name] + 0.25 * direction[name] for name in A}
    assert surface.loss[0, 1] == pytest.approx(loss_at(inner), rel=1e-4)


def test_a_surface_reaches_past_its_solutions_by_the_margin():
    surface = loss_surface(small(), A, B, C, LOADER, steps=3, margin=0.25)
    low, high = surface.corners.min(axis=0), surface.corners.max(axis=0)
    for places, least, most in zip((surface.x, surface.y), low, high, strict=True):
        reach = 0.25 * (most - least)
        assert (places[0], places[-1]) == pytest.approx((least - reach, most + reach))
    assert surface.loss.shape == surface.accuracy.shape == (3, 3)
    # Distances on the plane are those in weight space.
    far = math.sqrt(sum(float(((B[name] - C[name]) ** 2).sum()) for name in A))
    assert np.linalg.norm(surface.corners[1] - surface.corners[2]) == pytest.approx(far, rel=1e-5)
