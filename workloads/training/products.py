"""The products of activations that a network forms between its layers, as Q K^T and softmax(..) V of an attention.

They are seen where torch computes them, so that it does not matter how the network wrote them: `matmul`, `bmm`, `@`,
`einsum`, `scaled_dot_product_attention`, `nn.MultiheadAttention`. A product is one of activations if neither operand is
a parameter; of two plain matrices or vectors, only if both depend on the samples, for a weight may be computed too.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from .calls import Call, to_array

aten = torch.ops.aten
# By operation: which two arguments are multiplied.
BATCHED = {aten.bmm: (0, 1), aten.baddbmm: (1, 2)}
PLAIN = {aten.mm: (0, 1), aten.addmm: (1, 2), aten.mv: (0, 1), aten.addmv: (1, 2), aten.dot: (0, 1)}


class Products(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """While entered, put every product of activations into ``calls``, under the module that forms it.

    ``parameters``: what is no activation. ``batch``: samples that go through. `enter` and `leave` follow the modules;
    nothing is noted while ``paused``.
    """

    def __init__(self, parameters: Iterable[torch.Tensor], batch: int, calls: list[Call]) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.calls, self.batch, self.paused = calls, batch, False
        self.parameters = _storages(parameters)
        # Storages that do not depend on the samples; held, so that no other takes their place in memory.
        self.constant = dict(self.parameters)
        self.stack: list[tuple[str, int]] = []  # the modules at work, and the calls before each
        self.formed: list[int] = []  # products that each of them has formed

    def enter(self, name: str) -> None:
        """Note that the module called ``name`` begins."""
        self.stack.append((name, len(self.calls)))
        self.formed.append(0)

    def leave(self) -> None:
        """Note that the last module that began is done."""
        self.stack.pop()
        self.formed.pop()

    def take(self, batch: int) -> list[Call]:
        """Return the products of the module at work, of ``batch`` samples, and take them out of ``calls``."""
        _, first = self.stack[-1]
        own = [_of_samples(call, batch) for call in self.calls[first:]]
        del self.calls[first:]
        return own

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        """Return what ``func`` returns."""
        result = func(*args, **(kwargs or {}))
        if self.paused:
            return result
        given = _tensors((args, kwargs))
        made = _storages(_tensors(result))
        if all(_place(tensor) in self.constant for tensor in given):
            self.constant |= made
        else:
            for place in made.keys() - self.parameters.keys():
                self.constant.pop(place, None)
        kind = func.overloadpacket
        places = BATCHED.get(kind) or PLAIN.get(kind)
        if places is not None:
            left, right = (args[place] for place in places)
            held = self.constant if kind in PLAIN else self.parameters
            if _place(left) not in held and _place(right) not in held:
                self.note(left, right)
        return result

    def note(self, left: torch.Tensor, right: torch.Tensor) -> None:
        """Keep the product of the two, vectors, matrices or batches of these."""
        if left.ndim == right.ndim == 1:
            inputs, weight = left[None, None], right[None, None]
        elif right.ndim == 1:
            inputs, weight = right[None, None], left[None]
        else:
            inputs, weight = left.reshape(-1, *left.shape[-2:]), right.reshape(-1, *right.shape[-2:]).transpose(1, 2)
        name, _ = self.stack[-1] if self.stack else ("", 0)
        if self.formed:
            self.formed[-1] += 1
        call = Call(
            owner=name,
            layer=f"{name}.matmul{self.formed[-1] if self.formed else 1}".removeprefix("."),
            op="matmul",
            parameter="",
            weight=to_array(weight),
            bias=None,
            inputs=to_array(inputs),
        )
        self.calls.append(_of_samples(call, self.batch))


def _of_samples(call: Call, batch: int) -> Call:
    """Return the call of ``batch`` samples, or of one where its products do not divide among so many."""
    return replace(call, attributes={"samples": batch if batch and len(call.inputs) % batch == 0 else 1})


def _tensors(tree: Any) -> list[torch.Tensor]:
    return [leaf for leaf in tree_leaves(tree) if isinstance(leaf, torch.Tensor)]


def _storages(tensors: Iterable[torch.Tensor]) -> dict[int, torch.UntypedStorage]:
    return {_place(tensor): tensor.untyped_storage() for tensor in tensors}


def _place(tensor: torch.Tensor) -> int:
    return tensor.untyped_storage().data_ptr()
