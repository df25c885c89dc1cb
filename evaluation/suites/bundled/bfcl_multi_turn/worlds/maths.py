"""A calculator."""

import math
from collections.abc import Callable, Sequence
from decimal import Decimal, InvalidOperation, localcontext
from typing import Any

from evaluation.suites.bundled.bfcl_multi_turn.worlds.told import Told

_NOT_NUMBERS = "Both inputs must be numbers"
_METERS = {"km": 1000, "m": 1, "cm": 0.01, "mm": 0.001, "um": 1e-6, "nm": 1e-9}
_FACTORS = {
    ("cm", "in"): 0.393701,
    ("in", "cm"): 2.54,
    ("m", "ft"): 3.28084,
    ("ft", "m"): 0.3048,
    ("m", "yd"): 1.09361,
    ("yd", "m"): 0.9144,
    ("km", "miles"): 0.621371,
    ("miles", "km"): 1.60934,
    ("kg", "lb"): 2.20462,
    ("lb", "kg"): 0.453592,
}
# Beyond these a call would take minutes, or all memory.
_DIGITS = 10_000
_BITS = 1_000_000


class MathAPI:
    """Functions of numbers; there is nothing to remember."""

    def __init__(self, _state: Told) -> None:
        pass

    def logarithm(self, value: float, base: float, precision: int) -> Told:
        import mpmath

        _require_few_digits(precision)
        try:
            with mpmath.workdps(precision):
                return {"result": _Shown(repr(mpmath.log(value) / mpmath.log(base)))}
        except Exception as error:
            return {"error": str(error)}

    def mean(self, numbers: Sequence[float]) -> Told:
        return _of("mean", numbers, lambda: sum(numbers) / len(numbers))

    def standard_deviation(self, numbers: Sequence[float]) -> Told:
        def deviation() -> float:
            mean = sum(numbers) / len(numbers)
            return math.sqrt(sum((number - mean) ** 2 for number in numbers) / len(numbers))

        return _of("standard deviation", numbers, deviation)

    def si_unit_conversion(self, value: Any, unit_in: str, unit_out: str) -> Told:
        if not isinstance(value, int | float):
            return {"error": "Value must be a number"}
        if unit_in not in _METERS or unit_out not in _METERS:
            return {"error": f"Conversion from '{unit_in}' to '{unit_out}' is not supported"}
        try:
            return {"result": value * _METERS[unit_in] * (1 / _METERS[unit_out])}
        except OverflowError:
            return {"error": "Conversion resulted in a value too large to represent"}

    def imperial_si_conversion(self, value: Any, unit_in: str, unit_out: str) -> Told:
        if not isinstance(value, int | float):
            return {"error": "Value must be a number"}
        try:
            if unit_in == unit_out:
                return {"result": value}
            if (unit_in, unit_out) == ("celsius", "fahrenheit"):
                return {"result": value * 1.8 + 32}
            if (unit_in, unit_out) == ("fahrenheit", "celsius"):
                return {"result": (value - 32) * (5 / 9)}
            if (unit_in, unit_out) in _FACTORS:
                return {"result": value * _FACTORS[unit_in, unit_out]}
        except OverflowError:
            return {"error": "Conversion resulted in a value too large to represent"}
        return {"error": f"Conversion from '{unit_in}' to '{unit_out}' is not supported"}

    def add(self, a: float, b: float) -> Told:
        return _tried(lambda: a + b, _NOT_NUMBERS)

    def subtract(self, a: float, b: float) -> Told:
        return _tried(lambda: a - b, _NOT_NUMBERS)

    def multiply(self, a: Any, b: Any) -> Told:
        if not isinstance(a, int | float) or not isinstance(b, int | float):
            return {"error": _NOT_NUMBERS}
        return {"result": a * b}

    def divide(self, a: float, b: float) -> Told:
        if b == 0:
            return {"error": "Cannot divide by zero"}
        return _tried(lambda: a / b, _NOT_NUMBERS)

    def power(self, base: float, exponent: float) -> Told:
        if isinstance(base, int) and isinstance(exponent, int) and base.bit_length() * abs(exponent) > _BITS:
            raise OverflowError("Result too large")
        return _tried(lambda: base**exponent, _NOT_NUMBERS)

    def square_root(self, number: float, precision: int) -> Told:
        _require_few_digits(precision)
        try:
            if number < 0:
                return {"error": "Cannot calculate square root of a negative number"}
            with localcontext() as context:
                context.prec = precision
                return {"result": Decimal(number).sqrt()}
        except (TypeError, InvalidOperation):
            return {"error": "Input must be a number or computation resulted in an invalid operation"}

    def absolute_value(self, number: float) -> Told:
        return _tried(lambda: abs(number), "Input must be a number")

    def round_number(self, number: float, decimal_places: int = 0) -> Told:
        return _tried(
            lambda: round(number, decimal_places),
            "First input must be a number, second input must be an integer",
        )

    def percentage(self, part: float, whole: float) -> Told:
        if whole == 0:
            return {"error": "Whole value cannot be zero"}
        return _tried(lambda: part / whole * 100, _NOT_NUMBERS)

    def min_value(self, numbers: Sequence[float]) -> Told:
        return _of("minimum", numbers, lambda: min(numbers), verb="find")

    def max_value(self, numbers: Sequence[float]) -> Told:
        return _of("maximum", numbers, lambda: max(numbers), verb="find")

    def sum_values(self, numbers: Sequence[float]) -> Told:
        return _of("sum", numbers, lambda: sum(numbers))


class _Shown:
    """A number that is shown as it is written here."""

    def __init__(self, text: str) -> None:
        self._text = text

    def __repr__(self) -> str:
        return self._text


def _tried(compute: Callable[[], Any], error: str) -> Told:
    try:
        return {"result": compute()}
    except TypeError:
        return {"error": error}


def _of(name: str, numbers: Sequence[float], compute: Callable[[], Any], verb: str = "calculate") -> Told:
    if not numbers:
        return {"error": f"Cannot {verb} {name} of an empty list"}
    return _tried(compute, "All elements in the list must be numbers")


def _require_few_digits(precision: int) -> None:
    if precision > _DIGITS:
        raise ValueError("precision is too large")
