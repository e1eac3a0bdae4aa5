"""A PyTorch module as a trace: the user's samples go through it, with the masks that pruning tools put into it.

Needs the extra `train`.
"""

from __future__ import annotations

import copy
import importlib
import re
import sys
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
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
from ..training.calls import CELLS, KERNELS, RECURRENT
from ..training.capture import EMBEDDINGS, Captured, capture_all, told
from ..training.loop import deterministic
from ..training.packed import unpacked
from .arguments import arguments_of
from .masks import ASP_MASK, pattern_of
from .one_shot import held, parse_one_shot, pruned_name
from .restored import as_it_was, tensors_of
from .wrapped import check_whole, plain_inside, unwrapped

FACTORY = re.compile(r"[^\W\d]\w*(\.[^\W\d]\w*)*:[^\W\d]\w*(\.[^\W\d]\w*)*")
OWNERS = (*KERNELS, nn.MultiheadAttention, *RECURRENT, *CELLS)
WEIGHT = re.compile(r"weight|(in|q|k|v)_proj_weight|weight_(ih|hh|hr)(_l\d+(_reverse)?)?")  # what these call theirs


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

    ``samples``: one array; several in the order of forward's arguments; or by the names of these, see `arguments_of`.
    ``prune``: a rule as
    in `parse_one_shot`, applied before the samples go through, but not to the layers that ``exclude`` names. What wraps
    a network to compile it or to run it on several devices is taken off. Masks of
    torch.nn.utils.prune, of parametrizations and of ASP are found; weights that parametrizations make are taken as
    they are made. The provenance has ``not_simulated``, ``uses``, ``padded`` and ``folded`` as in `capture_all`,
    ``not_pruned``, and ``pruned``. Raises InputError.
    """
    module = unwrapped(module)
    name = name or type(module).__name__
    try:
        with as_it_was(module), plain_inside(module):
            return _trace(module, samples, name, prune, list(exclude), products, fold_batch_norm)
    except SystemExit as error:
        raise InputError(f"the network must take samples, and exits: {told(error)}") from None


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
        weights = {key: _weight(parameters[key]) for key, each in _kernels(plain).items() if _is_real(each)}
        weights |= {key: _weight(parameters[key].T if flip else parameters[key]) for key, flip in turned.items()}
        flipped = {key for key, flip in turned.items() if flip}
        before = {key: mask.T if key in flipped else mask for key, mask in masks.items()}
        made, promised, left = rule.masks(weights, before, exclude)
        made = {key: mask.T if key in flipped else mask for key, mask in made.items()}
        if not made:
            why = "; ".join(f"{key}, {reason}" for key, reason in list(left.items())[:3]) or "it has none"
            raise InputError(f"prune {prune} must find a layer of {name} to prune, and finds none: {why}")
        masks, patterns = masks | made, patterns | promised
    given = arguments_of(plain, samples)
    with deterministic(0):
        captured = capture_all(
            plain,
            given.values,
            keywords=given.keywords,
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
    with _from_here():
        found = _imported(text, place)
        try:
            for part in attribute.split("."):
                found = getattr(found, part)
        except AttributeError as error:
            raise InputError(f"{text}: the module must have the function, and has not: {one_line(error)}") from None
        except (Exception, SystemExit) as error:  # of a module's own __getattr__
            raise InputError(f"{text}: the module must give the function, and fails: {told(error)}") from None
        try:
            made = found if isinstance(found, nn.Module) else found() if callable(found) else found
        except InputError:
            raise
        except (Exception, SystemExit) as error:  # of the user's code, whatever it met
            raise InputError(
                f"{text}: the function must make a module without arguments, and fails: {told(error)}"
            ) from None
    if not isinstance(made, nn.Module):
        raise InputError(f"{text}: the function must return a torch.nn.Module, not {type(made).__name__}")
    return made


@contextmanager
def _from_here() -> Iterator[None]:
    """Search the working directory too for what is imported, by functions that are called as well."""
    sys.path.insert(0, "")
    try:
        yield
    finally:
        with suppress(ValueError):  # the user's code may have taken it away
            sys.path.remove("")


def _imported(text: str, place: str) -> Any:
    """Return the module called ``place``, for the factory ``text``. Raises InputError."""
    try:
        return importlib.import_module(place)
    except SystemExit as error:
        why = f"exits ({one_line(error)}); put what it runs as a program under if __name__ == '__main__'"
    except ImportError as error:
        why = f"is not: {one_line(error)}"
    except Exception as error:  # of the user's code, whatever it met
        why = f"is not: {told(error)}"
    raise InputError(f"{text}: the module must be importable from here, and {why}")


def baked(module: nn.Module) -> tuple[nn.Module, Masks]:
    """Return a module with plain weights that computes what ``module`` does, and the masks it held by parameter name.

    ``module`` itself where nothing is to be taken out of it; else a copy.
    """
    hooked = [
        part
        for part in module.modules()
        if _pruned(part) or _normed(part) or _normed(part, "SpectralNorm") or parametrize.is_parametrized(part)
    ]
    sparse = {name: each for name, each in _kernels(module).items() if each.layout != torch.strided}
    dense = {id(each): nn.Parameter(each.detach().to_dense(), each.requires_grad) for each in sparse.values()}
    plain = _copy(module, dense) if hooked or sparse else module
    masks: Masks = {name: _bool(dense[id(each)]) for name, each in sparse.items()}
    for place, part in plain.named_modules():
        prefix = f"{place}." if place else ""
        for name in _pruned(part):
            masks[prefix + name] = _bool(getattr(part, f"{name}_mask"))
            _own_parameter(part, f"{name}_orig")
            remove(part, name)  # type: ignore[no-untyped-call]
        for name in _normed(part):
            torch.nn.utils.remove_weight_norm(part, name)
        for name in _normed(part, "SpectralNorm"):
            torch.nn.utils.remove_spectral_norm(part, name)
        if parametrize.is_parametrized(part):
            _own_class(part)
            lists = cast("Mapping[str, nn.ModuleList]", part.parametrizations)
            for name in list(lists):
                lists[name].eval()  # some go a step further at every look in training
                found = [_bool(mask) for each in lists[name] if (mask := _mask_of(each)) is not None]
                if found:
                    masks[prefix + name] = np.logical_and.reduce(found)
                _own_parameter(lists[name], "original")
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


def _own_parameter(part: nn.Module, name: str) -> None:
    """Give ``part`` a parameter ``name`` of its own: torch writes to it, and parts without a mask may share it."""
    shared = part._parameters.get(name)
    if shared is not None:
        part._parameters[name] = nn.Parameter(shared.detach().clone(), shared.requires_grad)


def _pruned(part: nn.Module) -> list[str]:
    """Return the parameters of ``part`` itself that torch.nn.utils.prune took over."""
    own = dict(part.named_parameters(recurse=False))
    buffers = dict(part.named_buffers(recurse=False))
    return [name[:-5] for name in own if name.endswith("_orig") and f"{name[:-5]}_mask" in buffers]


def _normed(part: nn.Module, kind: str = "WeightNorm") -> list[str]:
    """Return the parameters of ``part`` itself that the older weight_norm of torch, or another ``kind``, computes."""
    hooks: list[Any] = list(part._forward_pre_hooks.values())
    return [hook.name for hook in hooks if type(hook).__name__ == kind and hasattr(hook, "compute_weight")]


def _mask_of(part: nn.Module) -> torch.Tensor | None:
    mask = getattr(part, "mask", None)
    return mask if isinstance(mask, torch.Tensor) else None


def _bool(mask: torch.Tensor) -> np.ndarray:
    found: np.ndarray = (mask.detach().cpu() != 0).numpy()
    return found


def _copy(module: nn.Module, instead: Mapping[int, torch.Tensor]) -> nn.Module:
    """Return a copy of ``module`` that has other tensors ``instead`` of those with these ids. Raises InputError."""
    kept = {id(each): each for each in (*module.parameters(), *module.buffers()) if each.layout != torch.strided}
    # What a hook computes hangs on the module as an attribute or in one, and copy refuses those with a gradient.
    memo: dict[int, Any] = kept | {
        id(value): value.detach().clone()
        for part in module.modules()
        for value in tensors_of(part)
        if not value.is_leaf
    }
    try:
        with torch.no_grad():
            return copy.deepcopy(module, memo | dict(instead))
    except Exception as error:  # of the user's own code, whatever cannot be copied
        raise InputError(
            f"the network must be copied to make its masked, computed or sparse weights plain, and cannot be: "
            f"{told(error)}; make them plain where it is made, as torch.nn.utils.prune.remove does"
        ) from None


def _applied(module: nn.Module, samples: Any, masks: Masks) -> dict[str, bool]:
    """Return the parameters that the module applies by itself, past its layers, and whether they lie as (in, out).

    A table that is looked up as well is none of them.
    """
    known = _kernels(module, as_torch_does=True)
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
    given = arguments_of(module, samples)
    with as_it_was(module), deterministic(0):  # for samples go through once more
        captured = capture_all(module, given.values, keywords=given.keywords, masks=masks, products=True)
    return {name: flip for name, flip in captured.applied.items() if name in others}


def _kernels(module: nn.Module, as_torch_does: bool = False) -> dict[str, nn.Parameter]:
    """Return the matrices and kernels of the layers that can be simulated, by the name a parameter has first.

    ``as_torch_does``: only of those that apply them in torch's own way, as (out, in).
    """
    owned = {
        id(parameter)
        for part in module.modules()
        if any(isinstance(part, kind) and (not as_torch_does or type(part).forward is kind.forward) for kind in OWNERS)
        for name, parameter in part.named_parameters(recurse=False)
        if parameter.ndim > 1 and WEIGHT.fullmatch(name)
    }
    return {name: parameter for name, parameter in module.named_parameters() if id(parameter) in owned}


def _is_real(parameter: torch.Tensor) -> bool:
    """Tell whether ``parameter`` can be pruned: layers of complex numbers, or of none, are not simulated."""
    return not parameter.is_complex() and 0 not in parameter.shape


def _weight(parameter: torch.Tensor) -> np.ndarray:
    found: np.ndarray = parameter.detach().to("cpu", torch.float32).numpy()
    return found


def _notes(captured: Captured, left: Mapping[str, str]) -> dict[str, Any]:
    notes = {
        "not_simulated": captured.not_simulated,
        "uses": captured.uses,
        "padded": captured.padded,
        "folded": captured.folded,
        "not_pruned": dict(left),
    }
    return {name: note for name, note in notes.items() if note}
