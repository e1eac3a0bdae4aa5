"""Pruning once, without training, as a model is imported: which weights a rule such as 2:4 leaves of each layer."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from math import prod

import numpy as np

from ..errors import InputError
from ..files.numbers import read_only
from ..names import fits
from ..patterns import Pattern
from ..pruning import Masks, balanced, magnitude, magnitude_global
from ..pruning.structured import channels, equal_tiles, filled, n_of_m, tiles
from ..rules import UNTRAINED
from ..streamed import StreamedLayers
from ..trace import Layer, Trace
from .masks import pattern_of

FORMS = (
    "N:M, SHARE, global:SHARE, balanced:SHARE:PES, channel:SHARE, block:SHARE:ROWSxCOLUMNS or "
    "equal-blocks:SHARE:ROWSxCOLUMNS"
)
BLOCKED = ("block", "equal-blocks")  # kinds that take the sides of a block


@dataclass(frozen=True, slots=True)
class OneShot:
    """How to prune: ``kind`` n:m, magnitude, global, balanced, channel, block or equal-blocks, with its numbers."""

    kind: str
    sparsity: float = 0.0
    n: int = 0
    m: int = 0
    pe_count: int = 0
    block: tuple[int, int] = (1, 1)

    def masks(
        self, weights: Mapping[str, np.ndarray], masks: Masks, exclude: Iterable[str] = ()
    ) -> tuple[Masks, dict[str, Pattern], dict[str, str]]:
        """Return masks and patterns of the ``weights`` that are pruned, and why the others are not.

        ``weights`` by name: (out, in / groups, ...), whole layers. ``masks``: what is pruned already stays so.
        ``exclude``: patterns of names, as in fnmatch. Raises InputError for a pattern that no name fits.
        """
        left = self.left_out({name: weight.shape for name, weight in weights.items()}, exclude)
        before = {name: masks.get(name, np.ones(weight.shape, bool)) for name, weight in weights.items()}
        chosen = {name: before[name] for name in weights if name not in left}
        kept: Masks = {}
        patterns: dict[str, Pattern] = {}
        if self.kind == "global":
            kept = magnitude_global(weights, chosen, self.sparsity)
            patterns = dict.fromkeys(kept, Pattern())
        for name in chosen if self.kind != "global" else ():
            kept[name], patterns[name] = self.mask(weights[name], chosen[name], name)
        return kept, patterns, left

    def left_out(self, shapes: Mapping[str, tuple[int, ...]], exclude: Iterable[str]) -> dict[str, str]:
        """Return, of weights of these ``shapes`` by name, those that are not pruned, and why; see `masks`."""
        left: dict[str, str] = {}
        for pattern in exclude:
            found = [name for name in shapes if fits(name, pattern) or fits(_layer(name), pattern)]
            if not found:
                known = ", ".join(map(_layer, shapes)) or "none"
                raise InputError(
                    f"exclude must fit the name of a layer, and {pattern!r} fits none; known: {known:.300}"
                )
            left |= dict.fromkeys(found, "excluded")
        if self.kind == "n:m":
            for name, shape in shapes.items():
                if name not in left and shape[1] % self.m:
                    left[name] = f"{shape[1]} input channels are no whole number of groups of {self.m}"
        return left

    def mask(self, weight: np.ndarray, mask: np.ndarray, name: str) -> tuple[np.ndarray, Pattern]:
        """Return the mask and the pattern of one ``weight`` by any rule but global; see `masks`. Raises InputError.

        What ``mask`` pruned inside a tile that is kept is stored with the tile, as a 0: tiles are kept whole.
        """
        try:
            match self.kind:
                case "n:m":
                    return n_of_m(weight, mask, self.n, self.m), Pattern("n:m", n=self.n, m=self.m, axis=1)
                case "balanced":
                    found = balanced(weight, mask, self.sparsity, self.pe_count)
                    return found, Pattern("balanced", pe_count=self.pe_count, scope="pe")
                case "channel":
                    block = (1, prod(weight.shape[1:]))
                    return filled(channels(weight, mask, self.sparsity), block), Pattern("block", block=block)
                case "block" | "equal-blocks":
                    choose = tiles if self.kind == "block" else equal_tiles
                    found = choose(weight, mask, self.sparsity, self.block)
                    return filled(found, self.block), Pattern("block", block=self.block)
            return magnitude(weight, mask, self.sparsity), Pattern()
        except InputError as error:
            raise InputError(f"parameter {name}: {error}") from None


def parse_one_shot(text: str) -> OneShot:
    """Return the rule that ``text`` writes, as in 2:4, 0.9, global:0.9, balanced:0.9:64, channel:0.5, block:0.8:8x8.

    Raises InputError.
    """
    wrong = InputError(f"prune must be {FORMS}, not {text!r}; as in 2:4")
    groups = re.fullmatch(r"(\d{1,4}):(\d{1,4})", text)
    if groups:
        n, m = int(groups[1]), int(groups[2])
        if not 0 < n < m:
            raise InputError(f"prune must keep n of m with 0 < n < m, not {text}; as in 2:4")
        return OneShot("n:m", n=n, m=m)
    kind, *numbers = text.split(":")
    share, *rest = numbers or [kind]
    kind = kind if numbers else "magnitude"
    if kind not in ("magnitude", "global", "balanced", "channel", *BLOCKED):
        raise wrong
    try:
        sparsity = float(share)
    except ValueError:
        raise wrong from None
    if not 0 <= sparsity < 1:
        raise InputError(f"prune must take a share of at least 0 and below 1, not {share}; as in 0.9")
    if kind in ("magnitude", "global", "channel") and not rest:
        return OneShot(kind, sparsity)
    if kind == "balanced" and len(rest) == 1 and re.fullmatch(r"[1-9]\d{0,8}", rest[0]):
        return OneShot(kind, sparsity, pe_count=int(rest[0]))
    sides = re.fullmatch(r"([1-9]\d{0,4})x([1-9]\d{0,4})", rest[0]) if kind in BLOCKED and len(rest) == 1 else None
    if sides:
        return OneShot(kind, sparsity, block=(int(sides[1]), int(sides[2])))
    raise wrong


def prune_trace(trace: Trace, rule: OneShot, text: str, exclude: Iterable[str] = ()) -> Trace:
    """Return ``trace`` with the weights of its layers pruned by ``rule``, named after it; activations stay.

    Layers that stay in their file are pruned as they are read, by any rule but global, which needs all of them at once.
    ``text``: the rule as it was written, for the provenance. Raises InputError.
    """
    shapes: dict[str, tuple[int, ...]] = {}
    others: dict[str, str] = {}
    for layer in trace.layers:
        if layer.op in UNTRAINED or layer.op == "lstm" or layer.codes is not None:
            others[layer.name] = f"{layer.op} is not pruned here"
        else:
            shapes[layer.name] = layer.shape
        del layer  # or it would be in memory together with the next
    left = rule.left_out(shapes, exclude)
    if len(left) == len(shapes):
        raise InputError(f"prune {text} must find a layer to prune, and finds none: {_reasons(left)}")
    notes: dict[str, object] = {"pruned": {"rule": text, "activations": "those before pruning"}}
    if left | others:
        notes["not_pruned"] = left | others
    return replace(
        trace,
        name=pruned_name(trace.name, text),
        layers=_pruned_layers(trace, rule, [name for name in shapes if name not in left]),
        provenance=dict(trace.provenance) | notes,
    )


def _pruned_layers(trace: Trace, rule: OneShot, names: Sequence[str]) -> Sequence[Layer]:
    """Return the layers of ``trace``, those of these ``names`` pruned."""
    if rule.kind == "global":
        layers = {layer.name: layer for layer in trace.layers}
        weights = {name: layers[name].weight for name in names}
        masks, patterns, _ = rule.masks(weights, {name: _mask(layers[name]) for name in names})
        layers |= {name: _pruned(layers[name], masks[name], patterns[name]) for name in names}
        return tuple(layers.values())

    def pruned(index: int) -> Layer:
        layer = trace.layers[index]
        if layer.name not in names:
            return layer
        return _pruned(layer, *rule.mask(layer.weight, _mask(layer), layer.name))

    if isinstance(trace.layers, StreamedLayers):
        return StreamedLayers(trace.names, pruned)
    return tuple(map(pruned, range(len(trace.layers))))


def _mask(layer: Layer) -> np.ndarray:
    return layer.weight != 0 if layer.mask is None else layer.mask


def pruned_name(name: str, text: str) -> str:
    """Return the name of the trace ``name`` once the rule ``text`` has pruned it, as in mini-2-4, mini-global-0.9."""
    return f"{name}-{text.strip().replace(':', '-')}"


def _pruned(layer: Layer, mask: np.ndarray, pattern: Pattern) -> Layer:
    weight = np.where(mask, layer.weight, np.float32(0))
    return replace(layer, weight=read_only(weight), mask=mask, pattern=pattern)


def held(layer: Layer) -> Layer:
    """Return ``layer`` with the N:M pattern that its zeros keep, where they keep one and it promised nothing."""
    if layer.pattern.kind not in ("dense", "unstructured") or layer.op in UNTRAINED or layer.op == "lstm":
        return layer
    found = pattern_of(layer.kept != 0 if layer.mask is None else layer.mask)
    return replace(layer, pattern=found) if found.kind == "n:m" else layer


def _layer(name: str) -> str:
    return name.removesuffix(".weight")


def _reasons(left: Mapping[str, str]) -> str:
    return "; ".join(f"{name}, {why}" for name, why in list(left.items())[:3]) or "there is no trained layer"
