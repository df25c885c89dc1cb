"""Reading of PyTorch's pickled files without ever running what a pickle asks for.

Plain state dicts go through PyTorch's own `weights_only` loader. The files of distributed trainers name classes of
torch.distributed that change from release to release; they are read with an unpickler that knows tensors and plain
containers only, and lets an `Inert` record stand in for every object of another torch class. Anything else is refused.
"""

from __future__ import annotations

import io
import pickle
import types
import zipfile
from collections import OrderedDict
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rammerge.errors import InputError
from rammerge.system.lazy import torch
from rammerge.system.reading import open_regular, quote, read_exactly, stat_file

_REAL: Mapping[tuple[str, str], Any] = {
    ("collections", "OrderedDict"): OrderedDict,
    ("torch", "Size"): tuple,
    ("torch._utils", "_rebuild_parameter"): lambda data, *_: data,
}
# What tensors are rebuilt with; each of these checks its arguments against the storage and runs nothing else.
_REBUILDING = {"_rebuild_tensor", "_rebuild_tensor_v2"}
_MEMBER = {("builtins", "getattr"), ("__builtin__", "getattr")}
_MAX_METADATA_BYTES = 1 << 30


class Inert:
    """The record of an object whose class was not imported: what it was to be made from.

    Attributes:
        origin: `module.name` of the class or function that the pickle named.
        args: what the pickle passed to it.
        state: what the pickle set on it afterwards, or None.
    """

    origin = ""

    def __new__(cls, *args: Any, **_: Any) -> Inert:
        """Keep the arguments that the pickle would have called the real class with."""
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
        """Return the attribute `name` that the pickle set, or `default`."""
        return attributes(self.state).get(name, default)

    @classmethod
    def is_a(cls, name: str) -> bool:
        """Return whether the class is called `name`, in whatever module its release keeps it."""
        return cls.origin.rpartition(".")[2] == name


def attributes(state: Any) -> Mapping[str, Any]:
    """Return the attributes in a pickled state: a dict, or with __slots__ the pair (dict or None, dict or None)."""
    halves = state if isinstance(state, tuple) else (state,)
    return {name: value for half in halves if isinstance(half, dict) for name, value in half.items()}


def _inert(origin: str) -> type[Inert]:
    return type("Inert", (Inert,), {"origin": origin})


def _member(owner: type[Inert], name: str) -> type[Inert]:
    """Stand in for the getattr by which pickles name nested classes and members of enumerations."""
    return _inert(f"{owner.origin}.{name}")


class _Unpickler(pickle.Unpickler):
    """Gives a pickle tensors, containers and inert records, whatever it asks for."""

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) in _REAL:
            return _REAL[module, name]
        if module == "torch._utils" and name in _REBUILDING:
            return getattr(torch._utils, name)
        if module == "torch" and isinstance(found := getattr(torch, name, None), torch.dtype):
            return found
        if (module, name) in _MEMBER:
            return _member
        if module.split(".")[0] in ("torch", "pathlib"):
            return _inert(f"{module}.{name}")
        raise InputError(f"it holds a pickled {quote(f'{module}.{name}')}, which is no weight")


# What torch.load takes for the pickle module; it uses nothing but the class.
_RESTRICTED = types.ModuleType("restricted_pickle")
_RESTRICTED.__dict__["Unpickler"] = _Unpickler


def load_state_dict(file: Path) -> dict[str, torch.Tensor]:
    """Return the tensors by name of a state dict that torch.save wrote, mapped rather than read where possible.

    Raises:
        InputError: the file holds anything but tensors by name, or cannot be read.
    """
    stat_file(file)
    try:
        with open_regular(file) as (descriptor, _):
            zipped = bytes(read_exactly(descriptor, 4, 0, file)) == b"PK\x03\x04"
        content = torch.load(file, map_location="cpu", weights_only=True, mmap=zipped)
    except InputError:
        raise
    except Exception as error:  # torch raises errors of every kind for files that it cannot take
        raise _refuse(file, error) from error
    for wrapper in ("state_dict", "model", "module"):
        if isinstance(content, dict) and isinstance(content.get(wrapper), dict):
            content = content[wrapper]
    if not isinstance(content, dict) or not all(_is_weight(name, value) for name, value in content.items()):
        raise InputError(f"{file} does not hold tensors by name alone; save the model with save_pretrained")
    return {name: value.detach() for name, value in content.items()}


def load_records(file: Path) -> Any:
    """Return what torch.save wrote into the zip `file`: real tensors, mapped from it, and inert records."""
    stat_file(file)
    try:
        with zipfile.ZipFile(file) as archive:
            if any(name.endswith("constants.pkl") for name in archive.namelist()):
                raise InputError("it is a TorchScript program")
        return torch.load(file, map_location="cpu", weights_only=False, pickle_module=_RESTRICTED, mmap=True)
    except Exception as error:
        raise _refuse(file, error) from error


def load_metadata(file: Path) -> Any:
    """Return the plain pickle in `file` as containers and inert records."""
    with open_regular(file) as (descriptor, size):
        if size > _MAX_METADATA_BYTES:
            raise InputError(f"{file} is too long for metadata ({size} bytes); save the checkpoint again")
        content = read_exactly(descriptor, size, 0, file)
    try:
        return _Unpickler(io.BytesIO(content)).load()
    except Exception as error:  # a pickle can make its reader raise anything
        raise _refuse(file, error) from error


def load_tensor(content: bytes | bytearray, what: Path) -> torch.Tensor:
    """Return the one tensor that torch.save wrote as `content`, a part of the file `what`."""
    try:
        tensor = torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)
    except Exception as error:
        raise _refuse(what, error) from error
    if not isinstance(tensor, torch.Tensor) or not is_backed(tensor):
        raise InputError(f"{what} holds something else than a tensor where its metadata says one; save it again")
    return tensor.detach()


def is_backed(tensor: torch.Tensor) -> bool:
    """Return whether every element has bytes of its own: strides of 0 make huge tensors of small files."""
    return tensor.layout == torch.strided and tensor.untyped_storage().nbytes() >= tensor.numel() * tensor.itemsize


def _is_weight(name: object, value: object) -> bool:
    return isinstance(name, str) and isinstance(value, torch.Tensor) and is_backed(value)


def _refuse(file: Path, error: Exception) -> InputError:
    reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
    return InputError(
        f"{file} was not unpickled, because {quote(reason)[1:-1]}; save the model as safetensors with save_pretrained"
    )
