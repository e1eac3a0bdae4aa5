"""A PyTorch module as a trace: the user's samples go through it, with the masks that pruning tools put into it.

Needs the extra `train`.
"""

from __future__ import annotations

import copy
import importlib
import inspect
import re
import sys
from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any, cast

import numpy as np
import torch
from torch import nn
from torch.nn.utils import parametrize
from torch.nn.utils.prune import remove

from ..errors import InputError
from ..files.container import one_line
from ..pruning import Masks
from ..trace import Trace
from ..training.capture import EMBEDDINGS, Captured, capture_all, told
from ..training.loop import deterministic
from ..training.packed import unpacked
from .masks import ASP_MASK, pattern_of
from .one_shot import held, parse_one_shot, pruned_name
from .samples import ONE
from .wrapped import check_whole, plain_inside, unwrapped

FACTORY = re.compile(r"[^\W\d]\w*(\.[^\W\d]\w*)*:[^\W\d]\w*(\.[^\W\d]\w*)*")
OWNERS = (nn.Linear, nn.Conv1d, nn.Conv2d, nn.MultiheadAttention, nn.RNNBase, nn.RNNCellBase)
POSITIONAL = re.compile(r"arr_\d+")  # the names that np.savez gives to arrays without one


def trace_of_module(
    module: nn.Module,
    samples: Mapping[str, np.ndarray] | np.ndarray | torch.Tensor | tuple[torch.Tensor, ...],
    *,
    name: str = "",
    prune: str | None = None,
    exclude: Iterable[str] = (),
    products: bool = False,
    fold_batch_norm: bool = False,
) -> Trace:
    """Return the trace of ``module`` with what ``samples`` give each of its layers; the module is left as it was.

    ``samples``: one array; several in the order of forward's arguments; or by the names of these. ``prune``: a rule as
    in `parse_one_shot`, applied before the samples go through, but not to the layers that ``exclude`` names. What wraps
    a network to compile it or to run it on several devices is taken off. Masks of
    torch.nn.utils.prune, of parametrizations and of ASP are found; weights that parametrizations make are taken as
    they are made. The provenance has ``not_simulated``, ``uses``, ``padded`` and ``folded`` as in `capture_all`,
    ``not_pruned``, and ``pruned``. Raises InputError.
    """
    module = unwrapped(module)
    with plain_inside(module):
        return _trace(module, samples, name or type(module).__name__, prune, list(exclude), products, fold_batch_norm)


def _trace(
    module: nn.Module,
    samples: Any,
    name: str,
    prune: str | None,
    exclude: list[str],
    products: bool,
    fold_batch_norm: bool,
) -> Trace:
    check_whole(module)
    rule = None if prune is None else parse_one_shot(prune)
    plain, masks = baked(module)
    patterns = {key: pattern_of(mask) for key, mask in masks.items()}
    left: dict[str, str] = {}
    if rule is None and exclude:
        raise InputError("exclude is for prune, and there is none; leave it out")
    if rule is not None:
        turned = _applied(plain, samples, masks)  # those that lie as (in, out) are pruned as layers hold them
        parameters: dict[str, torch.Tensor] = dict(plain.named_parameters())
        parameters |= unpacked(parameters)[0]
        weights = {key: _weight(parameters[key]) for key in _kernels(plain)}
        weights |= {key: _weight(parameters[key].T if flip else parameters[key]) for key, flip in turned.items()}
        flipped = {key for key, flip in turned.items() if flip}
        before = {key: mask.T if key in flipped else mask for key, mask in masks.items()}
        made, promised, left = rule.masks(weights, before, exclude)
        made = {key: mask.T if key in flipped else mask for key, mask in made.items()}
        if not made:
            why = "; ".join(f"{key}, {reason}" for key, reason in list(left.items())[:3]) or "it has none"
            raise InputError(f"prune {prune} must find a layer of {name} to prune, and finds none: {why}")
        masks, patterns = masks | made, patterns | promised
    with deterministic(0):
        captured = capture_all(
            plain,
            _arguments(plain, samples),
            masks=masks,
            patterns=patterns,
            products=True,
            fold_batch_norm=fold_batch_norm,
        )
    layers = tuple(held(layer) for layer in captured.layers if products or layer.op != "matmul")
    if not layers:
        raise InputError(f"{name} forms products of activations alone; give products to keep them")
    unkept = {layer.name: "a product of activations" for layer in captured.layers if layer.op == "matmul"}
    captured = replace(captured, not_simulated=captured.not_simulated | ({} if products else unkept))
    if rule is not None:
        computed = [layer.name for layer in layers if layer.name in captured.alone and layer.mask is None]
        known = {key.removesuffix(".weight") for key in left}
        left |= dict.fromkeys([each for each in computed if each not in known], "computed, or in use besides")
    provenance: dict[str, Any] = {"source": f"PyTorch module {name}", "network": type(module).__name__}
    if rule is not None:
        provenance["pruned"] = {"rule": prune, "activations": "those after pruning"}
    return Trace(
        name=name if prune is None else pruned_name(name, prune),
        layers=layers,
        provenance=provenance | _notes(captured, left),
    )


def load_factory(text: str) -> nn.Module:
    """Return the module that the function ``text`` names, as in package.module:function, makes without arguments.

    The working directory is searched too. This runs the user's own code, which is what is asked for.
    Raises InputError naming the rule where there is no such function or it makes no module.
    """
    place, _, attribute = text.partition(":")
    if not FACTORY.fullmatch(text):
        raise InputError(f"a factory must be package.module:function, not {text!r}")
    sys.path.insert(0, "")
    try:
        found: Any = importlib.import_module(place)
        for part in attribute.split("."):
            found = getattr(found, part)
    except ImportError as error:
        raise InputError(f"{text}: the module must be importable from here, and is not: {one_line(error)}") from None
    except AttributeError as error:
        raise InputError(f"{text}: the module must have the function, and has not: {one_line(error)}") from None
    except Exception as error:  # of the user's code, whatever it met
        raise InputError(f"{text}: the module must be importable from here, and is not: {told(error)}") from None
    finally:
        sys.path.remove("")
    try:
        made = found if isinstance(found, nn.Module) else found() if callable(found) else found
    except InputError:
        raise
    except Exception as error:  # of the user's code, whatever it met
        raise InputError(
            f"{text}: the function must make a module without arguments, and fails: {told(error)}"
        ) from None
    if not isinstance(made, nn.Module):
        raise InputError(f"{text}: the function must return a torch.nn.Module, not {type(made).__name__}")
    return made


def baked(module: nn.Module) -> tuple[nn.Module, Masks]:
    """Return a module with plain weights that computes what ``module`` does, and the masks it held by parameter name.

    ``module`` itself where nothing is to be taken out of it; else a copy.
    """
    hooked = [part for part in module.modules() if _pruned(part) or _normed(part) or parametrize.is_parametrized(part)]
    plain = _copy(module) if hooked else module
    masks: Masks = {}
    for place, part in plain.named_modules():
        prefix = f"{place}." if place else ""
        for name in _pruned(part):
            masks[prefix + name] = _bool(getattr(part, f"{name}_mask"))
            remove(part, name)  # type: ignore[no-untyped-call]
        for name in _normed(part):
            torch.nn.utils.remove_weight_norm(part, name)
        if parametrize.is_parametrized(part):
            _own_class(part)
            lists = cast("Mapping[str, Iterable[nn.Module]]", part.parametrizations)
            for name in list(lists):
                found = [_bool(mask) for each in lists[name] if (mask := _mask_of(each)) is not None]
                if found:
                    masks[prefix + name] = np.logical_and.reduce(found)
                parametrize.remove_parametrizations(part, name, leave_parametrized=True)
        for buffer, value in part.named_buffers(recurse=False):
            asp = ASP_MASK.fullmatch(buffer)
            if asp and asp["part"] == "mask":
                masks[prefix + asp["name"]] = _bool(value)
    parameters = dict(plain.named_parameters())
    return plain, {name: mask for name, mask in masks.items() if name in parameters and parameters[name].ndim > 1}


def _own_class(part: nn.Module) -> None:
    """Give ``part`` a class of its own: a copy has that of its original, whose properties torch takes away with it."""
    kind = type(part)
    own = {name: value for name, value in vars(kind).items() if name not in ("__dict__", "__weakref__")}
    part.__class__ = type(kind.__name__, kind.__bases__, own)


def _pruned(part: nn.Module) -> list[str]:
    """Return the parameters of ``part`` itself that torch.nn.utils.prune took over."""
    own = dict(part.named_parameters(recurse=False))
    buffers = dict(part.named_buffers(recurse=False))
    return [name[:-5] for name in own if name.endswith("_orig") and f"{name[:-5]}_mask" in buffers]


def _normed(part: nn.Module) -> list[str]:
    """Return the parameters of ``part`` itself that the older torch.nn.utils.weight_norm computes."""
    hooks: list[Any] = list(part._forward_pre_hooks.values())
    return [hook.name for hook in hooks if type(hook).__name__ == "WeightNorm" and hasattr(hook, "compute_weight")]


def _mask_of(part: nn.Module) -> torch.Tensor | None:
    mask = getattr(part, "mask", None)
    return mask if isinstance(mask, torch.Tensor) else None


def _bool(mask: torch.Tensor) -> np.ndarray:
    found: np.ndarray = (mask.detach().cpu() != 0).numpy()
    return found


def _copy(module: nn.Module) -> nn.Module:
    # What a hook computes hangs on the module as a plain attribute, and copy refuses those with a gradient.
    memo: dict[int, Any] = {
        id(value): value.detach().clone()
        for part in module.modules()
        for value in vars(part).values()
        if isinstance(value, torch.Tensor) and not value.is_leaf
    }
    with torch.no_grad():
        return copy.deepcopy(module, memo)


def _applied(module: nn.Module, samples: Any, masks: Masks) -> dict[str, bool]:
    """Return the parameters that the module applies by itself, past its layers, and whether they lie as (in, out).

    A table that is looked up as well is none of them.
    """
    known = _kernels(module)
    tables = {
        id(each) for part in module.modules() if isinstance(part, EMBEDDINGS) for each in part.parameters(recurse=False)
    }
    others = {
        name
        for name, each in module.named_parameters()
        if each.ndim > 1 and name not in known and id(each) not in tables
    }
    if not others:
        return {}
    with deterministic(0):
        captured = capture_all(module, _arguments(module, samples), masks=masks, products=True)
    return {name: flip for name, flip in captured.applied.items() if name in others}


def _kernels(module: nn.Module) -> dict[str, nn.Parameter]:
    """Return the matrices and kernels of the layers that can be simulated, by the name a parameter has first."""
    owned = {
        id(parameter)
        for part in module.modules()
        if isinstance(part, OWNERS)
        for parameter in part.parameters(recurse=False)
        if parameter.ndim > 1
    }
    return {name: parameter for name, parameter in module.named_parameters() if id(parameter) in owned}


def _weight(parameter: torch.Tensor) -> np.ndarray:
    found: np.ndarray = parameter.detach().to("cpu", torch.float32).numpy()
    return found


def _arguments(module: nn.Module, samples: Any) -> tuple[torch.Tensor, ...]:
    """Return ``samples`` as forward takes them, floating-point numbers in the dtype of the parameters."""
    dtype = next((p.dtype for p in module.parameters() if p.is_floating_point()), torch.float32)

    def tensor(value: Any) -> torch.Tensor:
        made = value if isinstance(value, torch.Tensor) else torch.from_numpy(np.array(value))
        return made.to(dtype) if made.is_floating_point() else made.long() if made.dtype == torch.int32 else made

    if isinstance(samples, tuple):
        return tuple(tensor(each) for each in samples)
    if not isinstance(samples, Mapping):
        return (tensor(samples),)
    if all(name == ONE or POSITIONAL.fullmatch(name) for name in samples):
        return tuple(tensor(value) for value in samples.values())
    signature = inspect.signature(module.forward)
    try:
        bound = signature.bind(**{name: tensor(value) for name, value in samples.items()})
    except TypeError as error:
        known = ", ".join(signature.parameters)
        raise InputError(f"samples must be named as forward's arguments, {known:.200}: {one_line(error)}") from None
    bound.apply_defaults()
    last = max(list(signature.parameters).index(name) for name in samples if name in signature.parameters)
    given = list(signature.parameters.values())[: last + 1]
    return tuple(bound.arguments[parameter.name] for parameter in given)


def _notes(captured: Captured, left: Mapping[str, str]) -> dict[str, Any]:
    notes = {
        "not_simulated": captured.not_simulated,
        "uses": captured.uses,
        "padded": captured.padded,
        "folded": captured.folded,
        "not_pruned": dict(left),
    }
    return {name: note for name, note in notes.items() if note}
