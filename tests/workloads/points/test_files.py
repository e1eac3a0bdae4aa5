"""Files of point clouds: what is read from each kind, round trips, and one line for every damage."""

import io
import re
import struct
import zipfile

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gossamer.workloads.errors import InputError
from gossamer.workloads.points import Cloud, read_cloud, write_cloud
from gossamer.workloads.points.files import WRITTEN_SUFFIXES
from gossamer.workloads.points.off import read_mesh

POINTS = np.array([[0, 1, 2], [3.5, -4, 5], [6, 7, -8.25]], np.float32)
REMISSION = np.array([0.25, 0.5, 1], np.float32)
XYZ = b"property float x\nproperty float y\nproperty float z\n"


def written(folder, name, data):
    path = folder / name
    path.write_bytes(data)
    return path


def refused(path, message, **options):
    with pytest.raises(InputError, match=f"^{re.escape(f'{path}: {message}')}$"):
        read_cloud(path, **options)


def npy(array, **options):
    file = io.BytesIO()
    np.lib.format.write_array(file, array, **options)
    return file.getvalue()


def ply(kind, elements, body, version=b"1.0"):
    return b"ply\nformat " + kind + b" " + version + b"\ncomment by hand\n" + elements + b"end_header\n" + body


@pytest.mark.parametrize("suffix", WRITTEN_SUFFIXES)
@pytest.mark.parametrize("remission", [None, REMISSION])
def test_what_is_written_is_read_again_and_the_same_bytes_come_each_time(tmp_path, suffix, remission):
    cloud = Cloud(POINTS, "three", remission)
    path = write_cloud(cloud, tmp_path / f"three{suffix}")
    first = path.read_bytes()
    found = read_cloud(path)
    assert found.name == "three"
    assert np.array_equal(found.points, POINTS)
    assert found.points.dtype == np.float32
    if suffix == ".bin" and remission is None:
        assert found.remission.tolist() == [0, 0, 0]
    else:
        assert (found.remission is None) == (remission is None)
        assert remission is None or np.array_equal(found.remission, remission)
    assert write_cloud(found if remission is not None else cloud, path).read_bytes() == first


def test_a_scan_of_semantickitti_is_16_bytes_a_point(tmp_path):
    path = written(tmp_path, "000000.bin", struct.pack("<8f", 1, 2, 3, 0.5, -4, 5, 6, 0.75))
    cloud = read_cloud(path)
    assert cloud.name == "000000"
    assert cloud.points.tolist() == [[1, 2, 3], [-4, 5, 6]]
    assert cloud.remission.tolist() == [0.5, 0.75]


@pytest.mark.parametrize(("kind", "order"), [(b"binary_little_endian", "<"), (b"binary_big_endian", ">")])
def test_a_binary_ply_of_either_byte_order_is_read_past_other_elements_and_properties(tmp_path, kind, order):
    head = (
        b"element camera 2\nproperty uchar id\nproperty double angle\n"
        b"element vertex 2\nproperty uchar red\nproperty double x\nproperty float y\nproperty short z\n"
        b"property float intensity\nelement face 1\nproperty list uchar int vertex_indices\n"
    )
    body = struct.pack(f"{order}BdBd", 1, 0.5, 2, 0.5)
    body += struct.pack(f"{order}BdfhfBdfhf", 9, 1.5, 2, 3, 0.25, 8, -1.5, -2, -3, 0.5) + b"face"
    cloud = read_cloud(written(tmp_path, "a.ply", ply(kind, head, body)))
    assert cloud.points.tolist() == [[1.5, 2, 3], [-1.5, -2, -3]]
    assert cloud.remission.tolist() == [0.25, 0.5]


@pytest.mark.parametrize("end", [b"\n", b"\r\n"])
def test_an_ascii_ply_is_read_whatever_ends_its_lines(tmp_path, end):
    head = (
        b"element grid 1\nproperty list int int rows\nelement vertex 2\nproperty float z\n"
        + XYZ[:34]
        + b"element face 1\n"
    )
    head = head.replace(b"element grid 1\nproperty list int int rows\n", b"element grid 1\nproperty int rows\n")
    data = ply(b"ascii", head, b"7\n3 1 2\n\n6 4 5\n3 0 1 1\n").replace(b"\n", end)
    assert read_cloud(written(tmp_path, "a.ply", data)).points.tolist() == [[1, 2, 3], [4, 5, 6]]


@pytest.mark.parametrize("dtype", ["<f8", ">f4", "<i4", "<u2", "<f2"])
def test_arrays_of_any_real_dtype_and_order_are_read(tmp_path, dtype):
    array = np.asfortranarray(np.arange(12).reshape(4, 3).astype(dtype))
    assert read_cloud(written(tmp_path, "a.npy", npy(array))).points.tolist() == array.tolist()


def test_further_columns_are_left_out_and_just_one_is_the_remission(tmp_path):
    table = np.arange(12.0).reshape(2, 6)
    six = read_cloud(written(tmp_path, "a.npy", npy(table)))
    assert (six.points.tolist(), six.remission) == (table[:, :3].tolist(), None)
    four = read_cloud(written(tmp_path, "b.npy", npy(table[:, :4])))
    assert four.remission.tolist() == [3, 9]


def test_an_archive_gives_its_points_or_the_only_array_that_could_be(tmp_path):
    np.savez(tmp_path / "a.npz", points=POINTS, other=np.ones((5, 3)), remission=REMISSION)
    cloud = read_cloud(tmp_path / "a.npz")
    assert np.array_equal(cloud.points, POINTS)
    assert np.array_equal(cloud.remission, REMISSION)
    np.savez_compressed(tmp_path / "b.npz", cloud=POINTS, label=np.zeros(3, int))
    assert np.array_equal(read_cloud(tmp_path / "b.npz").points, POINTS)


SQUARE = b"OFF\n4 1 0\n0 0 0\n2 0 0\n2 2 0\n0 2 0\n4 0 1 2 3 255 0 0\n"


def test_a_mesh_is_sampled_from_its_surface_each_place_as_likely(tmp_path):
    # A square of area 4 and, apart from it, a triangle of area 1.
    data = b"OFF # a comment\n\n7 2 0\n0 0 0\n2 0 0\n2 2 0\n0 2 0\n9 0 1\n11 0 1\n9 1 1\n4 0 1 2 3\n3 4 5 6\n"
    path = written(tmp_path, "a.off", data)
    points = read_cloud(path, samples=20_000).points
    on_square = points[:, 2] == 0
    assert abs(on_square.mean() - 0.8) < 0.01
    assert np.allclose(points[on_square].mean(axis=0), (1, 1, 0), atol=0.03)
    halves, _ = np.histogram(points[on_square, 0], 4, (0, 2))
    assert halves.min() > 0.95 * on_square.sum() / 4
    x, y = points[~on_square, 0] - 9, points[~on_square, 1]
    assert (x >= 0).all()
    assert (y >= 0).all()
    assert (x / 2 + y <= 1 + 1e-6).all()


def test_samples_of_a_mesh_are_1024_unless_asked_for_and_the_same_for_a_seed(tmp_path):
    path = written(tmp_path, "a.off", SQUARE)
    assert read_cloud(path).points.shape == (1024, 3)
    first, again, other = (read_cloud(path, samples=7, seed=seed).points for seed in (1, 1, 2))
    assert np.array_equal(first, again)
    assert not np.array_equal(first, other)


def test_the_size_may_be_glued_to_the_first_line_as_in_modelnet40(tmp_path):
    path = written(tmp_path, "a.off", SQUARE.replace(b"OFF\n", b"OFF"))
    mesh = read_mesh(path)
    assert mesh.triangles.tolist() == [[0, 1, 2], [0, 2, 3]]


def test_faces_without_area_get_no_points(tmp_path):
    data = b"OFF\n4 3 0\n0 0 0\n1 0 0\n0 1 0\n5 5 5\n3 3 3 3\n3 0 1 2\n3 0 3 3\n"
    points = read_cloud(written(tmp_path, "a.off", data), samples=500).points
    assert points[:, 2].max() == 0


def test_samples_of_points_are_some_of_them_in_their_order(tmp_path):
    path = write_cloud(Cloud(np.arange(300, dtype=np.float32).reshape(-1, 3), "a"), tmp_path / "a.npy")
    x = read_cloud(path, samples=40, seed=3).points[:, 0]
    assert len(x) == 40
    assert (np.diff(x) > 0).all()
    refused(path, "samples must be at most the number of points, 100, not 101", samples=101)


VERTEX = b"element vertex 2\n" + XYZ
FACE = "a face must be its corners, 3 to 256, and the index of each, 0 to 3, and face 0 is "


@pytest.mark.parametrize(
    ("name", "data", "message"),
    [
        ("a.bin", b"0" * 20, "a SemanticKITTI scan must have 16 bytes a point (float32 x, y, z, remission), "
         "and its 20 are no multiple; copy it again"),
        ("a.bin", b"", "a point cloud must have at least one point, and this has none"),
        ("a.bin", struct.pack("<4f", 1, float("nan"), 0, 0), "points must be finite, and holds nan at (0, 1); "
         "replace such values"),
        ("a.bin", struct.pack("<4f", 1, 2, 0, float("inf")), "remission must be finite, and holds inf at (0,); "
         "replace such values"),
        ("a.las", b"", "a point cloud must be a file ending in .bin, .ply, .npy, .npz, .off, not '.las'"),
        ("a", b"", "a point cloud must be a file ending in .bin, .ply, .npy, .npz, .off, not ''"),
        ("a.npy", npy(np.zeros((3, 2))), "points must be real numbers of shape (n, 3 or more), not float64 (3, 2)"),
        ("a.npy", npy(np.zeros((3, 3), bool)), "points must be real numbers of shape (n, 3 or more), not bool (3, 3)"),
        ("a.npy", npy(np.full((1, 3), 1e39)), "points must fit float32, and holds 1e+39 at (0, 0); "
         "replace such values"),
        ("a.npy", npy(np.array([[{}] * 3], object), allow_pickle=True), "the file must be a whole .npy file of plain "
         "numbers, and is not (arrays must hold plain numbers, not object); write it again"),
        ("a.npy", npy(np.zeros((3, 3)))[:-8], "the file must be a whole .npy file of plain numbers, and is not "
         "(shape (3, 3) of float64 must take the 64 bytes there are); write it again"),
        ("a.npy", npy(np.zeros((3, 3))).replace(b"(3, 3)", b"(3, 999999999999)"), None),
        ("a.npz", b"PK", "the file must be a whole .npz archive of plain arrays, and is not (File is not a zip file); "
         "write it again"),
        ("a.ply", b"plywood\n", "a .ply file must begin with a line 'ply', not 'plywood'"),
        ("a.ply", b"ply\nformat ascii 1.0\n", "the header must end with a line 'end_header' within 65536 bytes, "
         "and does not"),
        ("a.ply", b"ply\nelement vertex 1\n" + XYZ + b"end_header\n1 2 3\n", "the header must name the format, one of "
         "ascii, binary_little_endian, binary_big_endian, and does not"),
        ("a.ply", ply(b"ascii", VERTEX, b"", b"2.0"), "a line of the header must be a format (ascii or binary, 1.0), "
         "an element NAME COUNT or a property TYPE NAME, not 'format ascii 2.0'"),
        ("a.ply", ply(b"ascii", b"element vertex -1\n", b""), "a line of the header must be a format (ascii or binary, "
         "1.0), an element NAME COUNT or a property TYPE NAME, not 'element vertex -1'"),
        ("a.ply", ply(b"ascii", b"element vertex 1\nproperty float x\n", b"1\n"), "a .ply file must have an element "
         "vertex with the properties x, y and z, each once, and no list"),
        ("a.ply", ply(b"ascii", VERTEX + b"property float x\n", b"1 2 3 4\n"), "a .ply file must have an element "
         "vertex with the properties x, y and z, each once, and no list"),
        ("a.ply", ply(b"binary_big_endian", b"element face 1\nproperty list uchar int i\n" + VERTEX, b""),
         "the vertices of a .ply file must come before elements with lists; write them first"),
        ("a.ply", ply(b"binary_little_endian", VERTEX, b"0" * 23), "2 vertices of 12 bytes are needed, as the header "
         "says, and 23 bytes are left; copy the file again"),
        ("a.ply", ply(b"binary_little_endian", b"element vertex 99999999999999\n" + XYZ, b"0" * 24),
         "99999999999999 vertices of 12 bytes are needed, as the header says, and 24 bytes are left; "
         "copy the file again"),
        ("a.ply", ply(b"binary_little_endian", b"element vertex 0\n" + XYZ, b""),
         "a point cloud must have at least one point, and this has none"),
        ("a.ply", ply(b"ascii", b"element vertex 99999999999999\n" + XYZ, b"1 2 3\n"), "99999999999999 lines up to the "
         "last vertex are needed, as the header says, not 1; copy the file again"),
        ("a.ply", ply(b"ascii", VERTEX, b"1 2\n3 4\n"), "vertices must be 3 numbers a line, not 2"),
        ("a.off", b"COFF\n", "an .off file must begin with OFF, not 'COFF'"),
        ("a.off", b"", "an .off file must begin with OFF, not ''"),
        ("a.off", b"OFF\n1 2\n"[:6] + b"x\n", "the size must be three whole numbers (vertices, faces, edges), "
         "not '1 x'"),
        ("a.off", b"OFF\n", "the size must be three whole numbers (vertices, faces, edges), not ''"),
        ("a.off", b"OFF\n999999999999 1 0\n0 0 0\n", "999999999999 vertices and 1 faces need a line each, as the size "
         "says, not 1 lines; copy the file again"),
        ("a.off", SQUARE.replace(b"4 0 1 2 3", b"2 0 1"), FACE + "'2 0 1 255 0 0'"),
        ("a.off", SQUARE.replace(b"4 0 1 2 3 255 0 0", b"4 0 1 2"), FACE + "'4 0 1 2'"),
        ("a.off", SQUARE.replace(b"4 0 1 2 3", b"4 0 1 2 4"), FACE + "'4 0 1 2 4 255 0 0'"),
        ("a.off", b"OFF\n3 1 0\n0 0 0\n1 1 1\n2 2 2\n3 0 1 2\n", "a mesh must have a surface to draw points from, "
         "and the area of its faces is 0"),
        ("a.off", b"OFF\n3 0 0\n0 0 0\n1 1 1\n2 2 2\n", "a mesh must have a surface to draw points from, "
         "and the area of its faces is 0"),
    ],
)  # fmt: skip
def test_a_damaged_file_is_refused_in_one_line(tmp_path, name, data, message):
    path = written(tmp_path, name, data)
    if message is not None:
        refused(path, message)
        return
    with pytest.raises(InputError) as error:
        read_cloud(path)
    assert str(error.value).startswith(f"{path}: ")
    assert "\n" not in str(error.value)


def test_an_archive_with_nothing_or_too_much_of_use_is_refused(tmp_path):
    np.savez(tmp_path / "a.npz", one=POINTS, two=POINTS)
    refused(tmp_path / "a.npz", "the archive must hold an array points, or just one of shape (n, 3 or more), "
            "not one (3, 3), two (3, 3)")  # fmt: skip
    np.savez(tmp_path / "b.npz", points=POINTS, remission=np.ones(2))
    refused(tmp_path / "b.npz", "remission must be real numbers of shape (3,), one a point, not float64 (2,)")
    with zipfile.ZipFile(tmp_path / "c.npz", "w"):
        pass
    refused(tmp_path / "c.npz", "the archive must hold an array points, or just one of shape (n, 3 or more), not none")


def test_a_file_that_is_not_there_is_refused(tmp_path):
    for name, kind in (("a.bin", "a SemanticKITTI scan"), ("a.ply", "a .ply file"), ("a.npy", "an .npy file"),
                       ("a.npz", "an .npz file"), ("a.off", "an .off file")):  # fmt: skip
        refused(tmp_path / name, f"{kind} must be a readable file, and No such file or directory; check the path")


@pytest.mark.parametrize("samples", [0, -1, 1.5, True])
def test_samples_and_seeds_that_are_none_are_refused(tmp_path, samples):
    with pytest.raises(InputError, match=f"^samples must be a whole number of at least 1, not {samples}$"):
        read_cloud(tmp_path / "a.npy", samples=samples)
    with pytest.raises(InputError, match=r"^seed must be a whole number of at least 0, not -1$"):
        read_cloud(tmp_path / "a.npy", seed=-1)


def test_a_cloud_is_written_only_to_a_kind_that_is_known(tmp_path):
    path = tmp_path / "a.off"
    message = f"{path}: a point cloud must be written to a file ending in .npy, .npz, .bin, .ply, not '.off'"
    with pytest.raises(InputError, match=f"^{re.escape(message)}$"):
        write_cloud(Cloud(POINTS, "a"), path)


@pytest.mark.parametrize(
    ("points", "remission", "message"),
    [
        (POINTS[:, :2], None, "points must be float32 of shape (n, 3), not float32 (3, 2)"),
        (POINTS.astype(float), None, "points must be float32 of shape (n, 3), not float64 (3, 3)"),
        (np.full((1, 3), np.nan, np.float32), None, "points must be finite, and row 0 holds nan; drop it"),
        (POINTS, REMISSION[:2], "remission must be float32 of shape (3,), one a point, not float32 (2,)"),
        (POINTS, REMISSION * np.float32(np.inf), "remission must be finite, and row 0 holds inf; drop it"),
    ],
)
def test_a_cloud_holds_only_finite_float32(points, remission, message):
    with pytest.raises(InputError, match=f"^{re.escape(message)}$"):
        Cloud(points, "a", remission)


INTACT = {
    "a.ply": ply(b"binary_big_endian", VERTEX, POINTS[:2].astype(">f4").tobytes()),
    "b.ply": ply(b"ascii", VERTEX, b"1 2 3\n4 5 6\n"),
    "a.off": SQUARE,
    "a.npy": npy(POINTS),
    "a.bin": POINTS[:, [0, 1, 2, 0]].tobytes(),
}


@given(st.sampled_from(sorted(INTACT)), st.data())
def test_whatever_bytes_change_the_file_is_read_or_refused_in_one_line(tmp_path_factory, name, data):
    content = bytearray(INTACT[name])
    for _ in range(data.draw(st.integers(1, 4))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    del content[data.draw(st.integers(0, len(content))) :]
    path = tmp_path_factory.mktemp("damaged") / name
    path.write_bytes(content)
    try:
        cloud = read_cloud(path, samples=1)
        assert np.isfinite(cloud.points).all()
    except InputError as error:
        assert str(error).startswith(f"{path}: ")
        assert "\n" not in str(error)
