"""Operators that may take more than their shapes say, as they stand beside the layers of a model, for `fuzz_models`."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

import numpy as np

Arrays = dict[str, Any]
ML = "ai.onnx.ml"
PATTERNS = ("a*b", "(a+)+$", "(a|aa)+$", "(.*a){20}", "((a*)*)*b", "(", "[", "a{1,60000}")
BIG = (0, 1, 2, 3, 10, 64, 1000, 5000, 60000, 10**6, 6 * 10**7, 10**9, 10**12, 2**40, -1)


def beside(rng: random.Random) -> tuple[list[Any], Arrays]:
    """Return nodes that read what no sample is needed for, and their constants by name; they need version 22."""
    nodes: list[Any] = []
    arrays: Arrays = {"one": np.float32(rng.choice((0, 1, 2, -1)))}
    for place in range(rng.randrange(1, 3)):
        rng.choice((_text, _text, _grown, _grown, _grown, _said, _repeated))(rng, f"b{place}", nodes, arrays)
    return nodes, arrays


def _text(rng: random.Random, name: str, nodes: list[Any], arrays: Arrays) -> None:
    """Give strings, few of which are long, to an operator or two."""
    from onnx import helper, numpy_helper

    unit = rng.choice(("a", "ab", "a ", " ", "é", "a\0", ""))
    some = [unit * rng.choice((0, 1, 40, 40, 1000, 60000, 300_000)) + rng.choice(("", "b"))]
    some += ["b"] * rng.choice((0, 1, 10, 1000, 5000))
    whole = np.array(some, dtype=object).reshape(rng.choice(((-1,), (1, -1), (-1, 1))))
    source = f"{name}s"
    how = rng.choice(("initializer", "initializer", "tensor", "listed", "repeated"))
    if how == "tensor":
        nodes.append(helper.make_node("Constant", [], [source], value=numpy_helper.from_array(whole)))
    elif how == "listed":
        nodes.append(helper.make_node("Constant", [], [source], value_strings=some))
    else:
        arrays[source] = whole
    if how == "repeated":
        _expand(rng, name, nodes, arrays, "e", source)
        source = f"{name}e"
    for step in range(rng.randrange(1, 3)):
        kind = rng.choice((
            "StringSplit", "StringConcat", "StringNormalizer", "RegexFullMatch", "Gather", "Concat", "Unique",
            "LabelEncoder", "Cast", "Tile", "TfIdfVectorizer",
        ))  # fmt: skip
        out, more = f"{name}t{step}", ""
        rest: Arrays = {}
        inputs = [source]
        if kind == "StringSplit":
            rest, more = {"delimiter": rng.choice(("", " ", "a", "b", "ab"))}, f"{out}n"
        elif kind == "RegexFullMatch":
            rest = {"pattern": rng.choice(PATTERNS)}
        elif kind == "StringNormalizer":
            rest = {"case_change_action": rng.choice(("LOWER", "UPPER", "NONE")), "locale": rng.choice(("C", "xx", ""))}
        elif kind in ("StringConcat", "Concat"):
            inputs, rest = [source, source], {"axis": 0} if kind == "Concat" else {}
        elif kind in ("Gather", "Tile"):
            arrays[f"{out}k"] = np.array([rng.choice((0, 1, 3, 1000))] * rng.choice((1, 1, 2, 1000)), np.int64)
            inputs = [source, f"{out}k"]
        elif kind == "LabelEncoder":
            rest = {"keys_strings": ["b"], "values_strings": [rng.choice(some)], "default_string": rng.choice(some)}
        elif kind == "Cast":
            rest = {"to": rng.choice((1, 7, 8))}
        elif kind == "TfIdfVectorizer":
            rest = _grams(rng) | {"pool_strings": ["b", "a"]}
        made = [out, more] if more else [out]
        nodes.append(
            helper.make_node(kind, inputs, made, name=out, domain=ML if kind == "LabelEncoder" else "", **rest)
        )
        source = out


def _grams(rng: random.Random) -> dict[str, Any]:
    return {
        "mode": "TF", "min_gram_length": rng.choice((1, 2)), "max_gram_length": rng.choice((1, 2, 10**9)),
        "max_skip_count": rng.choice((0, 1, *BIG)), "ngram_counts": [0, rng.choice((0, 1, *BIG))],
        "ngram_indexes": [0, rng.choice((1, *BIG))],
    }  # fmt: skip


def _expand(rng: random.Random, name: str, nodes: list[Any], arrays: Arrays, what: str, source: str = "one") -> str:
    from onnx import helper

    sides = [rng.choice((1, 1, 1, 2, 3, 10, *BIG)) for _ in range(rng.choice((1, 1, 2, 3, 4)))]
    arrays[f"{name}{what}z"] = np.array(sides, np.int64)
    nodes.append(helper.make_node("Expand", [source, f"{name}{what}z"], [f"{name}{what}"], name=f"{name}{what}"))
    return f"{name}{what}"


def _said(rng: random.Random, name: str, nodes: list[Any], arrays: Arrays) -> None:
    """Give an operator attributes or small inputs that say how much there is to do."""
    from onnx import helper

    small = np.ones((1, 1, 4, 4), np.float32)
    arrays[f"{name}p"] = small
    kind = rng.choice(
        ("Split", "TfIdfVectorizer", "RoiAlign", "Col2Im", "HannWindow", "DFT", "Resize", "CenterCropPad")
    )
    inputs = [f"{name}p"]
    rest: Arrays = {}
    if kind == "Split":
        rest = {"num_outputs": rng.choice(BIG)}
    elif kind == "TfIdfVectorizer":
        arrays[f"{name}p"], rest = np.array([0, 1]), _grams(rng) | {"pool_int64s": [0, 1]}
    elif kind == "RoiAlign":
        far = rng.choice((1.0, 8.0, 1e4, 1e9, float("inf"), float("nan")))
        arrays |= {f"{name}r": np.array([[0, 0, far, far]], np.float32), f"{name}i": np.array([0])}
        inputs += [f"{name}r", f"{name}i"]
        rest = {"sampling_ratio": rng.choice((0, 2, *BIG)), "output_height": rng.choice((1, 64, *BIG))}
    elif kind == "Col2Im":
        arrays |= {
            f"{name}p": np.ones((1, 1, 4)),
            f"{name}i": np.array([rng.choice(BIG), 2]),
            f"{name}b": np.array([1, 1]),
        }
        inputs, rest = [f"{name}p", f"{name}i", f"{name}b"], {"pads": [rng.choice((0, 1, 60000)) for _ in range(4)]}
    elif kind == "HannWindow":
        arrays[f"{name}p"] = np.array(rng.choice(BIG))
    else:
        sizes = [1, 1, rng.choice(BIG), rng.choice(BIG)]
        arrays[f"{name}k"] = np.array(rng.choice(BIG)) if kind == "DFT" else np.array(sizes, np.int64)
        inputs += ["", "", f"{name}k"] if kind == "Resize" else [f"{name}k"]
        rest = {"mode": rng.choice(("nearest", "linear", "cubic"))} if kind == "Resize" else {}
    nodes.append(helper.make_node(kind, inputs, [f"{name}o"], name=f"{name}o", **rest))


UNARY: dict[str, dict[str, Any]] = {
    "NonZero": {}, "Erf": {}, "Gelu": {}, "Det": {}, "Unique": {"sorted": 0}, "SplitToSequence": {},
    "LRN": {"size": 5000}, "LpPool": {"kernel_shape": [1, 1]}, "EyeLike": {}, "Trilu": {}, "CumSum": {},
    "Cast": {"to": 8},
    "GlobalMaxPool": {}, "Shape": {}, "Attention": {}, "TopK": {}, "LabelEncoder": {}, "OneHotEncoder": {}, "LSTM": {},
    "GridSample": {}, "GatherND": {}, "ScatterND": {}, "ReverseSequence": {}, "NonMaxSuppression": {},
    "SVMRegressor": {},
    "ConvTranspose": {}, "Softmax": {}, "Einsum": {"equation": "...i,...j->...ij"}, "TreeEnsembleRegressor": {},
}  # fmt: skip


def _grown(rng: random.Random, name: str, nodes: list[Any], arrays: Arrays) -> None:
    """Give an array that a small file makes, of any size, to an operator that goes through it in its own way."""
    from onnx import TensorProto, helper

    grown = _expand(rng, name, nodes, arrays, "a")
    kind = rng.choice(tuple(UNARY))
    whole = f"{name}w"
    inputs, outputs = [grown], [f"{name}o"]
    rest: Arrays = dict(UNARY[kind])
    if kind in ("LabelEncoder", "OneHotEncoder", "GatherND", "ScatterND", "ReverseSequence") or rng.random() < 0.1:
        nodes.append(helper.make_node("Cast", [grown], [whole], to=TensorProto.INT64))
    arrays |= {f"{name}k": np.array([rng.choice((0, 1, 3))]), f"{name}f": np.ones((1, 1, 2, 2), np.float32)}
    arrays |= {f"{name}g": np.ones((1, 4, 1), np.float32)}
    if kind == "Unique":
        outputs += [f"{name}o{i}" for i in range(3)]
    elif kind == "TopK":
        inputs, outputs = [grown, f"{name}k"], [f"{name}o", f"{name}q"]
    elif kind == "CumSum":
        inputs = [grown, f"{name}k"]
    elif kind == "Attention":
        inputs, rest = [grown] * 3, rng.choice(({}, {"q_num_heads": 1, "kv_num_heads": 1}))
    elif kind == "LabelEncoder":
        inputs, rest = [whole], {"keys_int64s": [1], "values_strings": ["v" * rng.choice((1, 40, 60000))]}
    elif kind == "OneHotEncoder":
        inputs, rest = [whole], {"cats_int64s": list(range(rng.choice((1, 10, 1000))))}
    elif kind == "LSTM":
        inputs, rest = [grown, f"{name}g", f"{name}g"], {"hidden_size": 1}
    elif kind in ("GridSample", "ConvTranspose"):
        inputs = [f"{name}f", grown] if kind == "GridSample" else [grown, f"{name}f"]
    elif kind in ("GatherND", "ReverseSequence"):
        inputs = [grown, whole]
    elif kind == "ScatterND":
        inputs = [f"{name}f", whole, grown]
    elif kind == "NonMaxSuppression":
        arrays[f"{name}k"] = np.array([rng.choice(BIG)])
        inputs = [grown, grown, f"{name}k"]
    elif kind == "SVMRegressor":
        rest = {"coefficients": [1.0] * 100, "support_vectors": [1.0] * 100, "n_supports": 100, "rho": [0.0],
                "kernel_params": [1.0, 0.0, 3.0], "kernel_type": "RBF"}  # fmt: skip
    elif kind == "TreeEnsembleRegressor":
        names = ("treeids", "nodeids", "featureids", "truenodeids", "falsenodeids", "missing_value_tracks_true")
        rest = {f"nodes_{each}": [0] for each in names} | {"nodes_modes": ["BRANCH_LEQ"], "nodes_values": [9.0]}
        rest |= {
            "target_treeids": [0],
            "target_nodeids": [0],
            "target_ids": [0],
            "target_weights": [1.0],
            "n_targets": 1,
        }
    elif kind == "Einsum":
        inputs = [grown] * 2
    domain = ML if kind in ("LabelEncoder", "OneHotEncoder", "SVMRegressor", "TreeEnsembleRegressor") else ""
    nodes.append(helper.make_node(kind, inputs, outputs, name=f"{name}o", domain=domain, **rest))
    if kind == "SplitToSequence":
        nodes.append(helper.make_node("ConcatFromSequence", outputs, [f"{name}c"], axis=0))


def _repeated(rng: random.Random, name: str, nodes: list[Any], arrays: Arrays) -> None:
    """Loop over a state of numbers or of strings, keep what every round gives, or put one array in a sequence often."""
    from onnx import TensorProto, helper

    info: Callable[..., Any] = helper.make_tensor_value_info
    if rng.random() < 0.3:
        grown = _expand(rng, name, nodes, arrays, "a")
        nodes.append(helper.make_node("SequenceConstruct", [grown] * rng.choice((1, 10, 1000)), [f"{name}q"]))
        joined: Arrays = {"axis": 0, "new_axis": rng.choice((0, 1))}
        nodes.append(helper.make_node("ConcatFromSequence", [f"{name}q"], [f"{name}o"], name=f"{name}o", **joined))
        return
    text = rng.random() < 0.4
    kind = TensorProto.STRING if text else TensorProto.FLOAT
    arrays |= {
        f"{name}n": np.array(rng.choice((0, 1, 10, 100, 2**40))),
        f"{name}y": np.array(True),
        f"{name}s": np.array(["ab"] * 3, dtype=object) if text else np.ones(3, np.float32),
    }
    act = rng.choice(("StringConcat", "Identity", "") if text else ("Add", "Identity", ""))
    body, out = [], "s"
    if act:
        body.append(helper.make_node(act, ["s"] if act == "Identity" else ["s", "s"], ["t"]))
        out = "t"
    kept = ""
    if rng.random() < 0.5:
        kept = out if rng.random() < 0.5 else _expand(rng, name, nodes, arrays, "a")
    given = [info("i", TensorProto.INT64, []), info("go", TensorProto.BOOL, []), info("s", kind, None)]
    gives = [info("go", TensorProto.BOOL, []), info(out, kind, None)]
    gives += [info(kept, kind if kept == out else TensorProto.FLOAT, None)] if kept else []
    graph = helper.make_graph(body, "round", given, gives)
    outputs = [f"{name}o", f"{name}p"] if kept else [f"{name}o"]
    rounds = rng.choice((f"{name}n", f"{name}n", ""))
    nodes.append(helper.make_node("Loop", [rounds, f"{name}y", f"{name}s"], outputs, name=f"{name}o", body=graph))
