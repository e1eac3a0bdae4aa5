"""From any network to the layers of a trace: samples go through, and what every layer was fed is kept.

Each matrix or kernel of the network is a layer, in the order of first use:

- Linear, Conv2d, Conv1d (a convolution of height 1) and SparseConv3d: under the module's name.
- MultiheadAttention: ``.q_proj``, ``.k_proj``, ``.v_proj`` and ``.out_proj``, linear.
- With ``products``, products of activations, as Q K^T and softmax(..) V of an attention: ``.matmul1``, ``.matmul2``
  and so on of the module that forms them.
- LSTM, GRU, RNN and their cells: ``.ih`` fed with x(t) and ``.hh`` with h(t-1) of every step, linear, the gates below
  one another as torch keeps them and as EIE's NT-LSTM (Han et al., ISCA 2016, table III) has them; one pair for each
  layer and direction.

- With ``products``, weights that the network applies by itself, as `F.linear(x, w)` or a convolution of its own: linear
  or conv2d, under the parameter's name.

What has parameters and is none of these (embeddings, norms, parameters of the user's own) is named, not dropped.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from ..errors import InputError
from ..files.container import one_line
from ..networks.sparse_convolutional import SparseConv3d
from ..patterns import Pattern
from ..pruning import Masks
from ..rules import UNTRAINED
from ..trace import Layer
from .calls import CELLS, KERNELS, RECURRENT, Call, NotSimulatedError, calls_of
from .fold import Folds, folded
from .packed import unpacked
from .products import Products
from .shared_maps import built_once
from .uses import IDLE, fed, grouped, layer_of

ADDED = ("_k", "_v")  # bias_k and bias_v of an attention: one more key and value, multiplied with nothing
EXPECTED = (RuntimeError, ValueError, TypeError, IndexError)  # whose texts say what kind they are
EMBEDDINGS = (nn.Embedding, nn.EmbeddingBag)
SIMULATED = (*KERNELS, SparseConv3d, nn.MultiheadAttention, *RECURRENT, *CELLS)


@dataclass(frozen=True, eq=False)
class Captured:
    """What went through a network.

    ``outputs``: what the network returned, a tensor or whatever it returns. ``not_simulated``: by the name of a module
    or parameter, why no layer stands for it. ``uses``: of layers that the network uses more than once, how often; their
    inputs follow one another along the batch. ``padded``: of layers whose input channels were no whole number of N:M
    groups and were lengthened by zeros, weights and activations, from how many to how many. ``folded``: by layer, the
    batch norm that its weight and bias hold. ``applied``: the parameters that the network applies by itself and that
    are the weight of a layer as they are, and whether they lie as (in, out); ``alone``: the layers of what it applies.
    """

    layers: list[Layer]
    outputs: Any
    not_simulated: dict[str, str]
    uses: dict[str, int]
    padded: dict[str, str]
    folded: dict[str, str]
    applied: dict[str, bool]
    alone: frozenset[str]


def capture(
    module: nn.Module,
    samples: torch.Tensor | tuple[torch.Tensor, ...],
    *,
    masks: Masks | None = None,
    patterns: Mapping[str, Pattern] | None = None,
    products: bool = False,
    fold_batch_norm: bool = False,
) -> list[Layer]:
    """Return the layers of ``module`` with what they were fed when it took ``samples``; see `capture_all`."""
    return capture_all(
        module, samples, masks=masks, patterns=patterns, products=products, fold_batch_norm=fold_batch_norm
    ).layers


def capture_all(
    module: nn.Module,
    samples: torch.Tensor | tuple[torch.Tensor, ...],
    *,
    masks: Masks | None = None,
    patterns: Mapping[str, Pattern] | None = None,
    products: bool = False,
    fold_batch_norm: bool = False,
    keywords: Mapping[str, torch.Tensor] | None = None,
) -> Captured:
    """Return the layers of ``module`` in the order of first use, its outputs, and what is not simulated.

    ``samples``: one batch, or a tuple of them where the network takes several arguments; ``keywords``: those that it
    takes by name. The network is run in
    evaluation mode with the weights multiplied by ``masks``, and is left as it was. ``masks`` and ``patterns`` are by
    parameter name; without a pattern a masked parameter is unstructured and any other one dense. Zeros stay zeros, and
    negative zeros become them. A layer fed with inputs of several sizes is one layer a size: ``head``, ``head (2)``;
    so are uses of a weight that differ in its numbers, as a slice does, in the bias or in the stride; see `grouped`.
    A sparse convolution, where all clouds of a batch share a space, is one layer a use.
    Input channels that groups of an N:M pattern do not tile are lengthened by zeros. Weights that torch keeps in its
    semi-structured form are taken out of it, and are 2:4. ``products``: keep the products of activations too, layers of
    op ``matmul``, which not every machine runs. ``fold_batch_norm`` puts batch norms into the linear and convolution
    layers that feed them and nothing else; see `fold`. Weights that are 0 stay 0.
    Raises InputError for masks and patterns of unknown parameters, for samples that the network does not take, and for
    a network without any layer that can be simulated.
    """
    masks, patterns = dict(masks or {}), dict(patterns or {})
    parameters = dict(module.named_parameters())
    _check(parameters, masks, patterns)
    dense, promised = unpacked(parameters)
    patterns = promised | patterns
    masked = dense | {
        name: torch.where(torch.from_numpy(mask).to(parameters[name].device), (parameters | dense)[name], 0).detach()
        for name, mask in masks.items()
    }
    calls: list[Call] = []
    arguments = samples if type(samples) is tuple else (samples,)  # a packed sequence is a tuple by kind
    given = [*arguments, *(keywords or {}).values()]
    seer = None
    if products:
        first: Any = given[0] if given else None
        batch = len(first) if getattr(first, "ndim", 0) else 1
        buffers = dict(module.named_buffers())
        named = {name: masked.get(name, tensor) for name, tensor in (buffers | parameters).items()}
        seer = Products(named, batch, calls, masks, buffers)
    folds = Folds() if fold_batch_norm else None
    refused: dict[str, str] = {}
    with torch.no_grad(), _watched(module, calls, refused, seer, folds):
        try:
            outputs = torch.func.functional_call(module, masked, arguments, dict(keywords or {}))
        except InputError:
            raise
        except Exception as error:  # of the network's own code, whatever it met
            shapes = ", ".join(str(tuple(getattr(value, "shape", ()))) for value in given)
            raise InputError(f"the network must take samples of shape {shapes}, and does not: {told(error)}") from error
    affines = {} if folds is None else folds.found(outputs)
    calls, idle = fed(folded(call, affines) for call in calls)
    used = {call.owner for call in calls if call.op not in UNTRAINED and not call.alone}
    active = {owner or type(module).__name__.lower() for owner in used} | {call.layer for call in calls}
    refused = idle | {name: why for name, why in refused.items() if why is not IDLE or name not in active}
    names = _parameter_names(module)
    layers, uses, padded, norms, alone = [], {}, {}, {}, set[str]()
    for group in grouped(built_once(calls), names):
        layers.append(layer_of(group, names, masks, patterns))
        alone |= {layers[-1].name} if all(call.alone for call in group) else set()
        if layers[-1].op not in UNTRAINED and layers[-1].shape[1] > group[0].weight.shape[1]:
            padded[layers[-1].name] = f"input channels from {group[0].weight.shape[1]} to {layers[-1].shape[1]}"
        if len(group) > 1:
            uses[layers[-1].name] = len(group)
        if group[0].owner in affines:
            norms[layers[-1].name] = affines[group[0].owner].norm
    applied = None if seer is None else seer.applied
    refused |= {} if applied is None else _without_own(module, applied.left)
    if not layers and refused:
        why = "; ".join(f"{name}, {reason}" for name, reason in list(refused.items())[:3])
        raise InputError(f"the network must have a layer that can be simulated, and has none: {why}")
    if not layers:
        met = ", ".join(dict.fromkeys(type(part).__name__ for part in module.modules()))
        known = ", ".join(kind.__name__ for kind in SIMULATED)
        raise InputError(f"the network must use at least one of {known}, and has {met}; use one of them")
    held = set() if applied is None else applied.taken
    gone = set() if folds is None else folds.gone(affines)
    missing = _not_simulated(module, used, held, products)
    refused = {name: why for name, why in refused.items() if name.rpartition(".")[0] not in missing}
    missing = {name: why for name, why in (missing | refused).items() if name not in gone}
    flipped = {} if applied is None else applied.flipped
    return Captured(layers, outputs, missing, uses, padded, norms, flipped, frozenset(alone))


def _without_own(module: nn.Module, left: Mapping[str, str]) -> dict[str, str]:
    """Return ``left`` without modules of torch with weights of their own: these are listed by their kinds."""
    parts = {name or "network": part for name, part in module.named_modules()}
    own = {
        name
        for name, part in parts.items()
        if type(part).__module__.startswith("torch.nn.modules.")
        and not _is_simulated(part)
        and any(True for _ in part.parameters(recurse=False))
    }
    return {name: why for name, why in left.items() if name not in own}


def told(error: BaseException) -> str:
    """Return what ``error``, of somebody's own code, says in one line, and of which kind it is where it does not."""
    if isinstance(error, EXPECTED) and str(error):
        return one_line(error)
    return f"{type(error).__name__} {one_line(error)}".rstrip()


def _check(parameters: dict[str, nn.Parameter], masks: Masks, patterns: dict[str, Pattern]) -> None:
    for what, named in (("mask", masks), ("pattern", patterns)):
        for name in named:
            if name not in parameters:
                raise InputError(f"a {what} must be of a parameter of the network, and {name!r} is none of them")
    for name, mask in masks.items():
        shape = tuple(parameters[name].shape)
        if mask.dtype != bool or mask.shape != shape:
            raise InputError(f"the mask of {name} must be bool {shape}, not {mask.dtype} {mask.shape}")


@contextmanager
def _watched(
    module: nn.Module, calls: list[Call], refused: dict[str, str], products: Products | None, folds: Folds | None
) -> Iterator[None]:
    """Put every call of a layer into ``calls``, in evaluation mode and by the plain ways of computing; then restore.

    Calls that are no layers come into ``refused``, with the reason.
    """
    modes = {part: part.training for part in module.modules()}
    fast = torch.backends.mha.get_fastpath_enabled()
    handles = []
    try:
        try:
            module.eval()
        except Exception as error:  # of the network's own code, whatever it met
            raise InputError(f"the network must take the mode of evaluation, and does not: {told(error)}") from None
        for name, part in module.named_modules():
            if products is not None:
                handles.append(part.register_forward_pre_hook(_entering(name, _is_simulated(part), products)))
            if _is_simulated(part):
                handles.append(part.register_forward_hook(_watch(name, calls, refused, products), with_kwargs=True))
            if products is not None:
                handles.append(part.register_forward_hook(_leaving(name, products), always_call=True))
        if folds is not None:
            handles += folds.watch(module, _is_simulated)
        torch.backends.mha.set_fastpath_enabled(False)  # it passes by the modules, and so by the hooks
        with ExitStack() as stack:
            if products is not None:
                stack.enter_context(sdpa_kernel(SDPBackend.MATH))  # any other forms both products in one operation
                stack.enter_context(products)
            if folds is not None:
                stack.enter_context(folds.mode)
            yield
    finally:
        torch.backends.mha.set_fastpath_enabled(fast)
        for handle in handles:
            handle.remove()
        for part, mode in modes.items():
            part.training = mode


def _entering(name: str, layer: bool, products: Products) -> Callable[..., None]:
    return lambda module, arguments: None if products.paused else products.enter(name, layer)


def _leaving(name: str, products: Products) -> Callable[..., None]:
    return lambda module, arguments, output: None if products.paused else products.leave(name)


def _watch(name: str, calls: list[Call], refused: dict[str, str], products: Products | None) -> Callable[..., None]:
    busy = False

    def hook(module: nn.Module, arguments: tuple[Any, ...], keywords: dict[str, Any], output: Any) -> None:
        nonlocal busy
        if busy:  # calls_of runs the module again
            return
        first = arguments[0] if arguments else next(iter(keywords.values()), None)
        if isinstance(first, torch.Tensor) and not first.numel():
            refused.setdefault(name or type(module).__name__.lower(), IDLE)
            return
        busy = True
        if products is not None:
            products.paused = True
        try:
            own = calls_of(name, module, arguments, keywords)
            # An attention multiplies between its projections and the last matrix.
            between = products.take(len(own[0].inputs)) if products is not None and len(own) > 1 else []
            calls.extend([*own[:-1], *between, *own[-1:]])
        except NotSimulatedError as reason:
            refused[name or type(module).__name__.lower()] = str(reason)
        finally:
            busy = False
            if products is not None:
                products.paused = False

    return hook


def _is_simulated(module: nn.Module) -> bool:
    """Tell whether the module computes what torch's own of its kind does: a subclass may not override ``forward``."""
    return any(isinstance(module, kind) and type(module).forward is kind.forward for kind in SIMULATED)


def _parameter_names(module: nn.Module) -> dict[str, str]:
    """Return under which name masks know a parameter, for every name that it has: shared ones have several."""
    first: dict[int, str] = {}
    return {
        name: first.setdefault(id(parameter), name)
        for name, parameter in module.named_parameters(remove_duplicate=False)
    }


def _not_simulated(module: nn.Module, used: set[str], held: set[str], products: bool) -> dict[str, str]:
    """Return why modules, and parameters of modules that hold others, are no layers of the trace; ``held`` are."""
    found = {}
    attention = {name for name, part in module.named_modules() if isinstance(part, nn.MultiheadAttention)}
    for name, part in module.named_modules():
        own = [key for key, _ in part.named_parameters(recurse=False)]
        if not isinstance(part, EMBEDDINGS):  # these look up besides
            kept = [key for key in own if f"{name}.{key}".removeprefix(".") not in held]
            own = [] if _is_simulated(part) and len(kept) < len(own) else kept  # a bias alone is added elsewhere
        kind = type(part).__name__
        if name in used:
            if name in attention:
                if not products:
                    found[name or kind.lower()] = "products of activations in MultiheadAttention"
                found |= {f"{name}.{key}".removeprefix("."): f"parameter of {kind}" for key in own if key[-2:] in ADDED}
        elif name.rpartition(".")[0] in attention and name.endswith("out_proj"):
            continue
        elif own and _is_simulated(part):
            found[name or kind.lower()] = f"{kind}, not used"
        elif own and type(part).__module__.startswith("torch."):
            found[name or kind.lower()] = kind
        else:
            found |= {f"{name}.{key}".removeprefix("."): f"parameter of {kind}" for key in own}
    return found
