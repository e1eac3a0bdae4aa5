import shutil
import time
from pathlib import Path

import numpy as np
import pytest

from gossamer.workloads.errors import InputError
from gossamer.workloads.files.eie_dump import load_eie_dump

ALEX8 = Path(__file__).resolve().parents[3] / "shared" / "data" / "eie-alex8"
BOOK = np.array([0, -1, 0.5, 2, 3], np.float32)


def write_dump(folder, codes, act, pe_count, bias=None, longest=15, book=BOOK):
    """Write ``codes`` (rows, cols) as the authors' simulator does, one entry at a time."""
    (folder / "ptr").mkdir(parents=True)
    (folder / "spm").mkdir()
    act.astype("<f4").tofile(folder / "act.dat")
    book.astype("<f4").tofile(folder / "arithm.dat")
    columns = codes if bias is None else np.column_stack([codes, bias])
    for pe in range(pe_count):
        ptr, entries = [0], []
        for column in columns[pe::pe_count].T:
            zeros = 0
            for code in column:
                if code == 0:
                    zeros += 1
                    continue
                while zeros > longest:
                    entries.append((0, longest))
                    zeros -= longest + 1
                entries.append((code, zeros))
                zeros = 0
            ptr.append(len(entries))
        np.array(ptr, "<u4").tofile(folder / f"ptr/ptr{pe}.dat")
        np.array(entries, "<u4").tofile(folder / f"spm/spm{pe}.dat")
    return folder


def random_codes(rng, rows, cols, density, size=5):
    codes = (rng.integers(1, size, (rows, cols)) * (rng.random((rows, cols)) < density)).astype(np.uint8)
    codes[-1, 0] = 1  # the dump cannot tell of rows below the last entry
    return codes


@pytest.mark.parametrize("seed", range(40))
def test_a_dump_is_decoded_to_the_matrix_it_was_made_from(tmp_path, seed):
    rng = np.random.default_rng(seed)
    rows, cols, pe_count = (int(n) for n in rng.integers(1, (200, 12, 9)))
    codes = random_codes(rng, rows, cols, rng.choice([0.01, 0.1, 0.5]))
    bias = rng.integers(0, 5, rows).astype(np.uint8) if seed % 2 else None
    act = rng.random(cols)
    longest = (3, 15, 255)[seed % 3]
    trace = load_eie_dump(write_dump(tmp_path / "my-dump", codes, act, pe_count, bias, longest))
    (layer,) = trace.layers
    assert (trace.name, layer.name, layer.op) == ("my-dump", "fc", "linear")
    assert trace.provenance == {"source": "data folder of the EIE authors' simulator", "pe_count": pe_count}
    np.testing.assert_array_equal(layer.codes, codes, strict=True)
    np.testing.assert_array_equal(layer.codebook, BOOK, strict=True)
    np.testing.assert_array_equal(layer.inputs, act.astype(np.float32).reshape(1, -1), strict=True)
    if bias is None:
        assert layer.bias_codes is None
    else:
        np.testing.assert_array_equal(layer.bias_codes, bias, strict=True)


def test_rows_below_the_last_entry_are_unknown_unless_the_bias_reaches_them(tmp_path):
    codes = np.array([[1, 0], [0, 0], [0, 2], [0, 0], [0, 0]], np.uint8)
    act = np.ones(2)
    assert load_eie_dump(write_dump(tmp_path / "a", codes, act, 2)).layers[0].shape == (3, 2)
    bias = np.array([0, 0, 0, 0, 1], np.uint8)
    assert load_eie_dump(write_dump(tmp_path / "b", codes, act, 2, bias)).layers[0].shape == (5, 2)


@pytest.fixture
def dump(tmp_path):
    rng = np.random.default_rng(0)
    return write_dump(tmp_path / "dump", random_codes(rng, 30, 6, 0.3), rng.random(6), 3)


def overwrite(name, dtype, change):
    def damage(folder):
        values = np.fromfile(folder / name, dtype)
        change(values)
        values.tofile(folder / name)

    return damage


def set_at(place, value):
    return lambda values: values.__setitem__(place, value)


def append_bytes(name, count):
    return lambda folder: (folder / name).write_bytes((folder / name).read_bytes() + bytes(count))


def repeat_last_pointer(folder):
    ptr = np.fromfile(folder / "ptr/ptr1.dat", "<u4")
    np.append(ptr, ptr[-1]).tofile(folder / "ptr/ptr1.dat")


WRONG_DUMPS = [
    (
        lambda f: shutil.rmtree(f / "spm"),
        "{f}: a dump of the EIE simulator has act.dat, arithm.dat, ptr, spm, and spm is missing; "
        "give the simulator's data folder",
    ),
    (
        lambda f: (shutil.rmtree(f / "ptr"), (f / "act.dat").unlink()),
        "{f}: a dump of the EIE simulator has act.dat, arithm.dat, ptr, spm, and act.dat, ptr are missing; "
        "give the simulator's data folder",
    ),
    (
        lambda f: [p.unlink() for p in (f / "ptr").iterdir()],
        "{f}/ptr: one file ptrK.dat a PE is needed, and there is none",
    ),
    (lambda f: (f / "ptr/ptr1.dat").unlink(), "{f}/ptr: 2 PEs need ptr0.dat to ptr1.dat, and ptr1.dat is missing"),
    (lambda f: (f / "spm/spm0.dat").unlink(), "{f}/spm: 3 PEs need spm0.dat to spm2.dat, and spm0.dat is missing"),
    (lambda f: (f / "ptr/ptr2.dat").unlink(), "{f}/spm: spm2.dat must have its ptr2.dat, and it is missing"),
    (
        lambda f: (shutil.rmtree(f / "ptr"), (f / "ptr").touch()),
        "{f}/ptr: a folder of ptrK.dat is needed, and Not a directory",
    ),
    (append_bytes("act.dat", 3), "{f}/act.dat: the size must be a multiple of 4 bytes, not 27"),
    (
        lambda f: (f / "act.dat").write_bytes(b""),
        "{f}/act.dat: at least one activation is needed, not 0; dump the layer again",
    ),
    (append_bytes("act.dat", 8), "{f}/ptr/ptr0.dat: 8 activations need 9 pointers, or 10 with a bias column, not 7"),
    (
        overwrite("act.dat", "<f4", set_at(2, np.nan)),
        "{f}: layer fc: tensor inputs must be finite, and holds nan at (0, 2); replace such values",
    ),
    (
        lambda f: (f / "arithm.dat").write_bytes(bytes(4)),
        "{f}/arithm.dat: the codebook must have 2 to 256 entries, not 1",
    ),
    (
        overwrite("arithm.dat", "<f4", set_at(0, 1)),
        "{f}: layer fc: entry 0 of the codebook stands for pruned weights and must be 0.0, not 1.0",
    ),
    (repeat_last_pointer, "{f}/ptr/ptr1.dat: every PE must have as many pointers as PE 0, 7, not 8"),
    (overwrite("ptr/ptr1.dat", "<u4", set_at(0, 1)), "{f}/ptr/ptr1.dat: pointers must start at 0, not 1"),
    (
        overwrite("ptr/ptr1.dat", "<u4", set_at(3, 99)),
        "{f}/ptr/ptr1.dat: pointers must never fall, and number 4 is 9 after 99",
    ),
    (
        overwrite("ptr/ptr2.dat", "<u4", set_at(-1, 2**32 - 1)),
        "{f}/spm/spm2.dat: 4294967295 entries are needed, as the last pointer says, not 15",
    ),
    (append_bytes("spm/spm0.dat", 4), "{f}/spm/spm0.dat: the size must be a multiple of 8 bytes, not {odd}"),
    (
        overwrite("spm/spm0.dat", "<u4", set_at(2, 5)),
        "{f}/spm/spm0.dat: a code must be below 5, as many as the codebook has, and entry 1 has 5",
    ),
    (
        overwrite("spm/spm0.dat", "<u4", set_at(5, 2**31)),
        "{f}/spm/spm0.dat: a zero run must be below 256, to fit 8 bits, and entry 2 has 2147483648",
    ),
    (
        lambda f: [
            overwrite(f"spm/spm{k}.dat", "<u4", lambda v: v.__setitem__(slice(0, None, 2), 0))(f) for k in range(3)
        ],
        "{f}: a dump must hold at least one weight, and all entries are padding",
    ),
]


@pytest.mark.parametrize(("damage", "message"), WRONG_DUMPS)
def test_a_dump_that_breaks_a_rule_is_refused(dump, damage, message):
    damage(dump)
    odd = (dump / "spm/spm0.dat").stat().st_size if "{odd}" in message else None
    with pytest.raises(InputError) as error:
        load_eie_dump(dump)
    assert str(error.value) == message.format(f=dump, odd=odd)


def test_a_damaged_dump_is_refused_or_read_but_never_breaks(dump):
    rng = np.random.default_rng(3)
    files = sorted(path for path in dump.rglob("*.dat"))
    refused = 0
    for _ in range(1000):
        path = files[rng.integers(len(files))]
        data = path.read_bytes()
        damaged = bytearray(data)
        for at in rng.integers(len(data), size=rng.integers(1, 4)):
            damaged[at] = rng.integers(256)
        path.write_bytes(damaged[: len(data) - rng.integers(0, 2) * rng.integers(len(data))])
        try:
            load_eie_dump(dump)
        except InputError as error:
            refused += 1
            assert str(error).startswith(str(dump))
            assert str(error).isprintable()
        path.write_bytes(data)
    assert refused > 400


def test_the_real_fc8_of_alexnet_is_read_whole_and_fast():
    if not ALEX8.is_dir():
        pytest.skip(f"the EIE authors' dump is not beside the repository at {ALEX8.parent.name}/{ALEX8.name}")
    start = time.process_time()
    trace = load_eie_dump(ALEX8)
    assert time.process_time() - start < 1
    (layer,) = trace.layers
    assert layer.shape == (1000, 4096)
    assert np.count_nonzero(layer.inputs) == 1759
    assert trace.provenance["pe_count"] == 64
    output = layer.weight.astype(np.float64) @ layer.inputs[0] + layer.codebook[layer.bias_codes]
    assert output.argmax() == 708
    rows = np.count_nonzero(layer.codes, axis=1)
    assert (round(rows.mean()), round(rows.std())) == (1051, 139)
    active = np.count_nonzero(layer.codes[:, layer.inputs[0] != 0]) + np.count_nonzero(layer.bias_codes)
    assert active == 453_748  # useful multiply-accumulates of the authors' simulator
