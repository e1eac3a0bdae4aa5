"""The hash table that PointAcc's merge sort is measured against: its maps, its cycles, and both engines alike."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gossamer.models.parts.pointacc import banks as pointacc_banks
from gossamer.models.parts.pointacc import hashing as pointacc_hash
from gossamer.models.parts.pointacc import mapping as pointacc_mapping
from gossamer.models.parts.pointacc.hashing import HashEngine, hashes
from gossamer.models.parts.pointacc.mapper import Mapper
from gossamer.simulator.timeline import Timeline
from gossamer.workloads.points import downsample, kernel_map, maps_between, pack, voxelise
from gossamer.workloads.points.kernel_map import offsets
from gossamer.workloads.points.keys import shift

from .clouds import clouds


def cloud(count, side, seed=0):
    """Return at most ``count`` voxels of a cube."""
    draw = np.random.default_rng(seed)
    return voxelise(draw.integers(-side, side, (count, 3)).astype(float), 1.0)[0]


def surface(count, seed=0):
    """Return the voxels of ``count`` points on a wavy floor."""
    x, y = np.random.default_rng(seed).random((2, count)) * 90
    return voxelise(np.stack([x, y, 3 * np.sin(x / 7) + 3 * np.cos(y / 5)], axis=1), 1.0)[0]


def assert_same(mine, other):
    assert len(mine) == len(other)
    for (into, out), (into_too, out_too) in zip(mine, other, strict=True):
        assert into.tolist() == into_too.tolist() and out.tolist() == out_too.tolist()


ENGINES = st.builds(
    HashEngine,
    bank_count=st.sampled_from([2, 4, 16]),
    load_factor=st.sampled_from([0.1, 0.5, 0.95]),
    probing=st.sampled_from(["across", "within"]),
    pipeline_depth=st.integers(0, 9),
    exploit_symmetry=st.booleans(),
)
CLOUDS = clouds(-4, 4)


@given(engine=ENGINES, coords=CLOUDS, kernel_size=st.integers(1, 3))
def test_both_engines_agree_and_find_the_maps_of_a_cloud_onto_itself(engine, coords, kernel_size):
    fast = pointacc_hash.kernel_map(engine, coords, coords, kernel_size)
    event = pointacc_banks.kernel_map(engine, coords, coords, kernel_size)
    assert (fast.cycles, fast.counts) == (event.cycles, event.counts)
    assert_same(fast.data, event.data)
    assert_same(fast.data, kernel_map(coords, kernel_size))


@given(engine=ENGINES, coords=CLOUDS, other=CLOUDS, step=st.sampled_from([1, 2]))
def test_both_engines_agree_and_find_the_maps_between_two_clouds(engine, coords, other, step):
    fast = pointacc_hash.kernel_map(engine, coords, other, 3, step)
    event = pointacc_banks.kernel_map(engine, coords, other, 3, step)
    assert (fast.cycles, fast.counts) == (event.cycles, event.counts)
    assert_same(fast.data, event.data)
    assert_same(fast.data, maps_between(coords, other, 3, step))


def test_a_downsampling_maps_every_input_once():
    coords = cloud(200, 8)
    found = pointacc_hash.kernel_map(HashEngine(), coords, downsample(coords, 2), 2)
    assert found.counts["matches"] == found.counts["map_writes"] == len(coords)


def test_a_round_takes_as_long_as_its_fullest_bank():
    coords = cloud(300, 20)
    engine = HashEngine(bank_count=4, load_factor=0.001, pipeline_depth=0)  # hardly any slot is taken twice
    keys = pack(coords)
    taken = {int(key) & 2**18 - 1 for key in hashes(keys)}
    assert len(taken) == len(keys)
    rounds = [keys[first : first + 4] for first in range(0, len(keys), 4)]
    fullest = [max(np.bincount((hashes(some) & np.uint64(3)).astype(int))) for some in rounds]
    found = pointacc_hash.kernel_map(engine, coords, coords, 1)
    assert found.counts["slots"] == 2**18 and found.counts["rounds"] == 2 * len(rounds)
    assert found.counts["slot_reads"] == 2 * len(keys)
    assert found.cycles == 2 * sum(fullest)


def test_the_slots_that_are_met_are_those_of_linear_probing_in_a_plain_list():
    coords, engine = cloud(120, 5), HashEngine(bank_count=8, load_factor=0.9)
    keys = [int(key) for key in pack(coords)]
    size = engine.slots(pack(coords))
    table = [None] * size
    met = 0
    home = dict(zip(keys, (int(h) % size for h in hashes(np.array(keys))), strict=True))
    for key in keys:
        slot = home[key]
        met += 1
        while table[slot] is not None:
            slot, met = (slot + 1) % size, met + 1
        table[slot] = key
    wanted = np.concatenate([np.array(keys) + shift(cell) for cell in offsets(3)])
    for key, slot in zip(wanted.tolist(), (hashes(wanted) % np.uint64(size)).tolist(), strict=True):
        met += 1
        while table[slot] is not None and table[slot] != key:
            slot, met = (slot + 1) % size, met + 1
    assert pointacc_hash.kernel_map(engine, coords, coords).counts["slot_reads"] == met


def test_the_table_has_the_power_of_two_of_slots_whose_load_is_nearest():
    keys = np.arange(91767)
    slots = [HashEngine(load_factor=load).slots(keys) for load in (0.18, 0.35, 0.70)]
    assert slots == [2**19, 2**18, 2**17]
    assert [round(len(keys) / count, 3) for count in slots] == [0.175, 0.35, 0.7]


def test_banks_that_are_probed_within_always_keep_an_empty_slot():
    keys = np.arange(50)
    for count in (2, 8, 64):
        engine = HashEngine(bank_count=count, load_factor=0.95, probing="within")
        fullest = np.bincount((hashes(keys) % np.uint64(count)).astype(int)).max()
        assert engine.slots(keys) >= count * (fullest + 1)


def test_symmetry_looks_up_the_first_half_and_the_centre_and_changes_no_map():
    coords = cloud(200, 5)
    whole = pointacc_hash.kernel_map(HashEngine(pipeline_depth=0), coords, coords)
    half = pointacc_hash.kernel_map(HashEngine(pipeline_depth=0, exploit_symmetry=True), coords, coords)
    assert_same(whole.data, half.data)
    assert half.counts["keys_hashed"] == 15 * len(coords)  # put in, and looked up at 14 of 27 offsets
    assert whole.counts["keys_hashed"] == 28 * len(coords)
    assert half.cycles < 0.6 * whole.cycles
    assert half.counts["map_writes"] == whole.counts["matches"] == whole.counts["map_writes"]


def test_against_a_merge_the_table_loses_more_the_fuller_it_is():
    coords = surface(12000)
    merged = pointacc_mapping.kernel_map(Mapper(), coords, coords).cycles
    ratios = {}
    for probing in ("across", "within"):
        engines = [HashEngine(load_factor=load, probing=probing) for load in (0.1, 0.2, 0.4)]
        ratios[probing] = [pointacc_hash.kernel_map(engine, coords, coords).cycles / merged for engine in engines]
        assert ratios[probing] == sorted(ratios[probing])
    assert all(across < within for across, within in zip(*ratios.values(), strict=True))
    assert 1.0 < ratios["across"][0] < ratios["across"][2] < 1.5 < ratios["within"][2]
    assert pointacc_hash.kernel_map(HashEngine(load_factor=0.8), coords, coords).cycles > 2 * merged


def test_the_order_of_the_points_changes_no_cycle():
    coords = cloud(150, 6)
    mixed = coords[np.random.default_rng(1).permutation(len(coords))]
    one, other = (pointacc_hash.kernel_map(HashEngine(), some, some) for some in (coords, mixed))
    assert (one.cycles, one.counts) == (other.cycles, other.counts)
    assert_same(other.data, kernel_map(mixed))


def test_an_empty_cloud_takes_no_cycle():
    nothing = np.zeros((0, 3), np.int32)
    for engine in (pointacc_hash, pointacc_banks):
        found = engine.kernel_map(HashEngine(), nothing, nothing)
        assert found.cycles == 0 and found.counts["matches"] == 0 and len(found.data) == 27


def test_the_timeline_shows_which_banks_are_busy():
    coords, timeline = cloud(20, 4), Timeline()
    found = pointacc_banks.kernel_map(HashEngine(bank_count=4), coords, coords, timeline=timeline)
    busy = sum(interval.end - interval.start for interval in timeline.intervals)
    assert busy == found.counts["slot_reads"]
    assert {interval.name for interval in timeline.intervals} == {"insert", "look up"}
    assert max(interval.end for interval in timeline.intervals) == found.cycles


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"bank_count": 48}, "bank_count must be a power of 2 from 2 to 4096, not 48"),
        ({"load_factor": 1.0}, "load_factor must be from 0.001 to 0.95, not 1.0"),
        ({"probing": "up"}, "probing must be one of across, within, not 'up'"),
        ({"pipeline_depth": -1}, "pipeline_depth must be from 0 to 65536, not -1"),
    ],
)
def test_an_engine_that_cannot_be_is_refused(wrong, message):
    with pytest.raises(ValueError) as error:
        HashEngine(**wrong)
    assert str(error.value) == message
