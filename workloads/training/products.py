"""The products of activations that a network forms between its layers, as Q K^T and softmax(..) V of an attention.

Products of activations, and the weights that a network applies without a layer's module, are seen where torch
computes them, so that it does not matter how the network wrote them: `matmul`, `bmm`, `@`,
`einsum`, `scaled_dot_product_attention`, `nn.MultiheadAttention`. A product is one of activations if neither operand is
a parameter; of two plain matrices or vectors, only if both depend on the samples, for a weight may be computed too. So
may one of a batch, where all of it share the matrix and it is no product itself, as learned queries are.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any

import torch
from torch._ops import HigherOrderOperator
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from ..pruning import Masks
from .applied import BATCHED, PLAIN, Applied, aten, place_of, sole, storage_of, unfit
from .calls import Call, to_array


class Products(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """While entered, put every product of activations into ``calls``, under the module that forms it.

    ``parameters`` by name, buffers among them and times their ``masks``, are no activations; those that the network
    applies by itself come into ``calls`` too, as `Applied` says. Those called ``buffers`` are activations once
    something that depends on the samples is written to them, as to a cache of keys and values. ``batch``: samples that
    go through. `enter` and `leave` follow the modules; nothing is noted while ``paused``.
    """

    supports_higher_order_operators = True

    def __init__(
        self,
        parameters: Mapping[str, torch.Tensor],
        batch: int,
        calls: list[Call],
        masks: Masks | None = None,
        buffers: Iterable[str] = (),
    ) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.calls, self.batch, self.paused = calls, batch, False
        self.parameters = _storages(parameters.values())
        # Storages that do not depend on the samples; held, so that no other takes their place in memory.
        self.constant = dict(self.parameters)
        self.origins: dict[int, frozenset[str]] = {}  # of those, the parameters that each was computed from
        for name, tensor in parameters.items():
            place = place_of(tensor)
            self.origins[place] = self.origins.get(place, frozenset()) | {name}
        self.held = {id(tensor) for tensor in parameters.values()}
        names = set(buffers)
        weights = {place_of(tensor) for name, tensor in parameters.items() if name not in names}
        self.buffers: dict[int, set[int]] = {}  # by the place of buffers that are no parameter, who they are
        for name in names & parameters.keys():
            if (place := place_of(parameters[name])) not in weights:
                self.buffers.setdefault(place, set()).add(id(parameters[name]))
        self.multiplied: set[int] = set()  # of the constant ones, those that a product went into
        self.applied = Applied(parameters, batch, masks or {})
        self.stack: list[tuple[str, int]] = []  # the modules at work, and the calls before each
        self.formed: list[int] = []  # products that each of them has formed
        self.layers: list[bool] = []  # whether each of them, or one around it, is taken for layers as a whole

    def enter(self, name: str, layer: bool = False) -> None:
        """Note that the module called ``name`` begins; ``layer``: its weights are seen where it ends."""
        self.stack.append((name, len(self.calls)))
        self.formed.append(0)
        self.layers.append(layer or (bool(self.layers) and self.layers[-1]))

    def leave(self, name: str) -> None:
        """Note that the module called ``name`` is done, or that an exception ended it, and those inside of it."""
        if all(each != name for each, _ in self.stack):  # it ended before it was noted
            return
        while self.stack.pop()[0] != name:
            pass
        del self.formed[len(self.stack) :], self.layers[len(self.stack) :]

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
        if isinstance(func, HigherOrderOperator):  # takes functions, whose operations are not told
            self.applied.leave(self.stack[-1][0] if self.stack else "", f"operations inside of {func}", frozenset())
            return func(*args, **kwargs)
        if func._can_decompose() and torch.is_inference_mode_enabled():  # elsewhere torch has done so already
            with self:
                result = func.decompose(*args, **kwargs)
            if result is not NotImplemented:
                return result
        result = func(*args, **kwargs)
        if self.paused:
            return result
        given = _tensors((args, kwargs))
        for tensor in given:
            if id(tensor) in self.held and place_of(tensor) not in self.constant:  # it was made longer
                self.constant |= _storages([tensor])
        made = _storages(_tensors(result))
        if all(place_of(tensor) in self.constant for tensor in given):
            self.constant |= made
            origins = frozenset[str]().union(*map(self._origins, given))
            self.origins |= {place: origins for place in made if place not in self.parameters}
            kind = func.overloadpacket
            if kind in PLAIN or kind in BATCHED or any(place_of(tensor) in self.multiplied for tensor in given):
                self.multiplied |= made.keys()
        else:
            for place in made.keys() & self.buffers.keys():  # written to, for nothing else returns them
                self.held -= self.buffers.pop(place)
                del self.parameters[place]
                self.origins.pop(place, None)
            for place in made.keys() - self.parameters.keys():
                self.constant.pop(place, None)
                self.multiplied.discard(place)
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
            if not any(self._is_weight(kind, each, outside) for each in (left, right)):
                if reason := unfit(left, right):
                    self.applied.leave(owner, f"{reason}, of activations", frozenset())
                else:
                    self.note(left, right)
            elif outside:
                self._apply(kind, owner, left, right, args[0] if places == (1, 2) else None, kwargs)
        elif outside and kind == aten.convolution:
            constant = place_of(args[1]) in self.constant
            if constant and place_of(args[0]) not in self.constant:
                self._add(self.applied.convolution(owner, args, self._origins(args[1])), args[2])
            elif not constant:
                self.applied.computed(owner)
        elif outside:
            self.applied.unknown(owner, func)

    def _is_weight(self, kind: Any, operand: torch.Tensor, outside: bool) -> bool:
        """Tell whether ``operand`` of a product is no activation; ``outside`` of modules that are layers as a whole."""
        place = place_of(operand)
        if kind in PLAIN or place in self.parameters:
            return place in self.constant
        computed = outside and place in self.constant and place not in self.multiplied
        # Numbers made of no parameter are a first state, as of linear attention, and no weight.
        return computed and not unfit(operand) and bool(self.origins.get(place)) and sole(operand, True) is not None

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
        origins = self._origins(weight)
        if reason := unfit(weight, inputs):
            self.applied.leave(owner, reason, origins)
            return
        if kind in BATCHED:
            shared = sole(weight, place_of(weight) not in self.parameters)
            if shared is None:
                self.applied.several(owner, origins)
                return
            weight = shared
        # (out, in) by (..., in): a vector is a row of either.
        weight = weight[None] if weight.ndim == 1 else weight if first else weight.T
        inputs = inputs[None] if inputs.ndim == 1 else inputs.transpose(-1, -2) if first else inputs
        scale = kwargs.get("alpha", 1)
        bias = None
        if added is not None and added.shape == weight.shape[:1] and (not first or kind == aten.addmv):
            bias = added if (beta := kwargs.get("beta", 1)) == 1 else added * beta
        call = self.applied.product(owner, weight if scale == 1 else weight * scale, inputs, origins, bias)
        self._add(call, None if bias is None else added)

    def _origins(self, tensor: torch.Tensor) -> frozenset[str]:
        """Return the parameters that ``tensor``, which does not depend on the samples, was computed from."""
        place = place_of(tensor)
        found = self.origins.get(place, frozenset())
        return self.applied.sources(tensor, found) if place in self.parameters else found

    def _add(self, call: Call | None, bias: torch.Tensor | None) -> None:
        if call is not None:
            self.calls.append(call)
            if bias is not None and place_of(bias) in self.constant:
                self.applied.taken |= self._origins(bias)

    def note(self, left: torch.Tensor, right: torch.Tensor) -> None:
        """Keep the product of the two, vectors, matrices or batches of these."""
        if left.ndim == right.ndim == 1:
            inputs, weight = left[None, None], right[None, None]
        elif right.ndim == 1:
            inputs, weight = right[None, None], left[None]
        else:
            inputs, weight = (each if each.ndim == 3 else each[None] for each in (left, right.transpose(-1, -2)))
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


def _storages(tensors: Iterable[torch.Tensor]) -> dict[int, torch.UntypedStorage | torch.Tensor]:
    found = [(tensor, storage_of(tensor)) for tensor in tensors]
    return {place_of(tensor): tensor if storage is None else storage for tensor, storage in found}
