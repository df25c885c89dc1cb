"""Options for computing and writing a merge."""

import os
from dataclasses import dataclass
from typing import Literal, get_args

from rammerge.errors import InputError, check_choice
from rammerge.numerics.rounding import Rounding
from rammerge.system.lazy import torch

Dtype = Literal["float32", "bfloat16", "float16"]
Compile = Literal["auto", "always", "never"]


@dataclass(frozen=True)
class MergeOptions:
    """How to compute and write. Only the first four fields change the bytes of the result.

    Attributes:
        dtype: output dtype of float tensors: float32, bfloat16 or float16.
        rounding: nearest or stochastic.
        seed: run seed of stochastic rounding and of methods that draw random numbers.
        shard_size: largest output shard in bytes.
        device: cpu or cuda, or cuda:N.
        memory: limit of the process's resident bytes; a limit that is too small is refused. Default: 1 GiB, or 512 MiB
            on top of what the process already holds, whichever is larger.
        threads: worker threads; default: one for each processor that this process may use and `memory` has room for.
        compile: auto (where the work repays it), always or never.
        device_memory: limit of what blocks and matrices take on a GPU, in bytes; default: half of what is free there.

    Raises:
        InputError: a value is none of these, or a number is too small.
    """

    dtype: Dtype = "float32"
    rounding: Rounding = "nearest"
    seed: int = 0
    shard_size: int = 5_000_000_000
    device: str = "cpu"
    memory: int | None = None
    threads: int | None = None
    compile: Compile = "auto"
    device_memory: int | None = None

    def __post_init__(self) -> None:
        for name, choices in (("dtype", Dtype), ("rounding", Rounding), ("compile", Compile)):
            check_choice(name, getattr(self, name), get_args(choices))
        if not 0 <= self.seed < 1 << 63:
            raise InputError(f"seed {self.seed} is out of range; use a number from 0 to 2**63 - 1")
        for name, least in (("shard_size", 1), ("memory", 1), ("threads", 1), ("device_memory", 1)):
            value = getattr(self, name)
            if value is not None and value < least:
                raise InputError(f"{name} {value} is too small; give at least {least}")


def most_threads(options: MergeOptions) -> int:
    """Return the largest number of worker threads."""
    return options.threads or len(os.sched_getaffinity(0))


def check_device(name: str) -> str:
    """Return `name` if this machine has the device; `cpu` is returned without a number.

    Raises:
        InputError: the machine does not have it.
    """
    if name == "cpu":
        return name
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise InputError(f"unknown device '{name}'; use cpu, cuda or cuda:N") from error
    if device.type not in ("cpu", "cuda"):
        raise InputError(f"device '{name}' is not supported; use cpu, cuda or cuda:N")
    if device.type == "cpu":
        return device.type
    if not torch.cuda.is_available():
        raise InputError(f"device '{name}' cannot be used, because this machine has no CUDA device; use --device cpu")
    if (device.index or 0) >= (there := torch.cuda.device_count()):
        known = "cuda:0" if there == 1 else f"cuda:0 to cuda:{there - 1}"
        raise InputError(f"device '{name}' cannot be used, because this machine does not have it; use {known}")
    return name
