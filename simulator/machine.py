"""A machine: a model's name, its configuration, and the two engines that run it."""

from __future__ import annotations

import importlib
from dataclasses import dataclass
from typing import Any, Protocol, cast

import msgspec

from ..workloads.errors import InputError
from ..workloads.trace import Layer
from .energy import EnergyTable
from .memo import Memo
from .result import LayerResult
from .timeline import Timeline

ENGINES = ("fast", "event")
MOST = 2**62  # of a layer's figures; what is above cannot be added up, or read again
OPS = ("linear", "conv2d")  # what a model runs that does not say


class Model(Protocol):
    """What a module of `gossamer.models` offers: its Config and one function an engine.

    It may also offer ``OPS``, the kinds of layers it runs where these are not linear and conv2d;
    ``error_bound(machine, layer)``, how far each output may be from the exact one; and
    ``network_warnings(machine, layers)``, what is wrong with the layers of a network together.
    """

    Config: type[msgspec.Struct]

    def fast(self, machine: Machine, layer: Layer, memo: Memo) -> LayerResult:
        """Solve the layer's recurrences."""

    def events(self, machine: Machine, layer: Layer, timeline: Timeline | None) -> LayerResult:
        """Step the layer's hardware units, one process each."""

    def area_mm2(self, machine: Machine) -> float | None:
        """Return the machine's area, None where no table gives it."""


@dataclass(frozen=True)
class Machine:
    """A named configuration of a model; ``config`` is the model's own frozen Config.

    ``module`` is the model's full module name, a string so that a machine can travel to other processes.
    """

    name: str
    model: str
    module: str
    config: Any
    energy: EnergyTable | None

    @property
    def engines(self) -> Model:
        """Return the module that simulates this machine."""
        return cast(Model, importlib.import_module(self.module))

    def run(self, layer: Layer, engine: str, memo: Memo, timeline: Timeline | None = None) -> LayerResult:
        """Return what ``layer`` costs on this machine, by the engine named. InputError for an op it does not run."""
        ops = getattr(self.engines, "OPS", OPS)
        if layer.op not in ops:
            remedy = "choose other layers with --layer, or another machine"
            if layer.op == "lstm" and "linear" in ops:
                remedy = "make linear layers of it with gossamer transform unroll"
            raise InputError(f"layer {layer.name}: {self.name} runs {', '.join(ops)}, not {layer.op}; {remedy}")
        try:
            if engine == "event":
                result = self.engines.events(self, layer, timeline)
            else:
                result = self.engines.fast(self, layer, memo)
        except InputError as error:
            where = f"layer {layer.name}: "  # which parts of a model do not know
            raise InputError(f"{'' if str(error).startswith(where) else where}{error}") from None
        except OverflowError as error:
            raise InputError(
                f"layer {layer.name}: {self.name} must count in 64 bits, and its settings lead beyond ({error}); "
                "choose nearer ones"
            ) from None
        for name, value in {"cycles": result.cycles, "latency_s": result.latency_s, **(result.roofline or {})}.items():
            if not value < MOST:
                raise InputError(
                    f"layer {layer.name}: figures of {self.name} must stay below 2^62, and its settings lead to "
                    f"{name} = {value:.3g}; choose nearer ones"
                )
        return result
