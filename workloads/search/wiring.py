"""Where the output channels of a layer go, found by sending a NaN along each of them.

A network is a program, and what it does with a channel is seen best by running it: sample c of a batch carries a NaN in
channel c of one layer, and each layer behind tells at which of its inputs it arrives. Nothing is guessed from the order
of modules or from their names.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from ..training.calls import KERNELS
from ..training.kernels import layer_of

NORM_ARRAYS = ("weight", "bias", "running_mean", "running_var")
CLOSE = 1e-4  # of the largest output: float32 sums in another order


@dataclass(frozen=True, eq=False)
class Wire:
    """What goes with the output channels of one layer.

    ``arrays``: parameters and buffers with one value, or row, a channel along axis 0. ``inputs``: by the parameter of a
    layer that is fed, which places along its axis 1 each channel feeds, (channels, places); ``widths``: how many that
    axis has.
    """

    arrays: tuple[str, ...]
    inputs: Mapping[str, np.ndarray]
    widths: Mapping[str, int]

    def slices(self, alive: np.ndarray) -> Iterator[tuple[str, int, np.ndarray]]:
        """Yield name, axis and places that stay of each array, where the channels ``alive`` do."""
        for name in self.arrays:
            yield name, 0, np.flatnonzero(alive)
        for name, places in self.inputs.items():
            gone = np.isin(np.arange(self.widths[name]), places[~alive])
            yield name, 1, np.flatnonzero(~gone)


def wires(network: nn.Module, sample: torch.Tensor, names: Collection[str]) -> tuple[dict[str, Wire], dict[str, str]]:
    """Return the wires of the parameters among ``names`` whose layer can lose channels; and why other layers cannot.

    ``sample``: one sample, with its axis. ``network`` is run in evaluation mode and left as it was. Of every layer that
    is found, half of the channels are taken out on trial, and the network without them must give what it gives with
    them at 0.
    """
    modules = dict(network.named_modules())
    found: dict[str, Wire] = {}
    whole: dict[str, str] = {}
    modes = {part: part.training for part in network.modules()}
    network.eval()
    try:
        with torch.no_grad():
            for name in names:
                layer = layer_of(name)
                module = modules[layer]
                if not isinstance(module, KERNELS) or not name.endswith("weight") or getattr(module, "groups", 1) > 1:
                    whole[name] = "is no linear layer or plain convolution"
                    continue
                probe = _Probe(network, layer, module)
                wire = probe.run(sample)
                if isinstance(wire, Wire):
                    found[name] = wire
                else:
                    whole[name] = wire
            _part_shared(found, whole)
            for name in list(found):
                reason = _trial(network, sample, found[name])
                if reason is not None:
                    del found[name]
                    whole[name] = reason
    finally:
        for part, mode in modes.items():
            part.training = mode
    return found, {layer_of(name): reason for name, reason in whole.items()}


def cut(network: nn.Module, places: Mapping[tuple[str, int], np.ndarray]) -> nn.Module:
    """Return a copy of ``network`` that has only these places of its arrays, by name and axis."""
    smaller = copy.deepcopy(network)
    modules = dict(smaller.named_modules())
    for (name, axis), kept in places.items():
        owner, _, key = name.rpartition(".")
        module = modules[owner]
        index = torch.from_numpy(kept)
        tensor = getattr(module, key)
        value = tensor.detach().index_select(axis, index.to(tensor.device)).clone()
        if key in module._buffers:
            module._buffers[key] = value
        else:
            setattr(module, key, nn.Parameter(value, requires_grad=tensor.requires_grad))
        if key in ("weight", "running_mean"):
            _resize(module, axis, len(kept))
    return smaller


def _resize(module: nn.Module, axis: int, size: int) -> None:
    """Give the module's own notion of its size its new value."""
    if isinstance(module, _BatchNorm):
        module.num_features = size
    elif isinstance(module, nn.Linear):
        setattr(module, ("out_features", "in_features")[axis], size)
    else:
        setattr(module, ("out_channels", "in_channels")[axis], size)


@dataclass(eq=False)
class _Probe:
    """One run of the network with a NaN in each channel of ``module``, which is called ``layer``."""

    network: nn.Module
    layer: str
    module: nn.Module
    inputs: dict[str, torch.Tensor] = field(default_factory=dict)  # by parameter (channels, places), whether NaN came
    norms: list[str] = field(default_factory=list)
    reason: str | None = None

    def run(self, sample: torch.Tensor) -> Wire | str:
        """Return where the channels go, or in words why they cannot be taken out."""
        assert isinstance(self.module.weight, torch.Tensor)
        self.channels = int(self.module.weight.shape[0])
        handles = [self.module.register_forward_hook(self._mark)]
        for name, part in self.network.named_modules():
            own = [*part.named_parameters(recurse=False), *part.named_buffers(recurse=False)]
            if part is not self.module and (own or isinstance(part, _BatchNorm)):
                handles.append(part.register_forward_pre_hook(self._meet(name), with_kwargs=True))
        try:
            output = self.network(sample.repeat_interleave(self.channels, dim=0))
        except (RuntimeError, ValueError, IndexError, TypeError):
            return "cannot be followed: the network fails on a batch of as many samples as it has channels"
        finally:
            for handle in handles:
                handle.remove()
        if self.reason is not None:
            return self.reason
        if not isinstance(output, torch.Tensor) or bool(output.isnan().any()):
            return "gives outputs of the network, or something between layers mixes its channels"
        if not self.inputs:
            return "feeds no layer"
        places = {}
        for name, met in self.inputs.items():
            count = met.sum(dim=1)
            if bool((met.sum(dim=0) > 1).any()) or bool((count != count[0]).any()) or int(count[0]) == 0:
                return f"feeds {layer_of(name)} by channels that are mixed"
            places[name] = met.nonzero()[:, 1].reshape(self.channels, -1).cpu().numpy()
        arrays = [f"{self.layer}.weight"] + [f"{self.layer}.bias"] * (self.module.bias is not None)
        names = {*dict(self.network.named_parameters()), *dict(self.network.named_buffers())}
        arrays += [name for norm in self.norms for key in NORM_ARRAYS if (name := f"{norm}.{key}") in names]
        return Wire(tuple(arrays), places, {name: met.shape[1] for name, met in self.inputs.items()})

    def _mark(self, module: nn.Module, given: Any, output: torch.Tensor) -> torch.Tensor | None:
        if output.shape[0] != self.channels:
            self.reason = "does not keep samples apart"
            return None
        each = torch.arange(self.channels)
        marked = output.clone()
        if isinstance(module, nn.Linear):
            marked[each, ..., each] = torch.nan
        else:
            marked[each, each] = torch.nan
        return marked

    def _meet(self, name: str) -> Callable[..., Any]:
        def hook(module: nn.Module, given: tuple[Any, ...], keywords: dict[str, Any]) -> Any:
            values = [*given, *keywords.values()]
            if not any(isinstance(value, torch.Tensor) and bool(value.isnan().any()) for value in values):
                return None
            first = values[0]
            if isinstance(module, _BatchNorm):
                if not torch.equal(_met(first, 1), torch.eye(self.channels, dtype=torch.bool)):
                    self.reason = f"shares {name} with other channels"
                elif name not in self.norms:
                    self.norms.append(name)
                return None
            if not isinstance(module, KERNELS) or getattr(module, "groups", 1) > 1:
                self.reason = f"feeds {name}, a {type(module).__name__}"
                return None
            met = _met(first, -1 if isinstance(module, nn.Linear) else 1)
            parameter = f"{name}.weight"
            self.inputs[parameter] = self.inputs.get(parameter, torch.zeros_like(met)) | met
            clean = torch.nan_to_num(first, nan=0.0)
            return ((clean, *given[1:]), keywords) if given else (given, dict.fromkeys(list(keywords)[:1], clean))

        return hook


def _met(value: torch.Tensor, axis: int) -> torch.Tensor:
    """Return by sample and place along ``axis`` whether there is a NaN, (samples, places)."""
    lanes = value.isnan().movedim(axis, 1)
    return lanes.flatten(start_dim=2).any(dim=2) if lanes.ndim > 2 else lanes


def _part_shared(found: dict[str, Wire], whole: dict[str, str]) -> None:
    """Take out of ``found`` the layers whose channels meet those of another one at the same inputs, or norms."""
    by_place: dict[tuple[str, int], list[str]] = {}
    for name, wire in found.items():
        for fed, places in wire.inputs.items():
            for place in places.ravel():
                by_place.setdefault((fed, int(place)), []).append(name)
        for array in wire.arrays:
            by_place.setdefault((array, -1), []).append(name)
    for names in by_place.values():
        if len(names) > 1:
            for name in names:
                if name in found:
                    others = list(dict.fromkeys(layer_of(other) for other in names if other != name))
                    more = f" and {len(others) - 1} more" if len(others) > 1 else ""
                    whole[name] = f"is added to what {others[0]}{more} gives, channel by channel"
                    del found[name]


def _trial(network: nn.Module, sample: torch.Tensor, wire: Wire) -> str | None:
    """Return why the network does not do without every second channel of the wire; None where it does."""
    channels = len(next(iter(wire.inputs.values())))
    if channels == 1:
        return "has one channel"
    alive = np.zeros(channels, bool)  # drawn, so that no arrangement in heads or groups happens to come out even
    alive[np.random.default_rng(0).permutation(channels)[: channels // 2]] = True
    places = {(name, axis): kept for name, axis, kept in wire.slices(alive)}
    silent = copy.deepcopy(network)
    for name, value in silent.named_parameters():
        if name in wire.arrays:
            value[torch.from_numpy(~alive)] = 0.0
    try:
        smaller = cut(network, places)(sample)
    except (RuntimeError, ValueError, IndexError, TypeError):
        return "feeds something that asks for a number of channels"
    expected = silent(sample)
    if smaller.shape != expected.shape or not torch.allclose(
        smaller, expected, rtol=0.0, atol=CLOSE * max(float(expected.abs().max()), 1e-30)
    ):
        return "is not silent where its channels are 0"
    return None
