import gzip

import numpy as np
import pytest

from gossamer.workloads.data import DATA, load_data
from gossamer.workloads.data.mnist1d import TEMPLATES, generate

from .refusals import message

STEMS = ("train-images-idx3-ubyte", "train-labels-idx1-ubyte", "t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte")


def test_the_digits_are_the_same_samples_in_three_shapes():
    flat, images, rows = (load_data(name) for name in ("digits", "digits-images", "digits-rows"))
    assert (flat.shape, images.shape, rows.shape) == ((64,), (1, 8, 8), (8, 8))
    assert {data.classes for data in (flat, images, rows)} == {10}
    for data in (images, rows):
        assert np.array_equal(data.train_inputs.reshape(-1, 64), flat.train_inputs)
        assert np.array_equal(data.test_labels, flat.test_labels)
    # An image stands upright: the margins of the digits are to the left and the right.
    assert images.train_inputs[:, 0, :, [0, -1]].mean() < 0.05 < images.train_inputs[:, 0, [0, -1], :].mean()


def test_mnist1d_is_always_the_same_and_its_split_is_drawn_by_the_seed():
    data, again, other = load_data("mnist1d"), load_data("mnist1d"), load_data("mnist1d", seed=1)
    assert (data.train_inputs.shape, data.test_inputs.shape) == ((4000, 40), (1000, 40))
    assert (data.train_inputs.dtype, data.test_labels.dtype) == (np.float32, np.int64)
    for name in ("train_inputs", "train_labels", "test_inputs", "test_labels"):
        assert np.array_equal(getattr(data, name), getattr(again, name))
    assert not np.array_equal(data.test_labels, other.test_labels)
    every = [np.concatenate([each.train_inputs, each.test_inputs]) for each in (data, other)]
    assert np.array_equal(*(np.sort(inputs, axis=0) for inputs in every))


def test_mnist1d_has_mean_0_deviation_1_and_as_many_of_each_class():
    inputs, labels = generate()
    assert inputs.mean() == pytest.approx(0, abs=1e-6)
    assert inputs.std() == pytest.approx(1, abs=1e-5)
    assert np.bincount(labels).tolist() == [500] * 10
    assert np.isfinite(inputs).all()


def test_mnist1d_spreads_its_templates_over_all_places_slopes_and_sizes():
    inputs, labels = generate()
    peaks = inputs[labels == 1].argmax(axis=1)  # one narrow peak
    assert len(np.unique(peaks)) == 40 or np.ptp(peaks) >= 35
    slope = np.polyfit(np.arange(40), inputs[labels == 1].T, 1)[0]
    assert slope.min() < -0.01 < 0.01 < slope.max()
    assert abs(np.mean(slope)) < 0.25 * slope.std()
    # Neighbours are alike: the noise is correlated, and a template is wider than a sample.
    centred = inputs - inputs.mean(axis=1, keepdims=True)
    alike = [np.mean(centred[:, gap:] * centred[:, : 40 - gap]) / np.mean(centred**2) for gap in (1, 10)]
    assert alike[0] > 0.6 > 0.3 > alike[1]


def test_no_two_templates_differ_by_translation_size_and_slope_alone():
    length = 24
    slope = np.linspace(-1, 1, length)
    signals = np.pad(TEMPLATES, ((0, 0), (0, length - TEMPLATES.shape[1])))
    shifted = np.stack([np.roll(signals, shift, axis=1) for shift in range(length)], axis=1)

    def cleared(x):  # of its mean and slope, and of length 1
        x = x - x.mean(axis=-1, keepdims=True)
        x = x - (x @ slope)[..., None] * slope / (slope @ slope)
        return x / np.linalg.norm(x, axis=-1, keepdims=True)

    likeness = np.einsum("ax,bsx->abs", cleared(signals), cleared(shifted)).max(axis=2)
    assert np.allclose(np.diag(likeness), 1)
    assert (likeness - np.eye(10)).max() < 0.9


def test_a_fraction_that_leaves_nothing_to_test_is_refused():
    assert message(load_data, "mnist1d", test_fraction=0.001) == (
        "test_fraction must leave each of the 10 classes a sample to train on and one to test, not 0.001"
    )


def idx(array):
    head = bytes([0, 0, 8, array.ndim]) + b"".join(int(side).to_bytes(4, "big") for side in array.shape)
    return head + array.astype(np.uint8).tobytes()


def write_mnist(folder, *, packed=False, names=STEMS):
    """Six images to train on and four to test, of 3 x 2 pixels."""
    folder.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(0)
    arrays = [rng.integers(0, 256, (6, 3, 2)), np.arange(6), rng.integers(0, 256, (4, 3, 2)), np.arange(4)]
    for name, array in zip(names, arrays, strict=True):
        data = idx(array)
        (folder / f"{name}{'.gz' if packed else ''}").write_bytes(gzip.compress(data) if packed else data)
    return arrays


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize(
    ("name", "below"),
    [("mnist", "."), ("mnist", "MNIST/raw"), ("fashion-mnist", "raw"), ("fashion-mnist", "FashionMNIST/raw")],
)
def test_mnist_is_read_from_its_files_packed_or_not(tmp_path, name, below, packed):
    images, labels, test_images, test_labels = write_mnist(tmp_path / below, packed=packed)
    data = load_data(name, folder=tmp_path, test_fraction=0.5, seed=9)  # split as published, whatever is asked for
    assert data.shape == (1, 3, 2)
    assert data.train_inputs.dtype == np.float32
    assert np.array_equal(np.rint(data.train_inputs * 255)[:, 0], images)
    assert np.array_equal(np.rint(data.test_inputs * 255)[:, 0], test_images)
    assert (data.train_labels.tolist(), data.test_labels.tolist()) == (labels.tolist(), test_labels.tolist())


def test_mnist_is_read_under_the_names_with_a_dot(tmp_path):
    write_mnist(tmp_path, names=[stem.replace("-idx", ".idx") for stem in STEMS])
    assert load_data("mnist", folder=str(tmp_path)).classes == 6


def test_a_folder_without_mnist_is_told_the_files_it_needs(tmp_path):
    write_mnist(tmp_path)
    (tmp_path / STEMS[3]).unlink()
    assert message(load_data, "mnist", folder=tmp_path) == (
        f"{tmp_path}: the folder of mnist must hold {', '.join(STEMS)}, each as it is or as .gz, and does not; "
        "give the folder that does"
    )


@pytest.mark.parametrize(
    ("damage", "rule"),
    [
        (lambda data: b"\x00\x00\x09\x03" + data[4:], "an IDX file of bytes must begin with 00000803, not '00000903'"),
        (lambda data: data[:-1], "the file must hold 6x3x2 bytes behind its head, not 35; copy it again"),
        (lambda data: data + b"0", "the file must hold 6x3x2 bytes behind its head, not 37; copy it again"),
        (lambda data: data[:9], "the head of the file must take 16 bytes, not 9; copy it again"),
        (lambda data: b"", "an IDX file of bytes must begin with 00000803, not ''"),
    ],
)
def test_a_damaged_idx_file_is_named_with_the_rule_it_breaks(tmp_path, damage, rule):
    write_mnist(tmp_path)
    path = tmp_path / STEMS[0]
    path.write_bytes(damage(path.read_bytes()))
    assert message(load_data, "mnist", folder=tmp_path) == f"{path}: {rule}"


def test_a_file_that_is_not_packed_though_it_says_so_is_refused(tmp_path):
    write_mnist(tmp_path, packed=True)
    path = tmp_path / f"{STEMS[1]}.gz"
    path.write_bytes(b"plain")
    assert message(load_data, "mnist", folder=tmp_path) == (
        f"{path}: the file must be packed by gzip, and Not a gzipped file (b'pl'); copy it again"
    )


def test_labels_that_are_not_as_many_as_the_images_are_refused(tmp_path):
    write_mnist(tmp_path)
    path = tmp_path / STEMS[1]
    path.write_bytes(idx(np.arange(5)))
    assert message(load_data, "mnist", folder=tmp_path) == (
        f"{path}: there must be a label for each of the 6 images, not 5; copy the files again"
    )


@pytest.mark.parametrize("sides", [(2, 3), (0, 2)])
def test_images_to_test_that_are_of_another_size_are_refused(tmp_path, sides):
    write_mnist(tmp_path)
    path = tmp_path / STEMS[2]
    path.write_bytes(idx(np.zeros((4, *sides))))
    assert message(load_data, "mnist", folder=tmp_path) == (
        f"{path}: images must be as large as those to train on, (3, 2), with no side 0, not {sides}; "
        "copy the files again"
    )


def write_cifar(folder, records=3):
    folder.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(0)
    batches = {}
    for name in (*(f"data_batch_{i}.bin" for i in range(1, 6)), "test_batch.bin"):
        labels, images = rng.integers(0, 10, (records, 1)), rng.integers(0, 256, (records, 3072))
        (folder / name).write_bytes(np.hstack([labels, images]).astype(np.uint8).tobytes())
        batches[name] = labels[:, 0], images
    return batches


@pytest.mark.parametrize("below", [".", "cifar-10-batches-bin"])
def test_cifar_10_is_read_from_its_binary_version(tmp_path, below):
    batches = write_cifar(tmp_path / below)
    data = load_data("cifar-10", folder=tmp_path)
    assert (data.train_inputs.shape, data.test_inputs.shape) == ((15, 3, 32, 32), (3, 3, 32, 32))
    assert (data.train_inputs.dtype, data.train_labels.dtype) == (np.float32, np.int64)
    assert (
        np.concatenate([batches[f"data_batch_{i}.bin"][0] for i in range(1, 6)]).tolist() == data.train_labels.tolist()
    )
    assert data.train_inputs.mean(axis=(0, 2, 3)) == pytest.approx(np.zeros(3), abs=1e-5)
    assert data.train_inputs.std(axis=(0, 2, 3)) == pytest.approx(np.ones(3), abs=1e-5)
    # One scale a colour, that of the training images, for both parts; red first, and rows from the top.
    images = np.concatenate([batches[f"data_batch_{i}.bin"][1] for i in range(1, 6)]).reshape(-1, 3, 32, 32)
    mean, deviation = images.mean(axis=(0, 2, 3)), images.std(axis=(0, 2, 3))
    expected = (batches["test_batch.bin"][1][2, 1024 + 33] - mean[1]) / deviation[1]
    assert data.test_inputs[2, 1, 1, 1] == pytest.approx(expected, rel=1e-4)


@pytest.mark.parametrize("below", [".", "cifar-10-batches-py"])
def test_the_pickled_cifar_10_is_not_opened(tmp_path, below):
    (tmp_path / below).mkdir(exist_ok=True)
    (tmp_path / below / "data_batch_1").write_bytes(b"cos\nsystem\n(S'false'\ntR.")
    files = "data_batch_1.bin, data_batch_2.bin, data_batch_3.bin, data_batch_4.bin, data_batch_5.bin, test_batch.bin"
    assert message(load_data, "cifar-10", folder=tmp_path) == (
        f"{tmp_path}: the folder of cifar-10 must hold {files}, and does not; the binary version is needed, and this "
        "is the one for Python, which is pickled; unpack cifar-10-binary.tar.gz and give its folder"
    )


def test_a_folder_without_cifar_10_is_told_the_files_it_needs(tmp_path):
    write_cifar(tmp_path)
    (tmp_path / "test_batch.bin").unlink()
    assert message(load_data, "cifar-10", folder=tmp_path).endswith(
        "data_batch_5.bin, test_batch.bin, and does not; unpack cifar-10-binary.tar.gz and give its folder"
    )


@pytest.mark.parametrize(
    ("data", "rule"),
    [
        (b"0" * 100, "the file must hold whole records of 3073 bytes, not 100; copy it again"),
        (b"", "the file must hold whole records of 3073 bytes, not 0; copy it again"),
        (b"\x0a" + b"0" * 3072, "labels must be below 10, not 10; copy the file again"),
    ],
)
def test_a_damaged_batch_of_cifar_10_is_named_with_the_rule_it_breaks(tmp_path, data, rule):
    write_cifar(tmp_path)
    path = tmp_path / "data_batch_2.bin"
    path.write_bytes(data)
    assert message(load_data, "cifar-10", folder=tmp_path) == f"{path}: {rule}"


def test_data_that_need_a_folder_say_so_and_others_take_none(tmp_path):
    assert message(load_data, "mnist") == (
        "data mnist must come from a folder of yours, and none was given; give one as data_folder"
    )
    assert message(load_data, "digits", folder="here") == (
        "data digits comes with the package and takes no folder, and was given here"
    )
    assert message(load_data, "digits", seed=-1) == "seed must be a whole number from 0 to 4294967295, not -1"
    assert message(load_data, "imagenet") == f"unknown data 'imagenet'; known: {', '.join(DATA)}"
