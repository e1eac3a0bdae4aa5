import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from torch import nn
from torch.nn.functional import cross_entropy

from gossamer.workloads.errors import InputError
from gossamer.workloads.patterns import Pattern
from gossamer.workloads.pruning import balanced, kept_count, magnitude
from gossamer.workloads.training.diagnostics import (
    Scan,
    balance_report,
    choose_sparsities,
    hessian_trace,
    instability,
    lines_between,
    loss_along_line,
    loss_surface,
    nm_report,
    sensitivity_scan,
    sparsity_report,
    top_eigenvalue,
)


def state(module):
    return {name: value.detach().numpy().copy() for name, value in module.state_dict().items()}


def drawn(maker, seed):
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return maker()


def small():
    return nn.Sequential(nn.Linear(4, 6), nn.Tanh(), nn.Linear(6, 3))


def normed():
    return nn.Sequential(nn.Linear(4, 6), nn.BatchNorm1d(6), nn.ReLU(), nn.Dropout(0.5), nn.Linear(6, 3))


def samples(count, seed=0, batch=7):
    generator = torch.Generator().manual_seed(seed)
    inputs = torch.randn(count, 4, generator=generator)
    labels = torch.randint(3, (count,), generator=generator)
    return list(zip(inputs.split(batch), labels.split(batch), strict=True))


LOADER = samples(20)
WHOLE = samples(20, batch=20)
A, B, C = (state(drawn(small, seed)) for seed in (1, 2, 3))


def loss_at(solution, maker=small, loader=LOADER):
    module = maker().eval()
    module.load_state_dict({name: torch.from_numpy(value) for name, value in solution.items()})
    inputs, labels = (torch.cat(parts) for parts in zip(*loader, strict=True))
    with torch.no_grad():
        return float(cross_entropy(module(inputs), labels))


def message(act, *args, **kwargs):
    with pytest.raises(InputError) as error:
        act(*args, **kwargs)
    text = str(error.value)
    assert "\n" not in text
    return text


# The line


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


def trained_statistics(seed):
    module = drawn(normed, seed)
    module.train()
    for inputs, _ in samples(30, seed=seed):
        module(inputs)
    return state(module)


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


# The plane


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


# Curvature


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


# Sensitivity


def test_a_scan_prunes_one_layer_at_a_time():
    masks = {"0.weight": np.ones((6, 4), bool), "2.weight": np.ones((3, 6), bool)}
    scan = sensitivity_scan(small(), A, masks, LOADER)
    assert scan.sparsities == pytest.approx([0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9])
    assert scan.base_loss == pytest.approx(loss_at(A), rel=1e-6)
    for name, mask in masks.items():
        assert scan.loss[name][0] == scan.base_loss
        assert scan.drop(name)[0] == 0
        for place, sparsity in enumerate(scan.sparsities):
            pruned = {**A, name: A[name] * magnitude(A[name], mask, sparsity)}
            assert scan.loss[name][place] == pytest.approx(loss_at(pruned), rel=1e-5)


def test_a_scan_varies_kernels_alone():
    masks = {"0.weight": np.ones((6, 4), bool), "0.bias": np.arange(6) > 2}
    scan = sensitivity_scan(small(), A, masks, LOADER, sparsities=(0.5,))
    assert list(scan.accuracy) == ["0.weight"]
    assert scan.base_loss == pytest.approx(loss_at({**A, "0.bias": A["0.bias"] * masks["0.bias"]}), rel=1e-6)


def test_a_scan_starts_from_the_mask_and_takes_any_strategy():
    rng = np.random.default_rng(3)
    mask = balanced(A["0.weight"], np.ones((6, 4), bool), 0.5, 3)
    asked = []

    def strategy(weight, mask, sparsity):
        asked.append((sparsity, bool(weight[~mask].any())))
        return balanced(weight, mask, sparsity, 3)

    noisy = {**A, "0.weight": np.where(mask, A["0.weight"], rng.normal(size=mask.shape).astype(np.float32))}
    scan = sensitivity_scan(small(), noisy, {"0.weight": mask}, LOADER, sparsities=(0.2, 0.5, 0.75), strategy=strategy)
    assert asked == [(0.75, False)]
    assert scan.base_loss == pytest.approx(loss_at({**A, "0.weight": A["0.weight"] * mask}), rel=1e-6)
    assert scan.loss["0.weight"][:2].tolist() == [scan.base_loss] * 2


def test_the_largest_sparsity_under_the_threshold_is_chosen():
    accuracy = {"a": np.array([0.9, 0.91, 0.89, 0.6]), "b": np.array([0.9, 0.7, 0.6, 0.5]),
                "c": np.array([0.9, 0.9, 0.9, 0.9])}  # fmt: skip
    scan = Scan(np.array([0, 0.3, 0.6, 0.9]), accuracy, accuracy, 0.9, 0.1)
    assert choose_sparsities(scan, 0.01) == {"a": 0.6, "b": 0, "c": 0.9}
    assert choose_sparsities(scan, 0) == {"a": 0.3, "b": 0, "c": 0.9}
    assert choose_sparsities(scan, 0.3) == {"a": 0.9, "b": 0.6, "c": 0.9}
    assert choose_sparsities(Scan(np.array([0.9]), {"b": np.array([0.5])}, {}, 0.9, 0.1), 0.1) == {"b": 0}


# What all of them leave behind


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


# Reports


def test_a_sparsity_report_counts_kernels_and_no_biases():
    weights = {"a.weight": np.array([[1, 0, 2, 3]], np.float32), "a.bias": np.ones(1, np.float32),
               "b.weight": np.ones((2, 3), np.float32)}  # fmt: skip
    masks = {"a.weight": np.array([[True, True, False, False]])}
    rows = [(r.name, r.shape, r.size, r.kept, r.nonzeros, r.sparsity) for r in sparsity_report(weights, masks)]
    assert rows == [
        ("a.weight", (1, 4), 4, 2, 3, 0.5),
        ("b.weight", (2, 3), 6, 6, 6, 0),
        ("total", (), 10, 8, 9, pytest.approx(0.2)),
    ]


def test_an_nm_report_counts_groups_by_their_nonzeros():
    weight = np.array([[1, 1, 0, 0, 1, 1, 1, 0], [0, 0, 0, 0, 1, 0, 0, 0]], np.float32)
    (row,) = nm_report({"w": weight}, 2, 4)
    assert (row.histogram, row.groups, row.violations, row.padding) == ((1, 1, 1, 1, 0), 4, 1, 0)
    (row,) = nm_report({"w": weight}, 1, 2, axis=0)
    assert (row.histogram, row.violations) == ((3, 4, 1), 1)
    (row,) = nm_report({"w": weight[:, :6], "bias": np.ones(3)}, 2, 4)
    assert (row.histogram, row.padding) == ((1, 1, 2, 0, 0), 4)
    assert nm_report({"w": weight, "conv": np.zeros((1, 2, 3, 3))}, 1, 3, axis=3)[0].name == "conv"


@given(
    arrays(np.float32, (4, 8, 3), elements=st.sampled_from([0, 0, 1, -2])),
    st.sampled_from([(1, 2), (2, 4), (3, 8)]),
    st.sampled_from([0, 1]),
)
@settings(max_examples=60, derandomize=True, deadline=None)
def test_a_weight_has_no_violations_where_its_pattern_holds(weight, nm, axis):
    n, m = nm
    (row,) = nm_report({"w": weight}, n, m, axis)
    assert sum(count * groups for count, groups in enumerate(row.histogram)) == np.count_nonzero(weight)
    if row.padding:
        assert weight.shape[axis] % m
        return
    try:
        Pattern(kind="n:m", n=n, m=m, axis=axis).check(weight, "w")
    except InputError:
        assert row.violations
    else:
        assert row.violations == 0


@given(arrays(np.float32, st.tuples(st.integers(1, 9), st.integers(1, 4)), elements=st.sampled_from([0, 0, 1])),
       st.integers(1, 12))  # fmt: skip
@settings(max_examples=60, derandomize=True, deadline=None)
def test_a_balance_report_gives_each_pe_its_rows(weight, pe_count):
    (row,) = balance_report({"w": weight}, pe_count)
    assert row.nonzeros == tuple(np.count_nonzero(weight[pe::pe_count]) for pe in range(pe_count))
    assert row.least <= row.mean <= row.most
    assert row.balance == (pytest.approx(row.mean / row.most) if row.most else 1)


def test_a_balanced_mask_is_reported_balanced():
    weight = np.random.default_rng(0).normal(size=(64, 33)).astype(np.float32)
    kept = balanced(weight, np.ones(weight.shape, bool), 0.9, 16)
    (row,) = balance_report({"w": weight * kept}, 16)
    assert row.most - row.least <= 1
    assert sum(row.nonzeros) == kept_count(weight.size, 0.9)


# Bad input

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
        (lambda: sparsity_report({"b": np.ones(3)}, {}),
         "a report needs a weight of at least 2 dimensions, and none of b is"),
        (lambda: sparsity_report({"w": np.ones((3, 2))}, {"w": np.ones(3, bool)}),
         "mask w must have the weight's shape (3, 2), not (3,)"),
        (lambda: nm_report({"w": np.ones((3, 2))}, 3, 2), "groups need 0 < n <= m and axis >= 0, not 3:2 on axis 1"),
        (lambda: balance_report({"w": np.ones((3, 2))}, 0), "pe_count must be at least 1, not 0"),
    ],
)  # fmt: skip
def test_what_cannot_be_measured_is_refused_in_one_line(act, said):
    assert message(act) == said
