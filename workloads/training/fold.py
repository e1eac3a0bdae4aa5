"""Batch norms folded into the layer before: what an accelerator computes that has no unit for them.

In evaluation a batch norm is y = (x - mean) / sqrt(var + eps) * scale + shift, channel by channel: a row of the layer's
weight times one number, and another bias. It is folded where a linear or convolution layer feeds it and nothing else,
which is found out while samples go through the network, not guessed from the order of its modules.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Set
from contextlib import suppress
from dataclasses import dataclass, field, replace
from types import MemberDescriptorType, ModuleType
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.hooks import RemovableHandle

from ..networks.sparse_convolutional import SparseConv3d
from .calls import KERNELS, Call

ROWS_LAST = (nn.Linear, SparseConv3d)  # of two dimensions, outputs along the last


@dataclass(frozen=True, eq=False)
class Affine:
    """What the batch norm ``norm`` does to each channel, float64 (channels,): times ``scale``, plus ``shift``."""

    norm: str
    scale: np.ndarray
    shift: np.ndarray


@dataclass(eq=False)
class _Made:
    """What one call of the layer ``owner`` gave, the batch norm that took it, and whether anything else did."""

    owner: str
    output: torch.Tensor  # held, so that its memory is not another tensor's
    taken: Affine | None = None
    shared: bool = False


@dataclass(eq=False)
class Folds:
    """Watches which batch norm takes what a layer gives; `found` tells, after the network has run.

    While it runs, the hooks of `watch` are in place and `mode` is entered.
    """

    made: list[_Made] = field(default_factory=list)
    fed: dict[str, list[str]] = field(default_factory=dict)  # by batch norm, the layer behind each call; "" for none
    _taken: list[_Made] = field(default_factory=list)  # what the batch norm at work takes

    def __post_init__(self) -> None:
        self.mode = _Uses(self._used)

    def watch(self, module: nn.Module, is_layer: Callable[[nn.Module], bool]) -> list[RemovableHandle]:
        """Return the handles of the hooks that this puts on layers and batch norms."""
        handles = []
        for name, part in module.named_modules():
            if isinstance(part, (*KERNELS, SparseConv3d)) and is_layer(part):
                handles.append(part.register_forward_hook(self._layer(name)))
            elif isinstance(part, _BatchNorm) and type(part).forward is _BatchNorm.forward:
                handles.append(part.register_forward_pre_hook(self._before(name), with_kwargs=True))
                handles.append(part.register_forward_hook(self._after, always_call=True))
        return handles

    def found(self, outputs: Any) -> dict[str, Affine]:
        """Return the batch norms to fold by the name of the layer; ``outputs`` are those of the network.

        A layer that is called more than once must feed the same one each time.
        """
        self._used(_tensors_in(outputs))
        affine: dict[str, Affine] = {}
        refused = set()
        for made in self.made:
            if made.shared or made.taken is None or affine.setdefault(made.owner, made.taken).norm != made.taken.norm:
                refused.add(made.owner)
        return {owner: each for owner, each in affine.items() if owner not in refused}

    def gone(self, affines: Mapping[str, Affine]) -> set[str]:
        """Return the batch norms that do nothing any more, where those of ``affines`` are folded."""
        return {norm for norm, sources in self.fed.items() if all(source in affines for source in sources)}

    def _layer(self, name: str) -> Callable[..., None]:
        def hook(module: Any, given: Any, output: torch.Tensor) -> None:
            if not output.numel():  # an expert that got no sample
                return
            dims = 2 if isinstance(module, ROWS_LAST) else module.weight.ndim
            by_channel = output.ndim == dims  # else axis 1, which a batch norm goes by, is not that of the rows
            self.made.append(_Made(name, output, shared=not by_channel))

        return hook

    def _before(self, name: str) -> Callable[..., None]:
        def hook(module: nn.Module, given: tuple[Any, ...], keywords: dict[str, Any]) -> None:
            fed: Any = given[0] if given else keywords.get("input")
            assert isinstance(module, _BatchNorm)
            sources = self.fed.setdefault(name, [])
            if not fed.numel():
                return
            for made in self._of(fed):
                layer = made.output
                whole = (layer.shape, layer.stride(), layer.storage_offset()) == (
                    fed.shape, fed.stride(), fed.storage_offset()
                )  # fmt: skip
                affine = affine_of(name, module) if whole else None
                if affine is None or made.taken is not None:
                    made.shared = True
                    continue
                made.taken = affine
                self._taken.append(made)
                sources.append(made.owner)
            if not self._taken:
                sources.append("")

        return hook

    def _after(self, module: nn.Module, given: Any, output: Any) -> None:
        if output is None:  # an exception, which the network may catch
            for made in self._taken:
                made.shared = True
        self._taken = []

    def _used(self, tensors: Iterable[Any]) -> None:
        if not self._taken:
            for tensor in tensors:
                for made in self._of(tensor):
                    made.shared = True

    def _of(self, tensor: Any) -> list[_Made]:
        """Return what layers gave in the memory of ``tensor``."""
        if not isinstance(tensor, torch.Tensor) or tensor.layout != torch.strided:
            return []
        place = tensor.untyped_storage().data_ptr()
        return [made for made in self.made if made.output.untyped_storage().data_ptr() == place]


def affine_of(name: str, norm: _BatchNorm) -> Affine | None:
    """Return what the batch norm does in evaluation; None where it depends on the batch, or is not finite."""
    if norm.training or norm.running_mean is None or norm.running_var is None:
        return None
    mean, var = _exact(norm.running_mean), _exact(norm.running_var)
    with np.errstate(all="ignore"):
        scale = (1.0 if norm.weight is None else _exact(norm.weight)) / np.sqrt(var + norm.eps)
        shift = (0.0 if norm.bias is None else _exact(norm.bias)) - mean * scale
    return Affine(name, scale, shift) if np.isfinite([scale, shift]).all() else None


def folded(call: Call, affines: Mapping[str, Affine]) -> Call:
    """Return the call with the batch norm behind its layer in weight and bias, each rounded once; zeros stay zeros."""
    if call.owner not in affines:
        return call
    affine = affines[call.owner]
    rows = affine.scale.reshape((-1,) + (1,) * (call.weight.ndim - 1))
    bias = affine.shift + (0.0 if call.bias is None else call.bias.astype(np.float64) * affine.scale)
    weight = (call.weight.astype(np.float64) * rows).astype(np.float32) + np.float32(0)  # no negative zeros
    return replace(call, weight=weight, bias=bias.astype(np.float32) + np.float32(0))


def _exact(tensor: torch.Tensor) -> np.ndarray:
    array: np.ndarray = tensor.detach().to("cpu", torch.float64).numpy()
    return array


def _tensors_in(outputs: Any) -> list[torch.Tensor]:
    """Return the tensors in what a network returned: in containers and in objects of classes of somebody's own too."""
    found: list[torch.Tensor] = []
    seen: dict[int, Any] = {}  # held, so that no other object has its id
    left = [outputs]
    while left:
        each = left.pop()
        if id(each) in seen or isinstance(each, nn.Module | type | ModuleType):
            continue
        seen[id(each)] = each
        if isinstance(each, torch.Tensor):
            found.append(each)
            continue
        for inside in (_elements, _attributes):
            with suppress(Exception):  # of somebody's own class, whatever it does not tell
                left += inside(each)
    return found


def _elements(value: Any) -> list[Any]:
    """Return what the container ``value`` holds; [value] where torch knows of none."""
    if isinstance(value, Mapping):
        return list(value.values())
    return list(value) if isinstance(value, list | tuple | Set) else tree_leaves(value)  # those of the user's too


def _attributes(value: Any) -> list[Any]:
    """Return what the attributes of ``value`` are, in slots too."""
    slots = [
        slot
        for kind in type(value).__mro__
        if "__slots__" in vars(kind)
        for slot in vars(kind).values()
        if isinstance(slot, MemberDescriptorType)
    ]
    found = list(getattr(value, "__dict__", {}).values())
    for slot in slots:
        with suppress(AttributeError):  # nothing was put there
            found.append(slot.__get__(value, type(value)))
    return found


class _Uses(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Tells ``used`` the tensors of every operation, before it is done."""

    supports_higher_order_operators = True

    def __init__(self, used: Callable[[Iterable[Any]], None]) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.used = used

    def __torch_dispatch__(self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None) -> Any:
        self.used(tree_leaves((args, kwargs)))
        return func(*args, **(kwargs or {}))
