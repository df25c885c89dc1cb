"""Reading PyTorch's pickled files without running any code that a pickle names.

Plain state dicts are read by PyTorch's own `weights_only` loader. The files of distributed trainers name classes of
torch.distributed that change from release to release. They are read by an unpickler that knows only tensors and plain
containers, and makes an `Inert` record for an object of any other torch class. Everything else is refused.
"""

from __future__ import annotations

import io
import pickle
import re
import types
import zipfile
from collections import OrderedDict
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rammerge.checkpoints.headers import LFS_POINTER, refuse_lfs_pointer
from rammerge.errors import InputError
from rammerge.system.lazy import torch
from rammerge.system.reading import open_regular, quote, read_exactly, read_start, stat_file

_REAL: Mapping[tuple[str, str], Any] = {
    ("collections", "OrderedDict"): OrderedDict,
    ("torch", "Size"): tuple,
    ("torch._utils", "_rebuild_parameter"): lambda data, *_: data,
}
# Functions that rebuild tensors. Each one checks its arguments against the storage and runs nothing else.
_REBUILDING = {"_rebuild_tensor", "_rebuild_tensor_v2"}
_PLAIN_TENSORS = ("torch.Tensor", "torch.nn.parameter.Parameter", "torch.nn.parameter.Buffer")
_MEMBER = {("builtins", "getattr"), ("__builtin__", "getattr")}
# Keys under which trainers put a model's tensors beside other state, in the order of preference.
_MODEL_KEYS = ("state_dict", "model_state_dict", "model", "module")
# What torch says of a global that it does not load, and the colors in its messages.
_REFUSED_GLOBAL = re.compile(r"GLOBAL ([\w.]+) was not an allowed global")
_ANSI = re.compile(r"\x1b\[[0-9;]*[A-Za-z]")
_MAX_METADATA_BYTES = 1 << 30


class Inert:
    """A record in place of an object whose class is not imported.

    Attributes:
        origin: `module.name` of the class or function that the pickle names.
        args: the arguments that the pickle passes to it.
        state: the state that the pickle sets on the object afterwards, or None.
    """

    origin = ""

    def __new__(cls, *args: Any, **_: Any) -> Inert:
        """Keep the arguments that the pickle passes to the real class."""
        record = super().__new__(cls)
        record.args = args
        record.state = None
        return record

    def __init__(self, *_: Any, **__: Any) -> None:
        self.args: tuple[Any, ...]
        self.state: Any

    def __setstate__(self, state: Any) -> None:
        self.state = state

    def get(self, name: str, default: Any = None) -> Any:
        """Return the attribute `name` that the pickle sets, or `default`."""
        return attributes(self.state).get(name, default)

    @classmethod
    def is_a(cls, name: str) -> bool:
        """Return whether the class is called `name`, in any module: releases differ."""
        return cls.origin.rpartition(".")[2] == name


def attributes(state: Any) -> Mapping[str, Any]:
    """Return the attributes in a pickled state, which is a dict, or with __slots__ a pair of dicts or None."""
    halves = state if isinstance(state, tuple) else (state,)
    return {name: value for half in halves if isinstance(half, dict) for name, value in half.items()}


def _inert(origin: str) -> type[Inert]:
    return type("Inert", (Inert,), {"origin": origin})


def _member(owner: type[Inert], name: str) -> type[Inert]:
    """Replace `getattr`, by which pickles name nested classes and members of enumerations."""
    return _inert(f"{owner.origin}.{name}")


def _typed(rebuild: Any, kind: Any, args: tuple[Any, ...], state: Any) -> Any:
    """Stand in for `torch._tensor._rebuild_from_type_v2`: a plain tensor with attributes is the tensor alone.

    FSDP on one GPU saves such tensors. Every other type, a sharded one say, stays a record.
    """
    if not isinstance(rebuild, type) and getattr(kind, "origin", None) in _PLAIN_TENSORS:
        return rebuild(*args)
    return _inert("torch._tensor._rebuild_from_type_v2")(rebuild, kind, args, state)


class _Unpickler(pickle.Unpickler):
    """Makes only tensors, containers and inert records, whatever a pickle names."""

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) in _REAL:
            return _REAL[module, name]
        if (module, name) == ("torch._tensor", "_rebuild_from_type_v2"):
            return _typed
        if module == "torch._utils" and name in _REBUILDING:
            return getattr(torch._utils, name)
        if module == "torch" and isinstance(found := getattr(torch, name, None), torch.dtype):
            return found
        if (module, name) in _MEMBER:
            return _member
        if module.split(".")[0] in ("torch", "pathlib"):
            return _inert(f"{module}.{name}")
        raise InputError(f"it holds a pickled {quote(f'{module}.{name}')}, which is not a weight")


# torch.load takes a pickle module and uses only this class of it.
_RESTRICTED = types.ModuleType("restricted_pickle")
_RESTRICTED.__dict__["Unpickler"] = _Unpickler


def load_state_dict(file: Path) -> dict[str, torch.Tensor]:
    """Return the tensors by name of a state dict that torch.save wrote. They are mapped where possible, not read.

    Raises:
        InputError: the file contains anything but tensors by name, or cannot be read.
    """
    stat_file(file)
    try:
        start = read_start(file, len(LFS_POINTER))
        if start == LFS_POINTER:
            raise refuse_lfs_pointer(file)
        zipped = start.startswith(b"PK\x03\x04")
        content = torch.load(file, map_location="cpu", weights_only=True, mmap=zipped)
    except InputError:
        raise
    except Exception as error:  # torch raises errors of many kinds for files that it cannot read
        raise _refuse(file, error) from error
    tensors = _flat(content)
    if tensors is None:
        raise InputError(f"{file} does not contain only tensors by name; save the model with save_pretrained")
    return {name: value.detach() for name, value in tensors.items()}


def _flat(content: Any) -> dict[str, torch.Tensor] | None:
    """Return the tensors of a state dict by name, or None if `content` is not a state dict.

    Where a trainer keeps several state dicts beside other state, the names begin with the keys that lead to them,
    unless one of these keys is known to be the model's.
    """
    while isinstance(content, dict) and (key := next((k for k in _MODEL_KEYS if _is_dict(content.get(k))), None)):
        content = content[key]
    if not isinstance(content, dict) or not all(isinstance(name, str) for name in content):
        return None
    if all(_is_weight(value) for value in content.values()):
        return content
    nested = {name: value for name, value in content.items() if _is_dict(value)}
    if not nested or any(isinstance(value, torch.Tensor) for value in content.values()):
        return None
    found = {f"{key}.{name}": tensor for key, value in nested.items() for name, tensor in (_flat(value) or {}).items()}
    return found or None


def _is_dict(value: object) -> bool:
    return isinstance(value, dict) and bool(value)


def load_records(file: Path) -> Any:
    """Return the content that torch.save wrote into the zip `file`: tensors mapped from it, and inert records."""
    stat_file(file)
    try:
        with zipfile.ZipFile(file) as archive:
            if any(name.endswith("constants.pkl") for name in archive.namelist()):
                raise InputError("it is a TorchScript program")
        return torch.load(file, map_location="cpu", weights_only=False, pickle_module=_RESTRICTED, mmap=True)
    except Exception as error:
        raise _refuse(file, error) from error


def load_metadata(file: Path) -> Any:
    """Return the content of the plain pickle `file` as containers and inert records."""
    with open_regular(file) as (descriptor, size):
        if size > _MAX_METADATA_BYTES:
            raise InputError(f"{file} is too long for metadata ({size} bytes); save the checkpoint again")
        content = read_exactly(descriptor, size, 0, file)
    try:
        return _Unpickler(io.BytesIO(content)).load()
    except Exception as error:  # a pickle can make its reader raise any error
        raise _refuse(file, error) from error


def load_tensor(content: bytes | bytearray, what: Path) -> torch.Tensor:
    """Return the tensor that torch.save wrote as `content`, which is a part of the file `what`."""
    try:
        tensor = torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)
    except Exception as error:
        raise _refuse(what, error) from error
    if not isinstance(tensor, torch.Tensor) or not is_backed(tensor):
        raise InputError(f"{what} does not contain a tensor where its metadata says so; save it again")
    return tensor.detach()


def is_backed(tensor: torch.Tensor) -> bool:
    """Return whether every element has its own bytes. With strides of 0 a small file can claim a huge tensor."""
    return tensor.layout == torch.strided and tensor.untyped_storage().nbytes() >= tensor.numel() * tensor.itemsize


def _is_weight(value: object) -> bool:
    return isinstance(value, torch.Tensor) and is_backed(value)


def _refuse(file: Path, error: Exception) -> InputError:
    said = _ANSI.sub("", str(error)).strip()
    if found := _REFUSED_GLOBAL.search(said):
        reason = f"it holds a pickled {found[1]}, which is not a weight"
    else:
        # Of a damaged file torch may say no more than the byte or the key that it missed.
        reason = said.splitlines()[0] if " " in said else f"it is damaged or was not written by torch.save ({said})"
    return InputError(
        f"{file} was not unpickled, because {quote(reason)[1:-1]}; save the model as safetensors with save_pretrained"
    )
