"""Tensors by name as files of state dicts hold them: what each is at once, and its values when they are asked for.

`.safetensors`, one file or the shards that a `.safetensors.index.json` names, are read a tensor at a time; what
torch.save wrote is unpickled whole, no code of it run, and made numpy's a tensor at a time.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from ..errors import InputError
from ..extras import need
from ..files.container import DTYPES, one_line, read_bytes
from ..files.masked import array_of_tensor, natural
from ..files.npy import read_npz
from ..files.numbers import NARROW
from ..files.streamed import StreamedContainer
from ..limits import ELEMENTS_LIMIT, room

PICKLED = (".pt", ".pth", ".bin", ".ckpt")
SUFFIXES = (".safetensors", ".npz", *PICKLED)
INDEX = ".safetensors.index.json"
UNDER = (
    "state_dict", "model_state_dict", "model_state", "model", "module", "net", "network", "weights", "params", "ema",
)  # fmt: skip
FOREIGN = re.compile(r"GLOBAL (?P<name>[\w.]*\w)")


@dataclass(frozen=True, slots=True)
class Info:
    """What is known of a tensor that is not read yet: its shape, and numpy's name of the dtype it will have."""

    shape: tuple[int, ...]
    dtype: str

    @property
    def ndim(self) -> int:
        """Count the dimensions."""
        return len(self.shape)


@dataclass(frozen=True, eq=False)
class Tensors:
    """The tensors of a state dict, numbers in names by value.

    ``read`` gives the values of one; floats that float32 can hold may come as such. ``left``: those that are not to be
    read, with the reason.
    """

    infos: Mapping[str, Info]
    read: Callable[[str], np.ndarray]
    left: Mapping[str, str] = field(default_factory=dict)


class _Index(msgspec.Struct):
    weight_map: dict[str, str]


def open_state_dict(path: Path) -> Tensors:
    """Return the tensors of the state dict in ``path``. Raises InputError naming file, rule and value."""
    if path.name.lower().endswith(INDEX):
        return _of_shards(path)
    match path.suffix.lower():
        case ".safetensors":
            container = StreamedContainer(path, "a state dict", any_dtype=True)
            return _of_containers(dict.fromkeys(container.tensors, container), _unread(container))
        case ".npz":
            arrays = read_npz(path)
            infos = {name: Info(array.shape, array.dtype.name) for name, array in arrays.items()}
            return Tensors(infos, arrays.__getitem__)
        case suffix if suffix in PICKLED:
            return _unpickled(path)
        case suffix:
            raise InputError(
                f"{path}: the name of a state dict must end in {', '.join(SUFFIXES)} or {INDEX}, not {suffix!r}"
            )


def _of_containers(found: Mapping[str, StreamedContainer], left: Mapping[str, str]) -> Tensors:
    """Return the tensors called as the keys of ``found``, each from its container."""

    def read(name: str) -> np.ndarray:
        as_float32 = found[name].tensors[name].dtype in ("F64", "F16", *NARROW)
        return array_of_tensor(name, *found[name].read(name, as_float32=as_float32))

    infos = {}
    own = dict.fromkeys(NARROW, "float32") | {"BOOL": "bool"}
    for name in sorted(found, key=natural):
        tensor = found[name].tensors[name]
        dtype = own.get(tensor.dtype) or np.dtype(DTYPES[tensor.dtype]).name
        infos[name] = Info(tensor.shape, dtype)
    return Tensors(infos, read, left)


def _of_shards(path: Path) -> Tensors:
    """Return the tensors that the index ``path`` finds in the files beside it."""
    try:
        index = msgspec.json.decode(read_bytes(path, "an index of shards"), type=_Index)
    except (msgspec.MsgspecError, UnicodeError, RecursionError) as error:
        raise InputError(
            f"{path}: an index of shards must be JSON with a weight_map of file names by tensor, and is not "
            f"({one_line(error)}); copy or write it again"
        ) from None
    shards: dict[str, StreamedContainer] = {}
    found: dict[str, StreamedContainer] = {}
    left: dict[str, str] = {}
    for name, file in index.weight_map.items():
        if file not in shards:
            if Path(file).name != file or not file.lower().endswith(".safetensors"):
                raise InputError(
                    f"{path}: a shard must be a .safetensors file beside the index, not {one_line(file)!r}; rename it"
                )
            shards[file] = StreamedContainer(path.parent / file, "a shard", any_dtype=True)
            left |= _unread(shards[file])
        if name in shards[file].unreadable:
            continue
        if name not in shards[file].tensors:
            raise InputError(
                f"{path}: tensor {one_line(name)!r} must be in {file}, as the index has it, and is not; "
                "copy index and shards again"
            )
        found[name] = shards[file]
    for file, shard in shards.items():
        left |= {name: f"in {file}, and not in the index" for name in shard.tensors if name not in found}
    return _of_containers(found, left)


def _unread(container: StreamedContainer) -> dict[str, str]:
    return {name: f"{dtype} is no weight" for name, dtype in container.unreadable.items()}


def _unpickled(path: Path) -> Tensors:
    """Return the tensors of what torch.save wrote, no code of it run."""
    need("train", "torch")
    import warnings

    import torch

    try:
        # A sparse tensor whose indices lie outside of it would have torch write there.
        with warnings.catch_warnings(), torch.sparse.check_sparse_tensor_invariants():  # type: ignore[no-untyped-call]
            warnings.simplefilter("ignore")  # of torch, on formats it will give up
            loaded = torch.load(path, map_location="cpu", weights_only=True)
    except OSError as error:
        reason = one_line(error.strerror or error)
        raise InputError(f"{path}: a state dict must be a readable file, and {reason}; check the path") from None
    except Exception as error:  # the unpickler and zip raise whatever the damage leads them into
        raise InputError(
            f"{path}: the file must hold tensors alone to be read without running code of it, and does not "
            f"({_obstacle(error):.120}); save model.state_dict(), best as .safetensors"
        ) from None
    state = _state_in(loaded)
    if state is None:
        met = f"the keys {', '.join(map(str, loaded))}" if isinstance(loaded, Mapping) else type(loaded).__name__
        raise InputError(f"{path}: the file must hold a state dict, and has {met:.200}; save model.state_dict()")
    infos = {}
    for name, tensor in state.items():
        most = min(ELEMENTS_LIMIT, room(_held(tensor)))
        if tensor.numel() > most:
            raise InputError(
                f"{path}: tensor {one_line(name)}: a tensor must have at most {most} elements, "
                f"not {tuple(tensor.shape)} made of {_held(tensor)} that the file holds; save it whole"
            )
        own = str(tensor.dtype).removeprefix("torch.")
        infos[name] = Info(tuple(tensor.shape), "float32" if tensor.is_quantized or _is_narrow(tensor) else own)
    return Tensors(infos, lambda name: _array(state[name], path, name))


def _obstacle(error: Exception) -> str:
    """Return what stands in the way of reading a pickle without code, as torch tells it."""
    if "TorchScript" in str(error):
        return "it is a TorchScript archive, which is a program"
    found = FOREIGN.search(str(error))
    return f"it needs {found['name']}" if found else one_line(error).partition(". ")[0]


def _state_in(loaded: object) -> dict[str, Any] | None:
    """Return the tensors by name in ``loaded``, a state dict or a checkpoint that holds one."""
    import torch

    if not isinstance(loaded, Mapping):
        return None
    if loaded and all(isinstance(key, str) and isinstance(value, torch.Tensor) for key, value in loaded.items()):
        return dict(loaded)
    named = next((state for key in UNDER if key in loaded and (state := _state_in(loaded[key])) is not None), None)
    if named is not None:
        return named
    within = [value for value in loaded.values() if isinstance(value, Mapping) and _state_in(value) is not None]
    if len(within) == 1:  # under a name of the user's own
        return _state_in(within[0])
    # A state dict may hold what is no tensor beside its tensors, as numbers that a module keeps there.
    tensors = {key: value for key, value in loaded.items() if isinstance(value, torch.Tensor)}
    plain = not within and any("." in str(key) for key in tensors)
    return tensors if plain and all(isinstance(key, str) for key in loaded) else None


def _held(tensor: Any) -> int:
    """Count the numbers that the file holds of the tensor: an expanded one repeats them, a sparse one has zeros too."""
    import torch

    if tensor.layout == torch.sparse_coo:
        return int(tensor._values().numel())
    if tensor.layout != torch.strided:
        return int(tensor.values().numel())
    return int(min(tensor.numel(), tensor.untyped_storage().nbytes() // tensor.element_size()))


def _is_narrow(tensor: Any) -> bool:
    """Tell whether the tensor is of floats that numpy has not: bfloat16 and narrower."""
    import torch

    return tensor.dtype.is_floating_point and tensor.dtype not in (torch.float16, torch.float32, torch.float64)


def _array(tensor: Any, path: Path, name: str) -> np.ndarray:
    import torch

    try:
        if tensor.is_quantized:
            tensor = tensor.dequantize()
        if tensor.layout != torch.strided:
            tensor = tensor.to_dense()
        if _is_narrow(tensor):
            tensor = tensor.to(torch.float32)
        found: np.ndarray = tensor.detach().numpy()
    except (RuntimeError, TypeError, NotImplementedError) as error:
        raise InputError(
            f"{path}: tensor {one_line(name)}: must be a plain tensor of numbers, and is not: {one_line(error):.120}"
        ) from None
    return found
