import numpy as np
import pytest

from gossamer.workloads.errors import InputError
from gossamer.workloads.patterns import Pattern

from .some_layers import linear

WRONG_PATTERNS = [
    (
        {"kind": "n-m"},
        "pattern kind must be one of dense, unstructured, n:m, balanced, block, kernel-pattern, not 'n-m'",
    ),
    ({"kind": "n:m", "n": 2, "m": 4}, "pattern n:m needs axis, and has None"),
    ({"kind": "dense", "n": 2}, "pattern dense takes no n, and has 2"),
    (
        {"kind": "n:m", "n": 5, "m": 4, "axis": 0},
        "pattern n:m needs 0 < n <= m and axis >= 0, not 5:4 on axis 0",
    ),
    ({"kind": "n:m", "n": 2.5, "m": 4, "axis": 0}, "pattern n:m: n must be a whole number, not 2.5"),
    (
        {"kind": "balanced", "pe_count": 0, "scope": "pe"},
        "pattern balanced needs pe_count >= 1 and scope pe or pe-column, not 0 and 'pe'",
    ),
    (
        {"kind": "balanced", "pe_count": 4, "scope": "row"},
        "pattern balanced needs pe_count >= 1 and scope pe or pe-column, not 4 and 'row'",
    ),
    (
        {"kind": "balanced", "pe_count": "4", "scope": "pe"},
        "pattern balanced: pe_count must be a whole number, not '4'",
    ),
    ({"kind": "block", "block": (2, 0)}, "pattern block needs two whole sides of at least 1, not (2, 0)"),
    ({"kind": "block", "block": 2}, "pattern block needs two whole sides of at least 1, not 2"),
]


@pytest.mark.parametrize(("fields", "message"), WRONG_PATTERNS)
def test_a_pattern_that_breaks_a_rule_is_refused(fields, message):
    with pytest.raises(InputError) as error:
        Pattern(**fields)
    assert str(error.value) == message


def test_patterns_hold_for_weights_pruned_to_them():
    two_of_four = np.array([[1, 0, 0, 2, 0, 0, 0, 0], [0, 1, 1, 0, 3, 0, 4, 0]], np.float32)
    Pattern("n:m", n=2, m=4, axis=1).check(two_of_four, "here")
    Pattern("n:m", n=2, m=2, axis=0).check(two_of_four, "here")
    Pattern("balanced", pe_count=2, scope="pe").check(two_of_four, "here")
    Pattern("balanced", pe_count=64, scope="pe-column").check(two_of_four, "here")
    Pattern("block", block=(2, 3)).check(np.array([[1, 1, 1, 0], [1, 1, 1, 0], [0, 0, 0, 1]]), "here")


def test_a_block_of_any_size_is_checked_without_making_one_of_that_size():
    Pattern("block", block=(10**12, 10**12)).check(np.ones((3, 2)), "here")
    with pytest.raises(InputError, match="tile \\(0, 0\\) keeps 3 of 6 weights"):
        Pattern("block", block=(10**12, 10**12)).check(np.array([[1, 0], [1, 0], [1, 0]]), "here")


def test_a_mask_says_what_a_pattern_keeps_even_where_a_kept_weight_is_zero():
    mask = np.array([[True, True, True], [False, False, False]])
    weight = np.array([[1, 0, 2], [0, 0, 0]], np.float32)
    assert linear(weight=weight, mask=mask, pattern=Pattern("block", block=(1, 3))).nonzeros == 2


def test_every_share_rounded_per_pe_counts_as_balanced():
    rng = np.random.default_rng(0)
    for case in range(200):
        rows, cols, pes = (int(n) for n in rng.integers(1, 12, 3))
        density = rng.random()
        for scope in ("pe", "pe-column"):
            kept = np.zeros((rows, cols), np.float32)
            for pe in range(min(pes, rows)):
                mine = kept[pe::pes]
                for slot in [mine.reshape(-1)] if scope == "pe" else [mine[:, col] for col in range(cols)]:
                    slot[: round(density * slot.size)] = 1
                    if scope == "pe":
                        kept[pe::pes] = slot.reshape(mine.shape)
            Pattern("balanced", pe_count=pes, scope=scope).check(kept, f"case {case}")
