"""The dtypes of safetensors files, described without torch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from rammerge.system.lazy import torch


@dataclass(frozen=True, slots=True)
class DType:
    """A dtype of stored elements.

    Attributes:
        name: its name in torch and in recipes.
        code: its name in safetensors headers.
        itemsize: bytes per element.
    """

    name: str
    code: str
    itemsize: int

    def __str__(self) -> str:
        return self.name

    @property
    def is_floating_point(self) -> bool:
        """Whether it is a real floating-point dtype, as opposed to integers, booleans and complex numbers."""
        return self.code.startswith(("F", "BF"))

    @property
    def torch_dtype(self) -> torch.dtype:
        """The torch dtype of the same name."""
        found: torch.dtype = getattr(torch, self.name)
        return found


DTYPES: Mapping[str, DType] = {
    dtype.name: dtype
    for dtype in (
        DType("bool", "BOOL", 1),
        DType("uint8", "U8", 1),
        DType("int8", "I8", 1),
        DType("float8_e5m2", "F8_E5M2", 1),
        DType("float8_e4m3fn", "F8_E4M3", 1),
        DType("float8_e8m0fnu", "F8_E8M0", 1),
        DType("float8_e4m3fnuz", "F8_E4M3FNUZ", 1),
        DType("float8_e5m2fnuz", "F8_E5M2FNUZ", 1),
        DType("int16", "I16", 2),
        DType("uint16", "U16", 2),
        DType("float16", "F16", 2),
        DType("bfloat16", "BF16", 2),
        DType("int32", "I32", 4),
        DType("uint32", "U32", 4),
        DType("float32", "F32", 4),
        DType("int64", "I64", 8),
        DType("uint64", "U64", 8),
        DType("float64", "F64", 8),
        DType("complex64", "C64", 8),
    )
}


def from_torch(dtype: torch.dtype) -> DType | None:
    """Return our dtype for a torch dtype, or None where safetensors files cannot hold it."""
    return DTYPES.get(str(dtype).removeprefix("torch."))
