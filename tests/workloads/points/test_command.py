"""Point clouds from the command line: written as the suffix says, described in a line, refused in one."""

import numpy as np
import pytest

from gossamer.__main__ import main
from gossamer.workloads.points import lidar, read_cloud


@pytest.fixture(autouse=True)
def in_a_folder_of_its_own(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def test_a_scan_is_written_and_described(capsys):
    assert main(["synth", "lidar", "--seed", "4", "--out", "scan.bin"]) == 0
    cloud = lidar(4)
    found = read_cloud("scan.bin")
    assert np.array_equal(found.points, cloud.points)
    assert np.array_equal(found.remission, cloud.remission)
    out, err = capsys.readouterr()
    assert out.startswith(f"scan.bin: lidar-4, {len(cloud.points):,} points, ")
    assert out.endswith(" neighbours of 27\n")
    assert err == ""


def test_rooms_and_objects_are_written_in_every_kind(capsys):
    assert main(["synth", "room", "--out", "room.npz"]) == 0
    for shape, suffix in (("torus", "npy"), ("chair", "ply"), ("table", "bin")):
        assert main(["synth", "cad", "--shape", shape, "--points", "99", "--out", f"a.{suffix}"]) == 0
        assert read_cloud(f"a.{suffix}").points.shape == (99, 3)
    assert capsys.readouterr().out.splitlines()[1:] == [
        "a.npy: torus-0, 99 points",
        "a.ply: chair-0, 99 points",
        "a.bin: table-0, 99 points",
    ]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["lidar", "--out", "a.pcd"], "a.pcd: the name of this output must end in .npy, .npz, .bin, .ply, not '.pcd'"),
        (["room", "--seed", "-3", "--out", "a.npy"],
         "seed must be a whole number from 0 to 9223372036854775807, not -3"),
        (["cad", "--shape", "duck", "--out", "a.npy"],
         "shape must be one of box, sphere, cylinder, torus, cone, table, chair, lamp, shelf, not 'duck'"),
        (["cad", "--points", "0", "--out", "a.npy"], "points must be a whole number from 2 to 268435456, not 0"),
        (["lidar", "--out", "nowhere/a.bin"],
         "nowhere/a.bin: an output needs a folder to lie in, and nowhere is none; make it first"),
    ],
)  # fmt: skip
def test_what_cannot_be_made_is_refused_in_one_line_and_nothing_is_written(capsys, tmp_path, arguments, message):
    assert main(["synth", *arguments]) == 2
    assert capsys.readouterr() == ("", f"gossamer: error: {message}\n")
    assert not list(tmp_path.iterdir())
