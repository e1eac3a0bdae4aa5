import numpy as np
import pytest

from gossamer.workloads.pruning import balanced, magnitude
from gossamer.workloads.training.sensitivity import Scan, choose_sparsities, sensitivity_scan

from .solutions import LOADER, A, loss_at, small


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
