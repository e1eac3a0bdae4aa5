"""Scenes drawn from a seed: rays against bodies of known shape, and the statistics of real clouds."""

import math
import re

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gossamer.workloads.errors import InputError
from gossamer.workloads.points import cad, lidar, room
from gossamer.workloads.points.raycast import BOX, CYLINDER, ELLIPSOID, RECESS, Body, Ground, cast
from gossamer.workloads.points.scenes import SHAPES
from gossamer.workloads.points.sensor import ELEVATIONS_DEG, Spinning, scan, turned
from gossamer.workloads.points.statistics import statistics
from gossamer.workloads.points.street import street
from gossamer.workloads.points.surfaces import Surface, draw_points

FLAT = Ground(half_width=1e6, crossing=0.0, kerb=0.0, pavement=0.0, grass=0.0, waves=((0.0, 0.0, 0.0, 0.0),))
EYE = np.array([0.0, 0.0, 2.0])


def shoot(bodies, directions, ground=FLAT, reach=100.0, seed=0):
    """Return distances and cosines along ``directions``, (n, 3), each a column of its own."""
    rays = np.array(directions, float)
    rays /= np.linalg.norm(rays, axis=1, keepdims=True)
    distance, _, cosine = cast(bodies, ground, EYE, rays[:, None], reach, seed)
    return distance[:, 0], cosine[:, 0]


def test_rays_meet_flat_ground_where_trigonometry_says_and_the_sky_nowhere():
    angles = np.radians([5, 10, 30, 60])
    rays = np.stack([np.cos(angles), np.zeros(4), -np.sin(angles)], axis=1)
    distance, cosine = shoot([], rays)
    assert np.allclose(distance, 2 / np.sin(angles), atol=1e-3)
    assert np.allclose(cosine, np.sin(angles))
    assert np.isinf(shoot([], [(1, 0, 0.1), (1, 0, 0)])[0]).all()
    assert np.isinf(shoot([], rays[:1], reach=20.0)[0]).all()


@pytest.mark.parametrize(
    ("body", "ray", "distance", "cosine"),
    [
        (Body(BOX, (10, 0, 2), (1, 1, 1)), (1, 0, 0), 9.0, 1.0),
        (Body(BOX, (10, 0, 2), (1, 1, 1), math.pi / 4), (1, 0, 0), 10 - math.sqrt(2), math.sqrt(0.5)),
        (Body(BOX, (10, 0, 2), (1, 3, 1), math.pi / 2), (1, 0, 0), 7.0, 1.0),
        (Body(BOX, (10, 0, 2), (1, 1, 1)), (1, 0.2, 0), math.inf, 0.0),
        (Body(BOX, (10, 0, 2), (1, 1, 1)), (-1, 0, 0), math.inf, 0.0),
        (Body(CYLINDER, (0, 5, 2), (0.5, 0.5, 1)), (0, 1, 0), 4.5, 1.0),
        (Body(CYLINDER, (0, 5, 2), (0.5, 0.5, 1)), (0, 1, 0.3), math.inf, 0.0),
        (Body(CYLINDER, (0, 5, 0.5), (1, 1, 0.5)), (0, 5, -1), math.hypot(5, 1), 1 / math.hypot(5, 1)),
        (Body(ELLIPSOID, (-8, 0, 2), (3, 1, 1)), (-1, 0, 0), 5.0, 1.0),
        (Body(ELLIPSOID, (-8, 0, 2), (1, 3, 1), math.pi / 2), (-1, 0, 0), 5.0, 1.0),
        (Body(ELLIPSOID, (-8, 0.8, 2), (1, 1, 1)), (-1, 0, 0), 7.4, 0.6),
    ],
)
def test_rays_meet_bodies_where_geometry_says(body, ray, distance, cosine):
    met, facing = shoot([body], [ray])
    assert met[0] == pytest.approx(distance)
    assert facing[0] == pytest.approx(cosine)


@given(st.integers(0, 2**32))
def test_what_a_ray_meets_lies_on_the_body_and_no_body_comes_before_it(seed):
    rng = np.random.default_rng(seed)
    bodies = [
        Body(kind, (*rng.uniform(-20, 20, 2), rng.uniform(0, 4)), tuple(rng.uniform(0.3, 3, 3)), rng.uniform(0, 6))
        for kind in rng.integers(0, 3, 12)
    ]
    bodies = [body for body in bodies if math.hypot(*body.centre[:2]) > 6]  # none around the eye
    angles = rng.uniform(0, 2 * math.pi, 60)
    rays = np.stack([np.cos(angles), np.sin(angles), rng.uniform(-0.5, 0.3, 60)], axis=1)
    rays /= np.linalg.norm(rays, axis=1, keepdims=True)
    distance, _ = shoot(bodies, rays)
    alone = np.array([shoot([body], rays)[0] for body in bodies] or [np.full(60, np.inf)])
    assert np.array_equal(distance, np.minimum(shoot([], rays)[0], alone.min(axis=0)))
    for body, met in zip(bodies, alone, strict=False):
        hit = met < shoot([], rays)[0]
        local = (turned(-body.yaw, 0, 0) @ ((EYE + met[hit, None] * rays[hit]) - body.centre).T).T / body.half
        level = np.abs(local).max(axis=1)
        if body.kind == CYLINDER:
            level = np.maximum(np.hypot(local[:, 0], local[:, 1]), np.abs(local[:, 2]))
        elif body.kind == ELLIPSOID:
            level = np.linalg.norm(local, axis=1)
        assert np.allclose(level, 1, atol=1e-9)


def test_a_porous_body_stops_rays_at_depths_with_its_mean_free_path():
    hedge = Body(BOX, (30, 0, 2), (20, 20, 20), mean_free_path=0.5)
    distance = np.concatenate([shoot([hedge], [(1, 0, 0)] * 500, seed=seed)[0] for seed in range(8)])
    depth = distance - 10
    assert depth.min() > 0
    assert depth.mean() == pytest.approx(0.5, rel=0.05)
    assert np.median(depth) == pytest.approx(0.5 * math.log(2), rel=0.08)


def test_a_thin_porous_body_lets_rays_through():
    leaf = Body(BOX, (10, 0, 2), (0.5, 5, 5), mean_free_path=1.0)
    distance = np.concatenate([shoot([leaf], [(1, 0, 0)] * 500, seed=seed)[0] for seed in range(8)])
    assert np.isinf(distance).mean() == pytest.approx(math.exp(-1), abs=0.03)
    assert distance[np.isfinite(distance)].max() <= 10.5


def test_windows_are_recessed():
    house = Body(BOX, (10, 0, 5), (1, 8, 5), has_windows=True)
    rays = [(9, y, z) for y in np.linspace(-2, 2, 21) for z in (-1.5, -0.5)]
    distance, cosine = shoot([house], rays)
    depth = np.round(distance * cosine - 9, 9)
    assert set(depth) == {0.0, RECESS}
    assert (depth.reshape(-1, 2)[:, 0] == 0).all()  # below the sill


def test_a_kerb_is_a_step_with_a_face_of_its_own():
    ground = Ground(half_width=3.0, crossing=1e6, kerb=0.1, pavement=1e6, grass=0.0, waves=((0.0, 0.0, 0.0, 0.0),))
    rays = np.stack([np.zeros(200), np.full(200, 3.0), -np.linspace(1.8, 2.1, 200)], axis=1)
    distance, _ = shoot([], rays, ground)
    points = EYE + distance[:, None] * rays / np.linalg.norm(rays, axis=1, keepdims=True)
    on_face = (points[:, 2] > 0.01) & (points[:, 2] < 0.09)
    assert on_face.sum() > 20
    assert np.allclose(points[on_face, 1], 3.0, atol=0.02)
    assert points[:, 2].max() == pytest.approx(0.1, abs=0.01)
    assert points[:, 2].min() == pytest.approx(0.0, abs=0.01)


def test_rays_of_one_column_meet_what_each_would_meet_alone():
    rng = np.random.default_rng(4)
    bodies, ground = street(rng)
    rise, turn = np.radians(ELEVATIONS_DEG[::4]), np.radians(np.arange(0, 360, 3.0))[:, None]
    rays = np.stack([np.cos(turn) * np.cos(rise), np.sin(turn) * np.cos(rise), np.sin(rise) + 0 * turn], axis=2)
    rays = rays @ turned(0, *np.radians([2.0, -2.0])).T
    together = cast(bodies, ground, EYE, rays, 100.0, 5)
    alone = cast(bodies, ground, EYE, rays.reshape(-1, 1, 3), 100.0, 5)
    for met, wanted in zip(together, alone, strict=True):
        assert np.array_equal(met.ravel(), wanted.ravel())


def test_nothing_of_a_street_stands_where_the_sensor_is():
    for seed in range(20):
        for body in street(np.random.default_rng(seed))[0]:
            assert math.hypot(*body.centre[:2]) - min(body.half[:2]) > 2.2


def test_the_beams_are_those_of_the_sensor():
    assert len(ELEVATIONS_DEG) == 64
    assert (ELEVATIONS_DEG[0], ELEVATIONS_DEG[32]) == (2, -8.83)
    assert ELEVATIONS_DEG[31] == pytest.approx(-8.33, abs=0.01)
    assert ELEVATIONS_DEG[63] == pytest.approx(-24.33)


def test_a_scan_without_noise_gives_back_the_beams_and_the_ground_in_the_sensors_frame():
    sensor = Spinning(azimuths=90, range_noise=0.0, drop_out=0.0, tilt_deg=0.0)
    points, remission = scan([], FLAT, sensor, np.random.default_rng(0))
    assert np.allclose(points[:, 2], -sensor.height, atol=0.01)
    elevation = np.degrees(np.arctan2(points[:, 2], np.hypot(points[:, 0], points[:, 1])))
    assert np.unique(elevation.round(2)).size * 90 == len(points)
    assert len(remission) == len(points)
    assert remission.min() >= 0
    assert remission.max() <= 1


def test_noise_and_lost_returns_are_those_declared():
    bare = Spinning(range_noise=0.0, drop_out=0.0, tilt_deg=0.0)
    noisy = Spinning(range_noise=0.015, drop_out=0.06, tilt_deg=0.0)
    wall = [Body(BOX, (0, 0, 0), (1e4, 1e4, 1e-9), albedo=1.0)]  # the ground again, bright enough to be seen anywhere
    clean, _ = scan(wall, FLAT, bare, np.random.default_rng(1))
    rough, _ = scan(wall, FLAT, noisy, np.random.default_rng(1))
    assert len(rough) / len(clean) == pytest.approx(0.94, abs=0.003)
    rise = np.arcsin(-rough[:, 2] / np.linalg.norm(rough, axis=1))
    noise = np.linalg.norm(rough, axis=1) - noisy.height / np.sin(rise)
    assert noise.std() == pytest.approx(0.015, rel=0.05)


@pytest.mark.parametrize("make", [lidar, room, cad])
def test_a_seed_gives_the_same_cloud_each_time_and_another_seed_another(make):
    first, again, other = make(1), make(1), make(2)
    assert first.name == again.name != other.name
    assert np.array_equal(first.points, again.points)
    assert first.points.shape != other.points.shape or not np.array_equal(first.points, other.points)


@pytest.mark.parametrize("seed", range(8))
def test_a_scan_of_a_street_is_as_sparse_as_a_real_one(seed):
    # One scan of SemanticKITTI: 124,668 points, 91,767 voxels, 3.77 / 6.05 / 7.47 / 8.43 / 9.25 neighbours, and
    # .655 .529 .454 .410 as many voxels at each next stride. The first three are targets; the rest must not be far.
    found = statistics(lidar(seed).points, 0.05)
    assert 119_000 <= found.points <= 124_000
    assert 83_000 <= found.voxels[0] <= 92_000
    assert 3.7 <= found.neighbours[0] <= 5
    assert found.neighbours[1:] == pytest.approx((6.05, 7.47, 8.43, 9.25), rel=0.22)
    assert found.ratios == pytest.approx((0.655, 0.529, 0.454, 0.410), rel=0.13)


def test_a_scan_has_remissions_and_looks_all_around():
    cloud = lidar(3)
    assert cloud.remission.shape == (len(cloud.points),)
    assert 0.05 < cloud.remission.mean() < 0.5
    turn = np.arctan2(cloud.points[:, 1], cloud.points[:, 0])
    assert np.histogram(turn, 16, (-math.pi, math.pi))[0].min() > len(turn) / 32
    assert np.linalg.norm(cloud.points, axis=1).max() < 120.2


@pytest.mark.parametrize("seed", range(3))
def test_a_room_is_made_of_dense_surfaces(seed):
    found = statistics(room(seed).points, 0.05, (1, 2, 4, 8))
    assert all(12 <= neighbours <= 16 for neighbours in found.neighbours[:2])
    assert all(0.21 <= ratio <= 0.28 for ratio in found.ratios)


@pytest.mark.parametrize("shape", SHAPES)
def test_an_object_is_centred_and_fills_the_unit_sphere(shape):
    cloud = cad(5, shape, points=2000)
    assert cloud.name == f"{shape}-5"
    assert cloud.points.shape == (2000, 3)
    assert np.allclose(cloud.points.mean(axis=0), 0, atol=1e-5)
    assert np.linalg.norm(cloud.points, axis=1).max() == pytest.approx(1)


def test_without_a_shape_seeds_choose_among_all_of_them():
    assert {cad(seed, points=2).name.split("-")[0] for seed in range(60)} == set(SHAPES)


@pytest.mark.parametrize(
    ("surface", "level"),
    [
        (Surface("sphere", (2.0,)), lambda x, y, z: np.sqrt(x * x + y * y + z * z) - 2),
        (Surface("torus", (3.0, 1.0)), lambda x, y, z: np.hypot(np.hypot(x, y) - 3, z) - 1),
        (Surface("box", (1.0, 2.0, 3.0)), lambda x, y, z: np.max([abs(x) / 0.5, abs(y), abs(z) / 1.5], axis=0) - 1),
        (Surface("cylinder", (1.0, 4.0)), lambda x, y, z: np.maximum(np.hypot(x, y), abs(z) / 2) - 1),
        (Surface("cone", (1.0, 2.0)), lambda x, y, z: np.minimum(abs(np.hypot(x, y) - (1 - z) / 2), abs(z + 1))),
    ],
)
def test_points_lie_on_the_surface_of_a_solid(surface, level):
    points = surface.draw(4000, np.random.default_rng(0))
    assert np.allclose(level(*points.T), 0, atol=1e-9)


@pytest.mark.parametrize(
    ("surface", "inside", "share"),
    [
        (Surface("sphere", (1.0,)), lambda x, y, z: z > 0.5, 0.25),
        (Surface("torus", (3.0, 1.0)), lambda x, y, z: np.hypot(x, y) > 3, 0.5 + 1 / (3 * math.pi)),
        (Surface("box", (1.0, 2.0, 4.0)), lambda x, y, z: abs(z) == 2, 4 / 28),
        (Surface("cylinder", (1.0, 2.0)), lambda x, y, z: abs(z) == 1, 2 / 6),
        (Surface("cone", (3.0, 4.0)), lambda x, y, z: z == -2, 3 / 8),
        (Surface("cone", (3.0, 4.0)), lambda x, y, z: z > 0, 5 / 8 / 4),
    ],
)
def test_each_place_of_a_surface_is_as_likely_as_any(surface, inside, share):
    points = surface.draw(40_000, np.random.default_rng(1))
    assert inside(*points.T).mean() == pytest.approx(share, abs=0.01)


def test_areas_are_those_of_geometry_and_share_the_points_of_a_composition():
    areas = [Surface(kind, size).area for kind, size in (
        ("box", (1, 2, 3)), ("sphere", (2,)), ("cylinder", (1, 2)), ("cone", (3, 4)), ("torus", (3, 1)))]  # fmt: skip
    assert areas == pytest.approx([22, 16 * math.pi, 6 * math.pi, 24 * math.pi, 12 * math.pi**2])
    two = [Surface("sphere", (1.0,)), Surface("sphere", (2.0,), (100.0, 0.0, 0.0))]
    points = draw_points(two, 20_000, np.random.default_rng(2))
    assert (points[:, 0] > 50).mean() == pytest.approx(0.8, abs=0.01)


def test_a_moved_surface_is_turned_about_the_origin_first():
    moved = Surface("box", (2.0, 0.2, 0.2), (1.0, 0.0, 0.0)).moved((0.0, 0.0, 5.0), math.pi / 2)
    points = moved.draw(1000, np.random.default_rng(3))
    assert np.allclose(points.min(axis=0), (-0.1, 0.0, 4.9), atol=0.02)
    assert np.allclose(points.max(axis=0), (0.1, 2.0, 5.1), atol=0.02)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: lidar(-1), f"seed must be a whole number from 0 to {2**63 - 1}, not -1"),
        (lambda: room(1.0), f"seed must be a whole number from 0 to {2**63 - 1}, not 1.0"),
        (lambda: cad(0, "cube"), f"shape must be one of {', '.join(SHAPES)}, not 'cube'"),
        (lambda: statistics(np.zeros((0, 3)), 0.05), "a cloud must have at least one point, and this has none"),
        (lambda: cad(0, points=1), f"points must be a whole number from 2 to {2**28}, not 1"),
    ],
)
def test_bad_arguments_are_refused(call, message):
    with pytest.raises(InputError, match=f"^{re.escape(message)}$"):
        call()
