"""Recording what a block function does to each element, from its operations on a sample.

The operations are seen where torch hands them to its own kernels, whatever Python code makes them, so a formula is
written once, in torch.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from rammerge.engine.blocks import Arguments
from rammerge.errors import RammergeError

_TYPES = {
    torch.float64: "double",
    torch.float32: "float",
    torch.float16: "float16",
    torch.bfloat16: "bfloat16",
    torch.int64: "int64_t",
    torch.int32: "int32_t",
    torch.int16: "int16_t",
    torch.bool: "bool",
}
_COMPUTED = {"double", "float", "int64_t", "int32_t", "int16_t"}
# Keywords that say where a new tensor is to be, and of which dtype; the tensor itself says so, too.
_PLACES = {"device", "dtype", "layout", "memory_format", "pin_memory"}


# (the base's stored elements, each input's, the rest) -> tensors and counts, as of a block function.
Compute = Callable[[Tensor, Sequence[Tensor], Arguments], tuple[list[Tensor], Tensor]]


@dataclass(frozen=True)
class Step:
    """The definition of a value: the C++ type of an element of it, and its C++ expression."""

    type: str
    expression: str


@dataclass(frozen=True)
class Program:
    """What a block function does to each element.

    Attributes:
        inputs: the C++ types of the base's elements and of each agent's.
        steps: values by name, none before those that it uses. They are expressions of elementwise.h in the names that
            rammerge.engine.compiling.source gives.
        results: the values that are the function's tensors, but for those of float64.
        totals: the values that are its tensors of float64, which are summed (rammerge.engine.sums).
        sums: the values whose sums are the function's counts.
        ranked: by each value that is a place in a row, the value whose place it is.
    """

    inputs: tuple[str, ...]
    steps: Mapping[str, Step]
    results: tuple[str, ...]
    totals: tuple[str, ...]
    sums: tuple[str, ...]
    ranked: Mapping[str, str]


def record(function: Compute, base: Tensor, agents: Sequence[Tensor], arguments: Arguments) -> Program:
    """Return what a block function does to inputs of the same dtypes as these.

    Args:
        function: the block function, or one that prepares its inputs.
        base: stored elements, shape [n], where no other tensor has n elements by chance.
        agents: each agent's, likewise.
        arguments: as for the function.

    Raises:
        RammergeError: the function does what elementwise.h does not know, or what is not element-wise, besides the sums
            that it returns.
    """
    recorder = _Recorder([base, *agents], arguments)
    with recorder:
        made, counts = function(base, agents, _Recorded(**vars(arguments), recorder=recorder))
    return recorder.program(made, counts)


@dataclass(frozen=True)
class _Recorded(Arguments):
    """Arguments that have places in rows recorded, and not computed."""

    recorder: _Recorder = field(kw_only=True)

    def places(self, magnitudes: Tensor) -> Tensor:
        return self.recorder.places(magnitudes)


class _Recorder(TorchDispatchMode):  # type: ignore[no-untyped-call]  # torch leaves the class without types
    def __init__(self, inputs: Sequence[Tensor], arguments: Arguments) -> None:
        super().__init__()  # type: ignore[no-untyped-call]  # likewise
        self._inputs = tuple(_type(values) for values in inputs)
        self._length = len(inputs[0])
        self._steps: dict[str, Step] = {}
        self._names: dict[int, str] = {}  # by id
        self._sums: dict[int, tuple[str, ...]] = {}  # by id: what is summed for each of a tensor's elements
        self._ranked: dict[str, str] = {}
        self._alive: list[Any] = []  # an id is a tensor's own as long as the tensor lives
        self._parameters = {
            **_addresses("coefficients", arguments.coefficients),
            **_addresses("seeds", arguments.seeds),
            arguments.threshold.data_ptr(): "threshold",
            arguments.start.data_ptr(): "start",
        }
        for index, values in enumerate(inputs):
            self._define(values, f"load(input{index} + i, left)")

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        """Say no: else torch imports torch.compile, which takes a second, to keep it away from this."""
        return False

    def program(self, made: Sequence[Tensor], counts: Tensor) -> Program:
        """Return what was recorded of the function that returned `made` and `counts`."""
        results = tuple(self._name(values) for values in made if values.dtype != torch.float64)
        totals = tuple(self._name(values) for values in made if values.dtype == torch.float64)
        return Program(self._inputs, self._steps, results, totals, self._summed(counts), self._ranked)

    def places(self, magnitudes: Tensor) -> Tensor:
        """Record places in rows, and return a tensor that stands for them."""
        ranked, made = self._name(magnitudes), torch.ones_like(magnitudes)
        self._define(made, f"places(ranks{len(self._ranked)} + i, left, row)")
        self._ranked[self._name(made)] = ranked
        return made

    def __torch_dispatch__(
        self,
        func: Any,
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        made = func(*args, **(kwargs or {}))
        self._alive.append(made)
        if func._schema.is_mutable or not _PLACES.issuperset(kwargs or {}):
            raise _unknown(func)
        self._record(func.overloadpacket.__name__, args, made)
        return made

    def _record(self, operation: str, args: tuple[Any, ...], made: Any) -> None:
        match operation:
            case "select":
                pass  # of parameters, which are known by their places in memory
            case "sum" if len(args) == 1 and args[0].shape == (self._length,) and made.dtype == torch.float32:
                self._sums[id(made)] = (self._name(args[0]),)
            case "stack":
                self._sums[id(made)] = tuple(name for values in args[0] for name in self._summed(values))
            case "_to_copy" if id(args[0]) in self._sums:
                self._sums[id(made)] = self._sums[id(args[0])]
            case "arange" if args == (self._length,) and made.dtype == torch.int64:
                self._define(made, "indices(i)")
            case "scalar_tensor" | "ones_like" | "zeros_like":
                number = args[0] if operation == "scalar_tensor" else float(operation == "ones_like")
                self._define(made, _number(number, _type(made)))
            case "frexp":
                self._call("exponent", args, made[1])
            case _:
                self._call(operation, args, made)

    def _call(self, operation: str, args: tuple[Any, ...], made: Tensor) -> None:
        if operation not in _OPERANDS:
            raise _unknown(operation)
        name = _NAMES.get(operation, operation)
        computed, types = _OPERANDS[operation](args, _type(made))
        operands = [self._operand(*each) for each in zip(args, types, strict=False)]
        self._define(made, f"{name}<{computed}>({', '.join(operands)})")

    def _define(self, made: Tensor, expression: str) -> None:
        if made.shape not in ((self._length,), ()):
            raise _unknown(f"a tensor of shape {list(made.shape)}")
        name = f"v{len(self._steps)}"
        self._steps[name] = Step(_type(made), expression)
        self._names[id(made)] = name
        self._alive.append(made)

    def _operand(self, operand: Any, kind: str) -> str:
        if not isinstance(operand, Tensor):
            return _number(operand, kind)
        name = self._name(operand)
        return name if kind == _type(operand) else f"cast<{kind}>({name})"

    def _name(self, values: Tensor) -> str:
        parameter = self._parameters.get(values.data_ptr()) if values.shape == () else None
        if id(values) not in self._names and parameter is not None:
            self._define(values, f"constant<{_type(values)}>({parameter})")
        if id(values) not in self._names:
            raise _unknown("a number made of several elements, or not of this block")
        return self._names[id(values)]

    def _summed(self, values: Tensor) -> tuple[str, ...]:
        if id(values) not in self._sums:
            raise _unknown("a count that is not a sum")
        return self._sums[id(values)]


# The type that an operation computes in, and those of its operands, from its arguments and the type of its result.
Types = tuple[str, Sequence[str]]


def _in_result(args: tuple[Any, ...], made: str) -> Types:
    # In float16 and bfloat16 torch rounds numbers first and computes in float32.
    if made not in _COMPUTED:
        raise _unknown(f"arithmetic in {made}")
    return made, [made] * len(args)


def _in_bits(args: tuple[Any, ...], made: str) -> Types:
    return made, [made] * len(args)


def _in_common(args: tuple[Any, ...], _: str) -> Types:
    return _in_result(args, _TYPES.get(torch.result_type(*args), "a dtype without arithmetic"))


def _in_float(args: tuple[Any, ...], _: str) -> Types:
    if _type(args[0]) != "float":
        raise _unknown(f"a function of {_type(args[0])}")
    return "float", ["float", "int32_t"]


def _in_own(args: tuple[Any, ...], made: str) -> Types:
    return made, [_type(args[0])]


def _in_view(args: tuple[Any, ...], made: str) -> Types:
    if not isinstance(args[1], torch.dtype):
        raise _unknown("a view of another shape")
    return made, [_type(args[0])]


def _in_choice(_: tuple[Any, ...], made: str) -> Types:
    return made, ["bool", made, made]


_OPERANDS: Mapping[str, Callable[[tuple[Any, ...], str], Types]] = {
    **dict.fromkeys(("abs", "add", "clamp", "div", "maximum", "minimum", "mul", "neg"), _in_result),
    **dict.fromkeys(("relu", "rsub", "sign", "sub", "__lshift__", "__rshift__"), _in_result),
    **dict.fromkeys(("bitwise_and", "bitwise_or", "bitwise_xor"), _in_bits),
    **dict.fromkeys(("eq", "ge", "gt", "le", "lt", "ne"), _in_common),
    **dict.fromkeys(("exponent", "floor", "isinf", "isnan", "ldexp"), _in_float),
    **dict.fromkeys(("_to_copy", "alias", "clone", "detach"), _in_own),
    "view": _in_view,
    "where": _in_choice,
}
_NAMES = {
    **dict.fromkeys(("_to_copy", "alias", "clone", "detach"), "cast"),
    "__lshift__": "lshift",
    "__rshift__": "rshift",
}


def _number(value: Any, kind: str) -> str:
    if not isinstance(value, int | float) or not math.isfinite(value) or kind not in _COMPUTED:
        raise _unknown(f"the {kind} {value}")
    return f"constant<{kind}>({value.hex() if isinstance(value, float) else f'INT64_C({int(value)})'})"


def _addresses(name: str, numbers: Tensor) -> dict[int, str]:
    return {numbers.data_ptr() + index * numbers.itemsize: f"{name}[{index}]" for index in range(numbers.numel())}


def _type(values: Any) -> str:
    if not isinstance(values, Tensor) or values.dtype not in _TYPES:
        raise _unknown(f"elements of {values.dtype}" if isinstance(values, Tensor) else "several tensors at once")
    return _TYPES[values.dtype]


def _unknown(what: object) -> RammergeError:
    return RammergeError(f"{what} has no compiled form")
