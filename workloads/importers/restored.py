"""A module put back as it was, whatever its own forward, torch or an interrupt did to it meanwhile."""

from __future__ import annotations

from collections import Counter, OrderedDict, defaultdict, deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn
from torch.nn.parameter import is_lazy
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from ..training.applied import storage_of

# None of somebody's own, which may do anything.
CONTAINERS: tuple[type, ...] = (dict, OrderedDict, defaultdict, Counter, list, set, deque)


@contextmanager
def as_it_was(module: nn.Module) -> Iterator[None]:
    """Put back at the end what ``module`` and its parts have: their class, and every attribute of theirs.

    Parameters, buffers, parts, hooks and flags are attributes, or in a container that is one. They are the same objects
    as before, with the numbers that they had: what an operation inside is about to overwrite is copied first.
    """
    parts = [part for part in module.modules() if not isinstance(part, torch.jit.ScriptModule)]
    restore = [_attributes(part) for part in parts]
    tensors = {id(tensor): tensor for part in parts for tensor in tensors_of(part)}
    numbers = [_numbers(each) for each in tensors.values() if _is_plain(each)]
    overwritten = _Overwritten(list(tensors.values()))
    try:
        with overwritten:
            yield
    finally:
        for put_back in restore:
            put_back()
        with torch.no_grad():
            for put_back in numbers:
                put_back()
            overwritten.put_back()


def _attributes(part: nn.Module) -> Callable[[], None]:
    """Return what puts back the class and the attributes of ``part``; containers stay, for the handles of hooks."""
    kind, own = type(part), dict(vars(part))
    held = [(each, each.copy()) for each in _containers(part) if not isinstance(each, tuple)]

    def put_back() -> None:
        if type(part) is not kind:
            object.__setattr__(part, "__class__", kind)
        vars(part).clear()
        vars(part).update(own)
        for container, before in held:
            container.clear()
            container.extend(before) if isinstance(container, list | deque) else container.update(before)

    return put_back


def tensors_of(part: nn.Module) -> Iterator[torch.Tensor]:
    """Yield the tensors among the attributes of ``part``, and in containers that are one or in one."""
    for container in [vars(part), *_containers(part)]:
        for each in container.values() if isinstance(container, dict) else container:
            if isinstance(each, torch.Tensor) and not is_lazy(each):
                yield each


def _containers(part: nn.Module) -> list[Any]:
    """Return the containers that attributes of ``part`` are, tuples among them, and those inside of them."""
    found: dict[int, Any] = {}
    left: list[Any] = [vars(part)]
    while left:
        container = left.pop()
        for each in container.values() if isinstance(container, dict) else container:
            if (type(each) in CONTAINERS or isinstance(each, tuple)) and id(each) not in found:
                found[id(each)] = each
                left.append(each)
    return list(found.values())


def _is_plain(tensor: torch.Tensor) -> bool:
    known = type(tensor) in (torch.Tensor, nn.Parameter)
    return known and tensor.layout == torch.strided and not tensor.is_nested


def _numbers(tensor: torch.Tensor) -> Callable[[], None]:
    """Return what gives ``tensor`` its array back, where somebody set its ``data``, and its flag and gradient."""
    data, needed, gradient = tensor.detach(), tensor.requires_grad, tensor.grad if tensor.is_leaf else None

    def put_back() -> None:
        same = tensor.dtype == data.dtype and tensor.data_ptr() == data.data_ptr()
        if not same or (tensor.shape, tensor.stride()) != (data.shape, data.stride()):
            tensor.data = data
        if tensor.is_leaf:
            if tensor.requires_grad is not needed:
                tensor.requires_grad = needed
            if tensor.grad is not gradient:
                tensor.grad = gradient

    return put_back


class _Overwritten(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """While entered, copies each array of ``tensors`` before an operation writes to it; `put_back` restores them."""

    supports_higher_order_operators = True

    def __init__(self, tensors: list[torch.Tensor]) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        found = [storage for tensor in tensors if (storage := storage_of(tensor)) is not None]
        self.arrays = {storage.data_ptr(): storage for storage in found}
        self.copies: dict[int, torch.UntypedStorage] = {}

    def put_back(self) -> None:
        """Put the numbers back into the arrays that were written to."""
        for place, copied in self.copies.items():
            array = self.arrays[place]
            if array.nbytes() != copied.nbytes():
                array.resize_(copied.nbytes())
            array.copy_(copied)

    def __torch_dispatch__(self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None) -> Any:
        """Return what ``func`` returns."""
        kwargs = kwargs or {}
        schema = getattr(func, "_schema", None)
        norm = schema is not None and "batch_norm" in schema.name  # these write without telling
        if schema is not None and (norm or schema.is_mutable):
            for number, argument in enumerate(schema.arguments):
                told = argument.alias_info is not None and argument.alias_info.is_write
                if told or (norm and argument.name.startswith("running_")):
                    given = args[number] if number < len(args) else kwargs.get(argument.name)
                    self._keep(tree_leaves(given))
        return func(*args, **kwargs)

    def _keep(self, tensors: list[Any]) -> None:
        for tensor in tensors:
            storage = storage_of(tensor) if isinstance(tensor, torch.Tensor) else None
            place = -1 if storage is None else storage.data_ptr()
            if place in self.arrays and place not in self.copies:
                self.copies[place] = self.arrays[place].clone()  # type: ignore[no-untyped-call]
