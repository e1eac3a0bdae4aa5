"""An ONNX model as a plain graph: functions and the branches that are taken put in place, constants known, values run.

Values come from the onnx package's reference evaluator; for operators that it lacks, from onnxruntime where that is
installed. A model is a program: this runs its operators, and nothing else that a file could hold.
Needs the extra `onnx`.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Mapping
from math import prod
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np

from ..errors import InputError
from ..extras import need
from ..files.container import one_line, read_bytes
from .onnx_bounds import Bounds, check_functions
from .onnx_costs import NOT_COMPUTED, check_described, check_strings
from .onnx_operators import own_operators

Values = dict[str, Any]
IF_DEPTH = 16  # of conditions within conditions
DRAWS = ("RandomNormal", "RandomUniform", "RandomNormalLike", "RandomUniformLike", "Bernoulli", "Multinomial")


def read_model(path: Path) -> Any:
    """Return the model in ``path``, its functions inlined and its external data read from the same folder.

    Raises InputError.
    """
    need("onnx", "onnx")
    import onnx
    from onnx.inliner import inline_local_functions

    data = read_bytes(path, "an ONNX model")
    try:
        model = onnx.load_model_from_string(data)
    except Exception as error:  # protobuf's own, by implementation
        raise InputError(f"{path}: the file must be a whole ONNX model, and is not ({one_line(error)})") from None
    if not model.graph.node:
        raise InputError(f"{path}: an ONNX model must have at least one operator, and has none")
    try:
        for tensor in _tensors(model.graph):
            _read_external(tensor, path)
        check_functions(model)
        for part in (model.graph, *model.functions):
            check_described(part)
        model = inline_local_functions(model) if model.functions else model
        check_strings(model)
        _settle(model.graph)
        return model
    except InputError as error:
        told = str(error)
        raise InputError(told if told.startswith(f"{path}: ") else f"{path}: {told}") from None
    except Exception as error:
        raise InputError(f"{path}: the model must be whole, and is not ({one_line(error)}); export it again") from None


def _tensors(graph: Any) -> Iterable[Any]:
    """Return every tensor of the graph and of the graphs in it."""
    yield from graph.initializer
    for node in graph.node:
        for attribute in node.attribute:
            if attribute.HasField("t"):
                yield attribute.t
            for inner in [attribute.g] if attribute.HasField("g") else attribute.graphs:
                yield from _tensors(inner)


def _settle(graph: Any) -> None:
    """Give every operator that draws numbers a seed, so that the same samples give the same trace.

    Take locales away, which change no letter, and would be those of the whole process.
    """
    from onnx.helper import make_attribute

    for index, node in enumerate(graph.node):
        for attribute in [each for each in node.attribute if node.op_type == "StringNormalizer"]:
            if attribute.name == "locale":
                node.attribute.remove(attribute)
        if node.op_type in DRAWS and not any(each.name == "seed" for each in node.attribute):
            node.attribute.append(make_attribute("seed", float(index)))
        for attribute in node.attribute:
            for inner in [attribute.g] if attribute.HasField("g") else attribute.graphs:
                _settle(inner)


def _read_external(tensor: Any, path: Path) -> None:
    """Put into ``tensor`` what it says to lie in another file, one in the folder of ``path``."""
    from onnx.external_data_helper import load_external_data_for_tensor, uses_external_data

    if not uses_external_data(tensor):
        return
    location = next((entry.value for entry in tensor.external_data if entry.key == "location"), "")
    place = PurePosixPath(location)
    folder = path.parent.resolve()
    if (
        not location
        or place.is_absolute()
        or ".." in place.parts
        or not (folder / place).resolve().is_relative_to(folder)
    ):
        raise InputError(
            f"{path}: external data must lie in the folder of the model, and tensor {one_line(tensor.name)} names "
            f"{one_line(location)!r}; put it there"
        )
    if not (folder / place).is_file():
        raise InputError(
            f"{path}: external data must be there, and {one_line(location)!r} is not; put it beside the model"
        )
    load_external_data_for_tensor(tensor, str(folder))
    tensor.data_location = tensor.DEFAULT
    del tensor.external_data[:]


def input_names(model: Any) -> list[str]:
    """Return the names of the inputs that must be given, in order: those without a value of their own."""
    own = {tensor.name for tensor in model.graph.initializer}
    return [each.name for each in model.graph.input if each.name not in own]


def feeds_of(model: Any, samples: Mapping[str, np.ndarray], one: str) -> Values:
    """Return ``samples`` by the model's inputs, each in its number type; a sample called ``one`` is for the only input.

    Raises InputError for missing, unknown or unfit samples.
    """
    import onnx

    names = input_names(model)
    if set(samples) == {one} and len(names) == 1:
        samples = {names[0]: samples[one]}
    if set(samples) != set(names):
        wanted = ", ".join(_described(each) for each in model.graph.input if each.name in names)
        met = ", ".join(name or "one without a name" for name in samples)
        raise InputError(f"samples must be given for the inputs {wanted:.400}, and are for {met:.200}")
    feeds = {}
    for each in model.graph.input:
        if each.name not in samples:
            continue
        kind = each.type.tensor_type
        array = samples[each.name]
        try:
            dtype = onnx.helper.tensor_dtype_to_np_dtype(kind.elem_type) if kind.elem_type else array.dtype
        except KeyError:
            raise InputError(f"input {_described(each)} must be of a type of ONNX's, not {kind.elem_type}") from None
        sides = [side.dim_value for side in kind.shape.dim]
        fits = len(sides) == array.ndim and all(
            side <= 0 or side == have for side, have in zip(sides, array.shape, strict=False)
        )
        if kind.HasField("shape") and not fits:
            raise InputError(f"samples of {_described(each)} must have its shape, not {array.shape}")
        if dtype.kind in "iub" and array.dtype.kind == "f":
            raise InputError(f"samples of {_described(each)} must be {dtype}, not {array.dtype}")
        feeds[each.name] = array.astype(dtype)
    return feeds


def _described(each: Any) -> str:
    sides = [
        str(side.dim_value) if side.dim_value > 0 else side.dim_param or "?" for side in each.type.tensor_type.shape.dim
    ]
    return f"{one_line(each.name)} ({', '.join(sides)})"


def constants(model: Any) -> Values:
    """Return every array of the graph that does not depend on its inputs, by name."""
    from onnx import helper, numpy_helper

    known = {tensor.name for tensor in model.graph.initializer}
    given = set(input_names(model))
    nodes = []
    for node in model.graph.node:
        reads = [*filter(None, node.input), *_outer(node)]
        unsettled = node.op_type in DRAWS or node.op_type in NOT_COMPUTED
        if unsettled or any(name not in known for name in reads) or given & set(node.output):
            continue
        nodes.append(node)
        known |= set(filter(None, node.output))
    found = {}
    try:
        for tensor in model.graph.initializer:
            found[tensor.name] = numpy_helper.to_array(tensor)
    except Exception as error:
        raise InputError(f"initializer {one_line(tensor.name)} must be whole, and is not ({one_line(error)})") from None
    if nodes:
        graph = helper.make_graph(nodes, "constants", [], [], list(model.graph.initializer))
        graph.output.extend(
            helper.make_empty_tensor_value_info(name) for node in nodes[-1:] for name in node.output[:1]
        )
        part = helper.make_model(graph, opset_imports=list(model.opset_import), ir_version=model.ir_version)
        found |= {name: value for name, value in values(part, {}).items() if name in known}
    return {name: value for name, value in found.items() if isinstance(value, np.ndarray | np.generic)}


def _outer(node: Any) -> Iterable[str]:
    """Return the names that graphs inside ``node`` read from outside of it."""
    for attribute in node.attribute:
        for graph in [attribute.g] if attribute.HasField("g") else attribute.graphs:
            inside = {tensor.name for tensor in graph.initializer} | {each.name for each in graph.input}
            inside |= {name for inner in graph.node for name in inner.output}
            read = {name for inner in graph.node for name in [*inner.input, *_outer(inner)]}
            yield from {name for name in (read | {each.name for each in graph.output}) - inside if name}


def values(model: Any, feeds: Values) -> Values:
    """Return every array that the graph computes from ``feeds``, by name. Raises InputError where it does not run."""
    numbers = sum(prod(tensor.dims) for tensor in _tensors(model.graph)) + sum(map(np.size, feeds.values()))
    characters = check_strings(model) + sum(each.itemsize * each.size // 4 for each in feeds.values() if _is_text(each))
    try:
        with warnings.catch_warnings(), np.errstate(all="ignore"):
            warnings.simplefilter("ignore")
            evaluator = Bounds(numbers, characters).evaluator(model, own_operators(model))
            found: Any = evaluator.run(None, feeds, intermediate=True)
            return {name: value for name, value in found.items() if name}  # "" is what a node leaves out
    except (InputError, MemoryError):
        raise
    except Exception as error:  # of an operator, whatever it met
        first = error
    try:
        return _by_runtime(model, feeds)
    except ImportError:
        raise InputError(
            f"the model must run on these samples in onnx's reference evaluator, and does not ({one_line(first)}); "
            "pip install onnxruntime, which runs more models"
        ) from None
    except Exception as error:
        raise InputError(f"the model must run on these samples, and does not ({one_line(error)})") from None


def _is_text(value: Any) -> bool:
    return isinstance(value, np.ndarray | np.generic) and value.dtype.kind in "SU"


def _by_runtime(model: Any, feeds: Values) -> Values:
    import onnx
    import onnxruntime  # type: ignore[import-not-found,unused-ignore]

    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    have = {each.name for each in copy.graph.output}
    names = [name for node in copy.graph.node for name in node.output if name]
    copy.graph.output.extend(onnx.ValueInfoProto(name=name) for name in names if name not in have)
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL  # every value is wanted
    options.log_severity_level = 3
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(copy.SerializeToString(), options, providers=["CPUExecutionProvider"])
    wanted = [each.name for each in session.get_outputs()]
    return feeds | dict(zip(wanted, session.run(wanted, feeds), strict=True))


def take_branches(model: Any, feeds: Values) -> Any:
    """Return a model that computes the same of ``feeds`` without conditions: the branch that each takes is in place."""
    import onnx

    for _ in range(IF_DEPTH):
        if not any(node.op_type == "If" for node in model.graph.node):
            return model
        known = values(model, feeds)
        copy = onnx.ModelProto()
        copy.CopyFrom(model)
        del copy.graph.node[:]
        for index, node in enumerate(model.graph.node):
            if node.op_type != "If":
                copy.graph.node.append(node)
                continue
            side = "then_branch" if bool(np.asarray(known[node.input[0]]).reshape(-1)[0]) else "else_branch"
            branch = next(attribute.g for attribute in node.attribute if attribute.name == side)
            _inline(copy.graph, branch, list(node.output), f"{node.name or f'If_{index}'}/")
        model = copy
    raise InputError(f"conditions must be nested at most {IF_DEPTH} deep, and go on")


def _inline(graph: Any, branch: Any, outputs: list[str], prefix: str) -> None:
    """Put the nodes of ``branch`` behind those of ``graph``, what it returns under the names ``outputs``."""
    import onnx

    taken = {tensor.name for tensor in graph.initializer}
    taken |= {name for node in graph.node for name in node.output} | {each.name for each in graph.input}
    inner = {tensor.name for tensor in branch.initializer} | {name for node in branch.node for name in node.output}
    # A name that is free stays: layers are known by it.
    renamed = {name: prefix + name if name in taken or name in outputs else name for name in inner if name}
    for tensor in branch.initializer:
        own = onnx.TensorProto()
        own.CopyFrom(tensor)
        own.name = renamed[tensor.name]
        graph.initializer.append(own)
    for node in branch.node:
        own = onnx.NodeProto()
        own.CopyFrom(node)
        _rename(own, renamed)
        graph.node.append(own)
    for name, output in zip(outputs, branch.output, strict=True):
        if name:
            graph.node.append(onnx.helper.make_node("Identity", [renamed.get(output.name, output.name)], [name]))


def _rename(node: Any, renamed: Mapping[str, str]) -> None:
    for names in (node.input, node.output):
        for i, name in enumerate(names):
            names[i] = renamed.get(name, name)
    for attribute in node.attribute:
        for graph in [attribute.g] if attribute.HasField("g") else attribute.graphs:
            own = {tensor.name for tensor in graph.initializer} | {each.name for each in graph.input}
            own |= {name for inner in graph.node for name in inner.output}
            outer = {name: new for name, new in renamed.items() if name not in own}
            for inner in graph.node:
                _rename(inner, outer)
            for output in graph.output:
                output.name = outer.get(output.name, output.name)
