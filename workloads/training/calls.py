"""One call of a module, taken apart into the matrices and kernels that it applies, each with what it was fed."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, cast

import numpy as np
import torch
from torch import nn

from ..networks.sparse_convolutional import SparseConv3d
from ..networks.voxels import Voxels

KERNELS = (nn.Linear, nn.Conv2d, nn.Conv1d)
RECURRENT = (nn.LSTM, nn.GRU, nn.RNN)
CELLS = (nn.LSTMCell, nn.GRUCell, nn.RNNCell)


@dataclass(frozen=True, eq=False, kw_only=True)
class Call:
    """A matrix or kernel, and the inputs of one use: what becomes a layer of a trace.

    ``owner``: the module's name. ``parameter``: the name of the weight, of which ``rows`` are these, "" for one made of
    no parameter. ``alone``: the network applies it without its layer's module. ``part``: the weight is cut out of its
    parameter, turned or computed; ``kept``: which of its places a mask of the parameter left, where one did.
    ``flat``: a one-dimensional convolution, given a height of 1. ``points``: of a sparse convolution, the layer's
    coordinates; such a call is a layer by itself.
    """

    owner: str
    layer: str
    op: str
    parameter: str
    weight: np.ndarray
    bias: np.ndarray | None
    inputs: np.ndarray
    rows: slice = field(default_factory=lambda: slice(None))
    flat: bool = False
    alone: bool = False
    part: bool = False
    kept: np.ndarray | None = None
    attributes: dict[str, Any] = field(default_factory=dict)
    points: dict[str, np.ndarray] = field(default_factory=dict)


class NotSimulatedError(Exception):
    """Why a call of a module is no layer, though others of its kind are."""


def calls_of(name: str, module: nn.Module, arguments: tuple[Any, ...], keywords: dict[str, Any]) -> list[Call]:
    """Return what the call of ``module``, one of the kinds above or attention, with these arguments comes to.

    Raises NotSimulatedError with the reason where it is no layer of any machine.
    """
    if any(parameter.is_complex() for parameter in module.parameters()):
        raise NotSimulatedError(f"{type(module).__name__} of complex numbers")
    if any(0 in parameter.shape for parameter in module.parameters()):
        raise NotSimulatedError(f"{type(module).__name__} without weights")
    given = [each for each in (*arguments, *keywords.values()) if isinstance(each, torch.Tensor)]
    if any(torch._C._functorch.is_batchedtensor(each) for each in given):
        raise NotSimulatedError(f"{type(module).__name__} inside of vmap")
    if isinstance(module, nn.MultiheadAttention):
        return list(_attention(name, module, arguments, keywords))
    if isinstance(module, RECURRENT):
        return list(_recurrent(name, module, *arguments, **keywords))
    if isinstance(module, CELLS):
        return list(_cell(name, module, *arguments, **keywords))
    if isinstance(module, SparseConv3d):
        return [_sparse_convolution(name, module, *arguments, **keywords)]
    inputs = arguments[0] if arguments else next(iter(keywords.values()))
    assert isinstance(module, KERNELS)
    if isinstance(module, nn.Linear):
        inputs = inputs[None] if inputs.ndim == 1 else inputs
        return [_linear(name, name, "weight", module.weight, module.bias, inputs)]
    return [_convolution(name, module, inputs)]


def to_array(tensor: torch.Tensor) -> np.ndarray:
    """Return a float32 copy of ``tensor`` without negative zeros: the network may go on to overwrite it."""
    array: np.ndarray = tensor.detach().to("cpu", torch.float32).numpy() + np.float32(0)
    return array


def _linear(
    owner: str,
    layer: str,
    parameter: str,
    weight: torch.Tensor,
    bias: torch.Tensor | None,
    inputs: torch.Tensor,
    rows: slice = slice(None),
) -> Call:
    return Call(
        owner=owner,
        layer=layer.removeprefix(".") or "linear",
        op="linear",
        parameter=f"{owner}.{parameter}".removeprefix("."),
        weight=to_array(weight[rows]),
        bias=None if bias is None else to_array(bias[rows]),
        inputs=to_array(inputs),
        rows=rows,
    )


def _convolution(name: str, module: nn.Conv1d | nn.Conv2d, inputs: torch.Tensor) -> Call:
    """Return a convolution whose padding is alike on both sides and of zeros: any other is put into its inputs."""
    sides = module.weight.ndim - 2
    inputs = inputs[None] if inputs.ndim == sides + 1 else inputs
    spread = [d * (k - 1) for d, k in zip(module.dilation, module.kernel_size, strict=True)]
    if module.padding == "same":
        before, after = [each // 2 for each in spread], [each - each // 2 for each in spread]
    else:
        before = [0] * sides if module.padding == "valid" else [int(each) for each in module.padding]
        after = before
    if module.padding_mode == "zeros":
        extra = [b - a for a, b in zip(before, after, strict=True)]
        inputs = nn.functional.pad(inputs, _pad([0] * sides, extra))
    else:
        inputs = nn.functional.pad(inputs, _pad(before, after), mode=module.padding_mode)
        before = [0] * sides
    flat = sides == 1
    attributes = {"stride": list(module.stride), "padding": before, "dilation": list(module.dilation)}
    if flat:
        attributes = {key: [int(key != "padding"), *each] for key, each in attributes.items()}
    return Call(
        owner=name,
        layer=name or "conv",
        op="conv2d",
        parameter=f"{name}.weight".removeprefix("."),
        weight=to_array(module.weight[:, :, None] if flat else module.weight),
        bias=None if module.bias is None else to_array(module.bias),
        inputs=to_array(inputs[:, :, None] if flat else inputs),
        flat=flat,
        attributes={key: tuple(each) for key, each in attributes.items()} | {"groups": module.groups},
    )


def _sparse_convolution(name: str, module: SparseConv3d, features: torch.Tensor, voxels: Voxels) -> Call:
    """Return a convolution of clouds, all of a batch in the same space."""
    points = {"coordinates": voxels.coordinates}
    if module.stride > 1:
        points["output_coordinates"] = voxels.coarser(module.stride).coordinates
    return Call(
        owner=name,
        layer=name or "conv",
        op="sparse_conv3d",
        parameter=f"{name}.weight".removeprefix("."),
        weight=to_array(module.weight),
        bias=None if module.bias is None else to_array(module.bias),
        inputs=to_array(features),
        attributes={
            "kernel_size": module.kernel_size,
            "stride": module.stride,
            "tensor_stride": voxels.tensor_stride,
        },
        points=points,
    )


def _pad(before: list[int], after: list[int]) -> list[int]:
    """Return the padding as torch takes it: the last side first."""
    return [each for pair in reversed(list(zip(before, after, strict=True))) for each in pair]


def _attention(
    name: str, module: nn.MultiheadAttention, arguments: tuple[Any, ...], keywords: dict[str, Any]
) -> Iterator[Call]:
    given = dict(zip(("query", "key", "value"), arguments, strict=False)) | keywords
    width, bias = module.embed_dim, module.in_proj_bias
    packed = cast("torch.Tensor | None", module.in_proj_weight)
    for i, (part, source) in enumerate((("q", "query"), ("k", "key"), ("v", "value"))):
        rows = slice(i * width, (i + 1) * width)
        inputs = _batch_first(given[source], module.batch_first)
        if packed is None:  # keys or values of another width: a matrix each, and one bias
            own, parameter = None if bias is None else bias[rows], f"{part}_proj_weight"
            yield _linear(name, f"{name}.{part}_proj", parameter, getattr(module, parameter), own, inputs)
        else:
            yield _linear(name, f"{name}.{part}_proj", "in_proj_weight", packed, bias, inputs, rows)
    # With the identity in place of its last matrix the module returns what that matrix is fed, masks and all.
    last = module.out_proj
    identity = {"out_proj.weight": torch.eye(width, dtype=last.weight.dtype, device=last.weight.device)}
    if last.bias is not None:
        identity["out_proj.bias"] = torch.zeros_like(last.bias)
    heads, _ = torch.func.functional_call(module, identity, arguments, keywords)
    yield _linear(
        name, f"{name}.out_proj", "out_proj.weight", last.weight, last.bias, _batch_first(heads, module.batch_first)
    )


def _batch_first(inputs: torch.Tensor, already: bool) -> torch.Tensor:
    if inputs.ndim == 2:
        return inputs[None]
    return inputs if already else inputs.transpose(0, 1)


def _recurrent(name: str, module: nn.LSTM | nn.GRU | nn.RNN, input: Any, hx: Any = None) -> Iterator[Call]:
    """Return the two matrices of every layer and direction, the inputs of all steps in the order of the steps."""
    kind = type(module).__name__
    if not isinstance(input, torch.Tensor):
        raise NotSimulatedError(f"{kind} of a packed sequence; give padded samples of one length")
    if getattr(module, "proj_size", 0):
        raise NotSimulatedError(f"{kind} with a proj_size; use a Linear")
    steps = _batch_first(input, module.batch_first)
    directions = ("", "_reverse") if module.bidirectional else ("",)
    for depth in range(module.num_layers):
        outputs = []
        for way, suffix in enumerate(directions):
            index = depth * len(directions) + way
            fed = steps.flip(1) if suffix else steps
            start = [_state(each, index) for each in (hx if isinstance(hx, tuple) else (hx,))]
            after, first = _run(module, f"l{depth}{suffix}", fed, start)
            before = torch.cat([first, after[:, :-1]], dim=1)
            for kind, inputs in (("ih", fed), ("hh", before)):
                key = f"{kind}_l{depth}{suffix}"
                bias = getattr(module, f"bias_{key}") if module.bias else None
                yield _linear(name, f"{name}.{key}", f"weight_{key}", getattr(module, f"weight_{key}"), bias, inputs)
            outputs.append(after.flip(1) if suffix else after)
        steps = torch.cat(outputs, dim=2)


def _state(state: torch.Tensor | None, index: int) -> torch.Tensor | None:
    """Return the first state of one layer and direction, (1, batch, size), where one was given."""
    if state is None:
        return None
    return state[index, None, None] if state.ndim == 2 else state[index, None]


def _run(
    module: nn.LSTM | nn.GRU | nn.RNN, suffix: str, steps: torch.Tensor, start: list[torch.Tensor | None]
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return h after every step of one layer and direction, (batch, steps, size), and h before the first step."""
    options = {"nonlinearity": module.nonlinearity} if isinstance(module, nn.RNN) else {}
    with torch.random.fork_rng(devices=[]):  # the first weights of the copy are drawn, and overwritten
        alone = type(module)(steps.shape[2], module.hidden_size, bias=module.bias, batch_first=True, **options)
    alone = alone.to(steps.device, steps.dtype).eval()
    weights = {key: getattr(module, key.replace("l0", suffix)) for key, _ in alone.named_parameters()}
    alone.load_state_dict(weights)
    if start[0] is None:
        return alone(steps)[0], steps.new_zeros(len(steps), 1, module.hidden_size)
    state = tuple(start) if isinstance(module, nn.LSTM) else start[0]
    return alone(steps, state)[0], start[0].transpose(0, 1)


def _cell(
    name: str,
    module: nn.LSTMCell | nn.GRUCell | nn.RNNCell,
    input: torch.Tensor,
    hx: Any = None,
) -> Iterator[Call]:
    inputs = input if input.ndim == 2 else input[None]
    before = hx[0] if isinstance(hx, tuple) else hx
    if before is None:
        before = inputs.new_zeros(len(inputs), module.hidden_size)
    before = before if before.ndim == 2 else before[None]
    for kind, fed in (("ih", inputs), ("hh", before)):
        bias = getattr(module, f"bias_{kind}") if module.bias else None
        yield _linear(name, f"{name}.{kind}", f"weight_{kind}", getattr(module, f"weight_{kind}"), bias, fed)
