import io

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import io as scipy_io
from scipy import sparse

from gossamer.workloads.errors import InputError
from gossamer.workloads.files.drawn import Draw
from gossamer.workloads.files.matrix_market import load_matrix_market
from gossamer.workloads.files.smtx import load_smtx

DRAW = Draw(act_density=0.5, samples=2, seed=3)
TITLE = "%%MatrixMarket matrix "


def read(tmp_path, text, draw=DRAW, name="m.mtx"):
    path = tmp_path / name
    path.write_text(text)
    return (load_smtx if name.endswith(".smtx") else load_matrix_market)(path, draw)


def weight(trace):
    return trace.layers[0].weight


@settings(max_examples=200, derandomize=True, deadline=None)
@given(
    rows=st.integers(1, 15),
    cols=st.integers(1, 15),
    density=st.sampled_from([0, 0.2, 1]),
    seed=st.integers(0, 999),
    dense=st.booleans(),
    field=st.sampled_from(["real", "integer"]),
    symmetry=st.sampled_from(["general", "symmetric", "skew-symmetric"]),
)
def test_what_scipy_writes_is_read_as_scipy_reads_it(
    tmp_path_factory, rows, cols, density, seed, dense, field, symmetry
):
    rng = np.random.default_rng(seed)
    cols = cols if symmetry == "general" else rows
    matrix = rng.standard_normal((rows, cols)) * (rng.random((rows, cols)) < density)
    if field == "integer":
        matrix = np.round(matrix * 10).astype(int)
    if symmetry != "general":
        lower = np.tril(matrix, -1)
        matrix = lower + lower.T + np.diag(np.diag(matrix)) if symmetry == "symmetric" else lower - lower.T
    path = tmp_path_factory.mktemp("m") / "m.mtx"
    given = matrix if dense else sparse.coo_array(matrix)
    scipy_io.mmwrite(path, given, comment="made\nby scipy", field=field, symmetry=symmetry, precision=9)
    expected = scipy_io.mmread(path)
    expected = expected if dense else expected.toarray()
    loaded = load_matrix_market(path, DRAW)
    np.testing.assert_array_equal(weight(loaded), expected.astype(np.float32), strict=True)
    assert loaded.layers[0].inputs.shape == (2, cols)


@pytest.mark.parametrize("dtype", [np.uint8, np.uint32, np.int8, np.float32])
def test_what_scipy_writes_of_a_matrix_of_any_type_is_read(tmp_path, dtype):
    matrix = np.array([[0, 3, 0], [100, 0, 7]], dtype)
    scipy_io.mmwrite(tmp_path / "m.mtx", sparse.coo_array(matrix))
    np.testing.assert_array_equal(weight(load_matrix_market(tmp_path / "m.mtx", DRAW)), matrix)


def test_the_field_double_is_read_as_real(tmp_path):
    body = " general\n2 2 2\n1 1 0.1\n2 1 -3e2\n"
    matrix = weight(read(tmp_path, TITLE + "coordinate double" + body))
    np.testing.assert_array_equal(matrix, weight(read(tmp_path, TITLE + "coordinate real" + body)))


@pytest.mark.parametrize(
    "body",
    ["2 2 1\r\n2 1 5\r\n", "% a\n\n2\t2 1\n% b\n\n  +2 1\t5.0 % c\n\n", "2 2 1\n2 1 5", "2 2 2\n1 1 0\n2 1 0.5E1\n"],
)
def test_blanks_comments_and_line_ends_are_read_over(tmp_path, body):
    assert weight(read(tmp_path, f"%%matrixmarket MATRIX Coordinate real general\n{body}")).tolist() == [[0, 0], [5, 0]]


def test_a_pattern_gets_values_from_the_seed_at_its_places(tmp_path):
    rng = np.random.default_rng(0)
    kept = rng.random((20, 30)) < 0.2
    text = io.BytesIO()
    scipy_io.mmwrite(text, sparse.coo_array(kept.astype(float)), field="pattern", symmetry="general")
    one = read(tmp_path, text.getvalue().decode())
    np.testing.assert_array_equal(weight(one) != 0, kept)
    assert 0.7 < weight(one)[kept].std() < 1.3
    assert one.sha256 == read(tmp_path, text.getvalue().decode()).sha256
    other = read(tmp_path, text.getvalue().decode(), Draw(act_density=0.5, samples=2, seed=4))
    assert not np.array_equal(weight(other), weight(one))
    assert one.provenance == {
        "source": "Matrix Market matrix in m.mtx",
        "drawn_inputs": {
            "layers": ["matrix"],
            "distribution": "uniform",
            "act_density": 0.5,
            "samples": 2,
            "seed": 3,
        },
        "drawn_weights": {"distribution": "standard normal", "seed": 3},
    }


def test_comments_blanks_and_case_do_not_matter(tmp_path):
    title = "%%matrixmarket MATRIX Coordinate Real General\r\n"
    text = title + "% a\r\n\r\n %b\r\n2 3 2\r\n% c\r\n1 1 1e0\r\n\r\n2 3 -2.5 \r\n"
    np.testing.assert_array_equal(weight(read(tmp_path, text)), [[1, 0, 0], [0, 0, -2.5]])


def test_a_symmetric_pattern_is_mirrored(tmp_path):
    matrix = weight(read(tmp_path, TITLE + "coordinate pattern symmetric\n3 3 3\n1 1\n3 1\n3 2\n"))
    np.testing.assert_array_equal(matrix, matrix.T)
    np.testing.assert_array_equal(matrix != 0, [[1, 0, 1], [0, 0, 1], [1, 1, 0]])


WRONG_MTX = [
    ("", "the first line must be '%%MatrixMarket matrix FORMAT FIELD SYMMETRY', not ''"),
    ("\x00\xff", "the first line must be '%%MatrixMarket matrix FORMAT FIELD SYMMETRY', not '?Ã¿'"),
    (
        TITLE + "coordinate complex general\n",
        "the first line may say real, double, integer, unsigned-integer, pattern, not 'complex'; convert the matrix",
    ),
    (
        TITLE + "elemental real general\n",
        "the first line may say coordinate, array, not 'elemental'; convert the matrix",
    ),
    (
        TITLE + "coordinate real hermitian\n",
        "the first line may say general, symmetric, skew-symmetric, not 'hermitian'; convert the matrix",
    ),
    (
        TITLE + "array pattern general\n",
        "a pattern has no values, so it cannot be array general; convert the matrix",
    ),
    (
        TITLE + "coordinate real general\n2 3\n",
        "the size line must give rows, columns and entries as whole numbers, not '2 3'",
    ),
    (TITLE + "array real general\n2 x\n", "the size line must give rows and columns as whole numbers, not '2 x'"),
    (
        TITLE + "coordinate real general\n",
        "the size line must give rows, columns and entries as whole numbers, not ''",
    ),
    (
        TITLE + "coordinate real general\n0 3 0\n",
        "the matrix must have 1 to 67109888 elements, zeros included, not 0 x 3",
    ),
    (
        TITLE + "coordinate real general\n1000000 1000000 1\n1 1 1\n",
        "the matrix must have 1 to 67110912 elements, zeros included, not 1000000 x 1000000",
    ),
    (TITLE + "coordinate real symmetric\n2 3 0\n", "a symmetric matrix must be square, not 2 x 3"),
    (
        TITLE + "coordinate real general\n2 3 2\n1 1 1\n",
        "2 entries are needed, as the size line says, not 1; copy the file again",
    ),
    (
        TITLE + "array real general\n2 2\n1\n2\n3\n4\n5\n",
        "4 values are needed, as the size line says, not 5; copy the file again",
    ),
    (
        TITLE + "coordinate real general\n2 3 1\n3 1 1\n",
        "a row must be from 1 to 2, and entry 1 has 3",
    ),
    (
        TITLE + "coordinate real general\n2 3 2\n1 1 1\n1 0 1\n",
        "a column must be from 1 to 3, and entry 2 has 0",
    ),
    (
        TITLE + "coordinate real general\n2 3 2\n1 3 1\n1 3 2\n",
        "every place must occur once, and row 1, column 3 occurs twice",
    ),
    (
        TITLE + "coordinate real symmetric\n3 3 1\n1 3 1\n",
        "a symmetric file must hold the lower triangle, and entry 1 is at row 1, column 3",
    ),
    (
        TITLE + "coordinate real skew-symmetric\n3 3 1\n2 2 1\n",
        "a skew-symmetric file must hold the lower triangle, and entry 1 is at row 2, column 2",
    ),
    (
        TITLE + "coordinate real general\n2 3 1\n1 3 1e39\n",
        "entries must fit float32, and holds 1e+39 at (0,); replace such values",
    ),
    (
        TITLE + "coordinate real general\n2 3 1\n1 3 nan\n",
        "entries must be finite, and holds nan at (0,); replace such values",
    ),
]


@pytest.mark.parametrize(("text", "message"), WRONG_MTX)
def test_a_matrix_that_breaks_a_rule_is_refused(tmp_path, text, message):
    (tmp_path / "m.mtx").write_bytes(text.encode())
    with pytest.raises(InputError) as error:
        load_matrix_market(tmp_path / "m.mtx", DRAW)
    assert str(error.value) == f"{tmp_path / 'm.mtx'}: {message}"


@pytest.mark.parametrize("line", ["1 1", "1 1 x", "1.5 1 1", "1 1 1 1"])
def test_entries_that_are_no_numbers_are_refused(tmp_path, line):
    with pytest.raises(InputError, match=r"m\.mtx: entries must be numbers, 3 a line, and are not \("):
        read(tmp_path, TITLE + f"coordinate real general\n2 3 1\n{line}\n")


def test_a_matrix_without_activations_needs_a_density(tmp_path):
    with pytest.raises(InputError) as error:
        read(tmp_path, TITLE + "array real general\n1 1\n2\n", Draw())
    assert str(error.value) == (
        f"{tmp_path / 'm.mtx'}: a bare matrix comes without activations; give act_density to have some drawn"
    )


@pytest.mark.parametrize("seed", range(20))
def test_an_smtx_has_its_nonzeros_where_the_row_offsets_put_them(tmp_path, seed):
    rng = np.random.default_rng(seed)
    rows, cols = (int(n) for n in rng.integers(1, 40, 2))
    kept = sparse.csr_array(rng.random((rows, cols)) < rng.choice([0, 0.1, 0.9]))
    lines = [f"{rows}, {cols}, {kept.nnz}", " ".join(map(str, kept.indptr)), " ".join(map(str, kept.indices))]
    trace = read(tmp_path, "\n".join(lines) + "\n" * (seed % 3), name="body.smtx")
    np.testing.assert_array_equal(weight(trace) != 0, kept.toarray())
    assert (trace.name, trace.provenance["source"]) == ("body", "DLMC matrix in body.smtx")
    assert trace.provenance["drawn_weights"] == {"distribution": "standard normal", "seed": 3}


WRONG_SMTX = [
    ("", "the first line must be 'rows, columns, nonzeros', not ''"),
    ("2, 3\n0 0 0\n", "the first line must be 'rows, columns, nonzeros', not '2, 3'"),
    ("0, 3, 0\n0\n", "the matrix must have 1 to 67108864 elements, zeros included, not 0 x 3"),
    ("2, 3, 1\n0 1\n1\n", "2 rows need 3 row offsets, not 2; copy the file again"),
    ("2, 3, 2\n0 1 2\n1\n", "2 column indices are needed, as the first line says, not 1; copy it again"),
    ("2, 3, 2\n0 2 1\n1 2\n", "row offsets must rise from 0 to 2 and never fall; copy the file again"),
    ("2, 3, 2\n0 3 2\n1 2\n", "row offsets must rise from 0 to 2 and never fall; copy the file again"),
    ("2, 3, 2\n0 1 2\n1 3\n", "a column index must be from 0 to 2, and number 1 is 3"),
    ("2, 3, 2\n0 2 2\n1 1\n", "every place must occur once, and row 0, column 1 occurs twice"),
    ("2, 3, 1\n0 1 1\n1\n5\n", "three lines are needed (sizes, row offsets, column indices), and more follow"),
]


@pytest.mark.parametrize(("text", "message"), WRONG_SMTX)
def test_an_smtx_that_breaks_a_rule_is_refused(tmp_path, text, message):
    with pytest.raises(InputError) as error:
        read(tmp_path, text, name="m.smtx")
    assert str(error.value) == f"{tmp_path / 'm.smtx'}: {message}"


@pytest.mark.parametrize("word", ["x", "1.5", "99999999999999999999999", "1e3", "½"])
def test_indices_that_are_no_whole_numbers_are_refused(tmp_path, word):
    with pytest.raises(InputError) as error:
        read(tmp_path, f"1, 3, 1\n0 1\n-2 {word}\n", name="m.smtx")
    met = word.encode().decode("latin-1")
    assert str(error.value) == (
        f"{tmp_path / 'm.smtx'}: column indices must be whole numbers, and {met!r} is none; copy the file again"
    )


@pytest.mark.parametrize("name", ["m.mtx", "m.smtx"])
def test_damaged_text_is_refused_or_read_but_never_breaks(tmp_path, name):
    rng = np.random.default_rng(9)
    text = TITLE + "coordinate real general\n4 5 3\n1 1 1.5\n2 3 2e3\n4 5 -1\n"
    if name == "m.smtx":
        text = "4, 5, 3\n0 1 2 2 3\n0 2 4\n"
    path = tmp_path / name
    refused = 0
    alphabet = np.frombuffer(b"0123456789 \n,.-eEnx%\x00\xff\t_", np.uint8)
    for _ in range(1500):
        damaged = np.frombuffer(text.encode(), np.uint8).copy()
        damaged[rng.integers(len(damaged), size=rng.integers(1, 4))] = rng.choice(alphabet)
        path.write_bytes(damaged.tobytes()[: len(text) - rng.integers(0, 2) * rng.integers(len(text))])
        try:
            (load_smtx if name == "m.smtx" else load_matrix_market)(path, DRAW)
        except InputError as error:
            refused += 1
            assert str(error).startswith(f"{path}: ")
            assert str(error).isprintable()
    assert 1000 < refused < 1500
