"""The products of activations that a network forms between its layers, as Q K^T and softmax(..) V of an attention.

Products of activations, and the weights that a network applies without a layer's module, are seen where torch
computes them, so that it does not matter how the network wrote them: `matmul`, `bmm`, `@`,
`einsum`, `scaled_dot_product_attention`, `nn.MultiheadAttention`. A product is one of activations if neither operand is
a parameter; of two plain matrices or vectors, only if both depend on the samples, for a weight may be computed too.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from .applied import BATCHED, PLAIN, Applied, aten, place_of, sole
from .calls import Call, to_array


class Products(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """While entered, put every product of activations into ``calls``, under the module that forms it.

    ``parameters`` by name, buffers among them, are no activations; those that the network applies by itself come into
    ``calls`` too, as `Applied` says. ``batch``: samples that go through. `enter` and `leave` follow the modules;
    nothing is noted while ``paused``.
    """

    def __init__(self, parameters: Mapping[str, torch.Tensor], batch: int, calls: list[Call]) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.calls, self.batch, self.paused = calls, batch, False
        self.parameters = _storages(parameters.values())
        # Storages that do not depend on the samples; held, so that no other takes their place in memory.
        self.constant = dict(self.parameters)
        self.origins: dict[int, frozenset[str]] = {}  # of those, the parameters that each was computed from
        for name, tensor in parameters.items():
            self.origins.setdefault(place_of(tensor), frozenset([name]))
        self.applied = Applied(parameters, batch)
        self.stack: list[tuple[str, int]] = []  # the modules at work, and the calls before each
        self.formed: list[int] = []  # products that each of them has formed
        self.layers: list[bool] = []  # whether each of them, or one around it, is taken for layers as a whole

    def enter(self, name: str, layer: bool = False) -> None:
        """Note that the module called ``name`` begins; ``layer``: its weights are seen where it ends."""
        self.stack.append((name, len(self.calls)))
        self.formed.append(0)
        self.layers.append(layer or (bool(self.layers) and self.layers[-1]))

    def leave(self) -> None:
        """Note that the last module that began is done."""
        self.stack.pop()
        self.formed.pop()
        self.layers.pop()

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
        kwargs = kwargs or {}
        if func._can_decompose() and torch.is_inference_mode_enabled():  # elsewhere torch has done so already
            with self:
                result = func.decompose(*args, **kwargs)
            if result is not NotImplemented:
                return result
        result = func(*args, **kwargs)
        if self.paused:
            return result
        given = _tensors((args, kwargs))
        made = _storages(_tensors(result))
        if all(place_of(tensor) in self.constant for tensor in given):
            self.constant |= made
            origins = frozenset[str]().union(*(self.origins.get(place_of(tensor), ()) for tensor in given))
            self.origins |= {place: origins for place in made if place not in self.parameters}
        else:
            for place in made.keys() - self.parameters.keys():
                self.constant.pop(place, None)
            self._see(func, args, kwargs)
        return result

    def _see(self, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        """Note what ``func`` multiplies, if it does, at least one operand depending on the samples."""
        kind = func.overloadpacket
        places = BATCHED.get(kind) or PLAIN.get(kind)
        outside = not (self.layers and self.layers[-1])
        owner = self.stack[-1][0] if self.stack else ""
        if places is not None:
            left, right = (args[place] for place in places)
            held = self.constant if kind in PLAIN else self.parameters
            if place_of(left) not in held and place_of(right) not in held:
                self.note(left, right)
            elif outside:
                self._apply(kind, owner, left, right, args[0] if places == (1, 2) else None, kwargs)
        elif outside and kind == aten.convolution:
            constant = place_of(args[1]) in self.constant
            if constant and place_of(args[0]) not in self.constant:
                self._add(self.applied.convolution(owner, args, self.origins.get(place_of(args[1]), frozenset())))
            elif not constant:
                self.applied.computed(owner)
        elif outside:
            self.applied.unknown(owner, func)

    def _apply(
        self,
        kind: Any,
        owner: str,
        left: torch.Tensor,
        right: torch.Tensor,
        added: torch.Tensor | None,
        kwargs: dict[str, Any],
    ) -> None:
        """Note the product of a weight, which one of the two is, with what depends on the samples."""
        first = place_of(left) in self.constant
        weight, inputs = (left, right) if first else (right, left)
        if place_of(weight) not in self.constant or place_of(inputs) in self.constant:
            return
        origins = self.origins.get(place_of(weight), frozenset())
        if kind in BATCHED:
            shared = sole(weight)
            if shared is None:
                self.applied.several(owner, origins)
                return
            weight = shared
        # (out, in) by (..., in): a vector is a row of either.
        weight = weight[None] if weight.ndim == 1 else weight if first else weight.T
        inputs = inputs[None] if inputs.ndim == 1 else inputs.transpose(-1, -2) if first else inputs
        scale = kwargs.get("alpha", 1)
        biased = added is not None and added.ndim == 1 and len(added) == len(weight) and not first
        bias = added if biased and scale == kwargs.get("beta", 1) == 1 else None
        self._add(self.applied.product(owner, weight if scale == 1 else weight * scale, inputs, origins, bias))

    def _add(self, call: Call | None) -> None:
        if call is not None:
            self.calls.append(call)

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
    return {place_of(tensor): tensor.untyped_storage() for tensor in tensors}
