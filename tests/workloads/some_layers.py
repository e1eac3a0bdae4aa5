"""A small layer of each kind, which a test changes where it likes."""

import numpy as np

from gossamer.workloads.trace import Layer

WEIGHT = np.array([[1, 0, 2], [0, 0, 3]], np.float32)
INPUTS = np.array([[1, 0, 2]], np.float32)
CODES = np.array([[1, 0, 2], [0, 0, 1]], np.uint8)
BOOK = np.array([0, -1.5, 2], np.float32)
KERNEL = np.ones((4, 2, 3, 3), np.float32)
IMAGE = np.ones((1, 2, 8, 8), np.float32)


def linear(**changes):
    return Layer(**{"name": "fc1", "op": "linear", "weight": WEIGHT, "inputs": INPUTS} | changes)


def coded(**changes):
    return Layer(**{"name": "fc1", "op": "linear", "codes": CODES, "codebook": BOOK, "inputs": INPUTS} | changes)


def conv(**changes):
    attributes = changes.pop("attributes", {})
    given = {"name": "conv", "op": "conv2d", "weight": KERNEL, "inputs": IMAGE, "attributes": attributes}
    return Layer(**given | changes)


POINTS = np.array([[0, 0, 0], [0, 0, 1], [4, -2, 0]], np.int32)
OPERAND = np.ones((4, 5, 2), np.float32)


def sparse_conv(**changes):
    attributes = {"kernel_size": 3} | changes.pop("attributes", {})
    given = {"name": "sc", "op": "sparse_conv3d", "weight": np.ones((4, 2, 27), np.float32), "coordinates": POINTS}
    return Layer(**given | {"attributes": attributes} | changes)


def matmul(**changes):
    given = {"name": "qk", "op": "matmul", "weight": OPERAND, "inputs": np.ones((4, 3, 2), np.float32)}
    return Layer(**given | {"attributes": {"samples": 2}} | changes)


def point_op(**changes):
    attributes = {"kind": "knn", "k": 2} | changes.pop("attributes", {})
    given = {"name": "near", "op": "point_op", "inputs": np.ones((3, 2), np.float32), "attributes": attributes}
    return Layer(**given | changes)


def with_value(array, place, value):
    array = array.copy()
    array[place] = value
    return array
