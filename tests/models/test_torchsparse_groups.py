"""How TorchSparse groups the offsets of a kernel: the lecture's example, and any map sizes."""

from hypothesis import given
from hypothesis import strategies as st

from gossamer.models.parts.torchsparse import groups as torchsparse_groups
from gossamer.models.parts.torchsparse.groups import Group

LECTURE = [5, 7, 6, 10, 6, 7, 5]  # map sizes of 7 offsets


def test_the_groups_of_the_lecture_are_the_centre_the_middle_pairs_and_the_outer_pair():
    found = torchsparse_groups.adaptive(LECTURE, 0.2, 100, has_centre=True)
    assert found == [Group((0, 6), (5, 5), True), Group((1, 5, 2, 4), (7, 7, 6, 6), True)]
    assert [group.rows for group in found] == [10, 28]
    assert [group.padding for group in found] == [0, 2]
    assert LECTURE[3] + sum(group.rows for group in found) == 48


def test_the_lecture_counts_46_rows_separate_and_70_fully_batched():
    assert sum(group.rows for group in torchsparse_groups.separate(LECTURE)) == 46
    assert sum(group.rows for group in torchsparse_groups.batched(LECTURE)) == 70


def test_epsilon_closes_a_group_only_above_it():
    sizes = [10, 8, 8, 10]
    assert len(torchsparse_groups.adaptive(sizes, 1 - 8 / 10, 99)) == 1
    assert len(torchsparse_groups.adaptive(sizes, 1 - 8 / 10 - 1e-9, 99)) == 2


def test_a_group_as_large_as_the_threshold_runs_one_by_one():
    assert [group.batched for group in torchsparse_groups.adaptive([10, 10], 0.0, 11)] == [True]
    assert [group.batched for group in torchsparse_groups.adaptive([10, 10], 0.0, 10)] == [False]


def test_empty_maps_group_with_empty_maps_alone():
    found = torchsparse_groups.adaptive([0, 3, 0, 0, 3, 0], 0.5, 99)
    assert [group.sizes for group in found] == [(0, 0), (3, 3), (0, 0)]


def test_an_odd_kernel_without_identity_takes_its_middle_last():
    assert torchsparse_groups.mirror_order(5, has_centre=False) == [0, 4, 1, 3, 2]
    assert torchsparse_groups.mirror_order(5, has_centre=True) == [0, 4, 1, 3]
    assert torchsparse_groups.mirror_order(4, has_centre=False) == [0, 3, 1, 2]
    assert torchsparse_groups.mirror_order(1, has_centre=True) == []


@given(
    sizes=st.lists(st.integers(0, 50), min_size=1, max_size=27),
    epsilon=st.floats(0, 1),
    threshold=st.integers(0, 60),
    fixed=st.integers(1, 9),
    centre=st.booleans(),
)
def test_every_grouping_has_each_offset_once_and_pads_within_epsilon(sizes, epsilon, threshold, fixed, centre):
    wanted = sorted(torchsparse_groups.mirror_order(len(sizes), centre))
    adaptive = torchsparse_groups.adaptive(sizes, epsilon, threshold, has_centre=centre)
    for found in (
        adaptive,
        torchsparse_groups.separate(sizes, has_centre=centre),
        torchsparse_groups.batched(sizes, has_centre=centre),
        torchsparse_groups.fixed(sizes, fixed, has_centre=centre),
    ):
        assert sorted(offset for group in found for offset in group.offsets) == wanted
        assert all(group.sizes == tuple(sizes[offset] for offset in group.offsets) for group in found)
        assert all(group.padding == 0 for group in found if not group.batched)
    for group in adaptive:
        assert min(group.sizes) >= (1 - epsilon) * max(group.sizes) - 1e-9
        assert not group.batched or max(group.sizes) < threshold
