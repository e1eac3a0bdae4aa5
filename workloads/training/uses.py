"""Which calls are uses of one layer, what that layer is called, and the layer of a trace that they come to."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from ..errors import InputError
from ..patterns import Pattern
from ..pruning import Masks
from ..rules import UNTRAINED
from ..trace import Layer
from .calls import Call

IDLE = "fed with nothing by these samples"
GLANCE = 64  # weights that are looked at before two of them are compared in full


def fed(calls: Iterable[Call]) -> tuple[list[Call], dict[str, str]]:
    """Return the calls that were fed with anything, and by name the layers of which no call was, with the reason.

    An expert of a mixture may get no sample of a batch.
    """
    calls = list(calls)
    found = [call for call in calls if call.inputs.size and call.weight.size]
    known = {call.layer for call in found}
    return found, {call.layer: IDLE for call in calls if call.layer not in known}


def grouped(calls: Iterable[Call], names: Mapping[str, str]) -> Iterator[list[Call]]:
    """Yield the calls of each layer in the order of first use, under a name that no other layer has.

    Calls are of one layer if they agree in weight, bias, attributes, the size of a sample, and the parameter behind the
    weight; ``names`` says what parameters that have several names are called. A sparse convolution is a layer by
    itself, and a product of activations has no weight to agree in. Of layers that would be called alike, one whose
    weight is the parameter as it is keeps the name before one cut out of it or computed, an earlier one before a later;
    the others are numbered: fc, fc (2), fc (3).
    """
    alike: dict[tuple[Any, ...], list[list[Call]]] = {}
    groups: list[list[Call]] = []
    for index, call in enumerate(calls):
        found = alike.setdefault(_about(call, index, names), [])
        group = next((each for each in found if _same(each[0], call)), None)
        if group is None:
            found.append(group := [])
            groups.append(group)
        group.append(call)
    called = {id(group): name for group, name in _called(groups)}
    for group in groups:
        name = called[id(group)]
        yield group if name == group[0].layer else [replace(call, layer=name) for call in group]


def _called(groups: list[list[Call]]) -> Iterator[tuple[list[Call], str]]:
    taken = {group[0].layer for group in groups}
    numbers: dict[str, int] = {}
    for group in sorted(groups, key=lambda group: all(call.part for call in group)):
        plain = name = group[0].layer
        number = numbers.get(plain, 0) + 1
        while number > 1 and (name := f"{plain} ({number})") in taken:  # a module may be called so
            number += 1
        numbers[plain] = number
        taken.add(name)
        yield group, name


def _about(call: Call, index: int, names: Mapping[str, str]) -> tuple[Any, ...]:
    """Return what is alike in calls of one layer, as far as it is quickly told."""
    if call.op == "matmul":
        return call.layer, call.op, call.inputs.shape[1:], call.weight.shape[1:]
    flat = call.weight.reshape(-1)
    return (
        call.layer,
        call.op,
        call.inputs.shape[1:],
        names.get(call.parameter, call.parameter),
        tuple(sorted(call.attributes.items())),
        call.weight.shape,
        flat[:: max(1, flat.size // GLANCE)].tobytes(),
        None if call.bias is None else call.bias.tobytes(),
        index if call.points else None,
    )


def _same(one: Call, other: Call) -> bool:
    """Tell whether calls of which as much is alike as `_about` says have the same weight, to the bit."""
    return one.op == "matmul" or np.array_equal(one.weight.view(np.int32), other.weight.view(np.int32))


def layer_of(calls: list[Call], names: Mapping[str, str], masks: Masks, patterns: Mapping[str, Pattern]) -> Layer:
    """Return the layer of ``calls``, one of `grouped`: their inputs one after another.

    ``masks`` and ``patterns`` by parameter. Raises InputError where a mask does not keep its pattern.
    """
    call = next((each for each in calls if not each.part), calls[0])
    if call.op in UNTRAINED:
        return Layer(
            name=call.layer,
            op=call.op,
            inputs=np.concatenate([each.inputs for each in calls]),
            weight=np.concatenate([each.weight for each in calls]),
            pattern=Pattern(kind="dense"),
            attributes={"samples": sum(each.attributes["samples"] for each in calls)},
        )
    name = names.get(call.parameter, call.parameter)
    mask, pattern = masks.get(name), patterns.get(name)
    weight, inputs = call.weight, np.concatenate([each.inputs for each in calls])
    if call.part:  # what was promised of the parameter may be gone
        mask = call.kept
        pattern = None if mask is None or pattern is None else _of_part(pattern, mask)
    missing = 0 if pattern is None else _missing(call, pattern)
    if mask is not None:
        if pattern is not None and not missing:
            pattern.check(mask, f"parameter {name}")
        mask = mask[call.rows].reshape(weight.shape)
        weight = np.where(mask, weight, np.float32(0))  # +0, which a product with the mask would not always be
    if pattern is None:
        pattern = Pattern(kind="dense" if mask is None else "unstructured")
    elif call.rows != slice(None) and pattern.kind in ("balanced", "block"):
        pattern = _of_part(pattern, weight if mask is None else mask)
    elif call.op == "conv2d" and call.flat and pattern.axis == 2:
        pattern = replace(pattern, axis=3)  # the kernel of a one-dimensional convolution lies behind its height
    if missing:
        weight, mask = _padded(weight, 1, missing), None if mask is None else _padded(mask, 1, missing)
        inputs = _padded(inputs, 1 if call.op == "conv2d" else -1, missing)
    return Layer(
        name=call.layer,
        op=call.op,
        inputs=inputs,
        weight=weight,
        bias=call.bias,
        mask=mask,
        pattern=pattern,
        attributes=call.attributes,
        **call.points,
    )


def _missing(call: Call, pattern: Pattern) -> int:
    """Return by how many input channels, weights and activations of 0, groups of N:M are made whole."""
    if pattern.m is None or pattern.axis != 1 or call.attributes.get("groups", 1) > 1:
        return 0
    return -int(call.weight.shape[1]) % pattern.m


def _padded(array: np.ndarray, axis: int, missing: int) -> np.ndarray:
    """Return the array with so many zeros behind its ``axis``."""
    sides = [(0, 0)] * array.ndim
    sides[axis] = (0, missing)
    return np.pad(array, sides)


def _of_part(pattern: Pattern, kept: np.ndarray) -> Pattern:
    """Return the pattern where what was cut out of its array still keeps it: tiles and shares may straddle the cut."""
    try:
        pattern.check(kept, "part")
    except InputError:
        return Pattern(kind="unstructured")
    return pattern
