import pytest

from gossamer.reports.published import failed, judge
from gossamer.reports.validate import validations
from gossamer.workloads.errors import InputError

ENTRY = {"name": "n", "source": "s", "unit": "us", "published": 10.0, "tolerance": 0.05}
KNOWN = ENTRY | {"known_miss": {"error": -0.2, "cause": "rows too much alike"}}


def test_within_tolerance_is_a_hit_and_one_step_beyond_a_miss():
    assert [judge(ENTRY, value, 0.01).verdict for value in (9.5, 10.5, 9.49, 10.51)] == ["hit", "hit", "miss", "miss"]
    check = judge(ENTRY, 9.5, 0.01)
    assert (check.error, check.tolerance) == (pytest.approx(-0.05), "5 %")


def test_an_exact_figure_must_be_met_exactly():
    exact = ENTRY | {"published": 7926, "tolerance": 0.0}
    assert judge(exact, 7926, 0.01).verdict == "hit"
    assert judge(exact, 7927, 0.01).verdict == "miss"
    assert judge(exact, 7926, 0.01).tolerance == "exact"


def test_a_known_miss_keeps_its_size_to_within_the_slack_or_is_a_miss():
    assert [judge(KNOWN, value, 0.01).verdict for value in (8.0, 8.1, 7.9, 8.11, 7.89)] == [
        "known miss", "known miss", "known miss", "miss", "miss",
    ]  # fmt: skip
    assert judge(KNOWN, 8.0, 0.01).note == "rows too much alike"
    assert judge(KNOWN, 7.0, 0.01).note == "the known miss was -0.2: rows too much alike"


def test_a_known_miss_that_is_met_after_all_is_a_hit():
    assert judge(KNOWN, 10.0, 0.01).verdict == "hit"


def test_bounds_are_two_sided_timing_free_checks():
    least, most = ENTRY | {"at_least": 0.8}, ENTRY | {"at_most": 0.8}
    for entry in (least, most):
        del entry["published"]
    assert [judge(least, value, 0.01).verdict for value in (0.8, 0.79)] == ["hit", "miss"]
    assert [judge(most, value, 0.01).verdict for value in (0.8, 0.81)] == ["hit", "miss"]
    assert (judge(least, 1, 0).tolerance, judge(most, 1, 0).tolerance) == ("at least 0.8", "at most 0.8")


def test_an_absolute_tolerance_is_one_in_the_unit():
    entry = {key: value for key, value in ENTRY.items() if key != "tolerance"} | {"within": 0.5}
    assert [judge(entry, value, 0.01).verdict for value in (9.5, 10.5, 9.49, 10.51)] == ["hit", "hit", "miss", "miss"]
    assert judge(entry, 10.2, 0.01).tolerance == "0.5 us"
    assert judge(entry, 10.2, 0.01).error == pytest.approx(0.02)
    assert judge(entry, None, 0.01).verdict == "skipped"


def test_what_is_for_information_is_neither_hit_nor_miss():
    entry = {key: value for key, value in ENTRY.items() if key != "tolerance"} | {"information": True}
    check = judge(entry, 99.0, 0.01)
    assert (check.verdict, check.tolerance, check.error) == ("information", "not asserted", pytest.approx(8.9))
    assert not failed([check])


def test_information_needs_no_published_figure():
    entry = {"name": "n", "source": "assumed", "unit": "us", "information": True}
    check = judge(entry, 99.0, 0.01)
    assert (check.verdict, check.published, check.error) == ("information", None, None)
    assert judge(entry, None, 0.01).verdict == "skipped"


def test_without_a_value_a_check_is_skipped_and_says_why():
    check = judge(KNOWN, None, 0.01, note="needs a file")
    assert (check.verdict, check.simulated, check.error, check.note) == ("skipped", None, None, "needs a file")


def test_only_misses_fail():
    hit, skipped, known, miss = (
        judge(KNOWN, 10, 0.01), judge(KNOWN, None, 0.01), judge(KNOWN, 8, 0.01), judge(KNOWN, 7, 0.01),
    )  # fmt: skip
    assert not failed([hit, skipped, known])
    assert failed([hit, miss])


def test_an_unknown_accelerator_lists_the_known_ones():
    with pytest.raises(InputError) as error:
        validations("eyeriss")
    assert str(error.value) == (
        "unknown accelerator 'eyeriss' to validate; "
        "known: eie, ese, tensor-core, pointacc, patdnn, spatten, gpu-kernels"
    )
