"""What PyTorch puts around a network, taken off, and networks whose layers cannot be seen, refused."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, cast

import torch
from torch import nn
from torch.nn.parameter import is_lazy

from ..errors import InputError

COMPILING = ("torch._dynamo", "torch.nn.attention.flex_attention")
PARALLEL = (nn.DataParallel, nn.parallel.DistributedDataParallel)


def unwrapped(module: nn.Module) -> nn.Module:
    """Return the network inside of ``module``: what was compiled, or given to several devices; else itself."""
    while (inner := _inside(module)) is not None:
        module = inner
    return module


@contextmanager
def plain_inside(module: nn.Module) -> Iterator[None]:
    """Take off what wraps the parts of ``module``, compiles them or holds their mode, and put it back at the end."""
    compiled = [part for part in module.modules() if getattr(part, "_compiled_call_impl", None) is not None]
    calls = [cast("Any", part)._compiled_call_impl for part in compiled]
    # What torch.export made is in the mode in which it was exported, and refuses to be asked for another.
    exported = [(part, key) for part in module.modules() for key in ("eval", "train") if key in vars(part)]
    refusals = [vars(part)[key] for part, key in exported]
    wrapped = [
        (parent, name, part)
        for parent in list(module.modules())
        if _inside(parent) is None
        for name, part in parent.named_children()
        if _inside(part) is not None
    ]
    try:
        for part in compiled:
            part._compiled_call_impl = None
        for parent, name, part in wrapped:
            setattr(parent, name, unwrapped(part))
        for part, key in exported:
            setattr(part, key, lambda mode=True: None)
        with _as_written():
            yield
    finally:
        for (part, key), refusal in zip(exported, refusals, strict=True):
            setattr(part, key, refusal)
        for parent, name, part in wrapped:
            setattr(parent, name, part)
        for part, call in zip(compiled, calls, strict=True):
            part._compiled_call_impl = call


@contextmanager
def _as_written() -> Iterator[None]:
    """Have functions that are compiled run as they are written: nothing can watch them elsewise."""
    stance = getattr(torch.compiler, "set_stance", None)  # before torch 2.6 there is none
    # To import what compiles takes seconds, and nothing is compiled where nobody did.
    if stance is None or not any(name in sys.modules for name in COMPILING):
        yield
        return
    with stance("force_eager"):
        yield


def check_whole(module: nn.Module) -> None:
    """Raise InputError where layers of ``module`` cannot be seen, or their weights are not there yet."""
    for name, part in module.named_modules():
        if isinstance(part, torch.jit.ScriptModule):
            where = f"part {name!r}" if name else "the network"
            raise InputError(
                f"{where} must be a module in Python, and is compiled to TorchScript, which shows no layers; give the "
                "module that it was made of, or an ONNX file"
            )
    for name, each in [*module.named_parameters(), *module.named_buffers()]:
        if is_lazy(each):
            raise InputError(
                f"{name} must have a shape, and is lazy; let samples go through the network where it is made"
            )
        if each.is_meta:
            raise InputError(f"{name} must hold numbers, and is on the device meta; load the weights")


def _inside(module: nn.Module) -> nn.Module | None:
    """Return what ``module`` wraps, None where it wraps nothing."""
    if isinstance(module, PARALLEL):
        return cast("nn.Module", module.module)
    # The class of what torch.compile returns lies where importing it takes seconds.
    inner = getattr(module, "_orig_mod", None) if type(module).__name__ == "OptimizedModule" else None
    return inner if isinstance(inner, nn.Module) else None
