"""Score of the *functions* domain: the completion is a one-line function that does the right thing on held-out inputs.

A function is `def f(x): return ...` or a lambda, in a subset of Python: numbers, strings and flat lists, their
operators, indices and slices, comparisons, `a if b else c`, list comprehensions with one loop, and the functions and
methods listed below. It is parsed to a syntax tree, which the evaluator walks; nothing is ever compiled or executed.
The text, every value and the number of steps are bounded, so no completion can make the score raise, hang or use up
memory.
"""

import ast
import operator
from collections.abc import Callable, Mapping, Sequence
from typing import Any

MAX_NEW_TOKENS = 32
_MAX_CHARS = 300
_MAX_STEPS = 2_000
_MAX_LENGTH = 200  # of a string or a list
_MAX_NUMBER = 10**12
_MAX_EXPONENT = 12

_OPERATORS: dict[type[ast.AST], Callable[..., Any]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
    ast.FloorDiv: operator.floordiv,
    ast.Mod: operator.mod,
    ast.Pow: operator.pow,
    ast.USub: operator.neg,
    ast.UAdd: operator.pos,
    ast.Not: operator.not_,
    ast.Eq: operator.eq,
    ast.NotEq: operator.ne,
    ast.Lt: operator.lt,
    ast.LtE: operator.le,
    ast.Gt: operator.gt,
    ast.GtE: operator.ge,
    ast.In: lambda item, container: item in container,
    ast.NotIn: lambda item, container: item not in container,
}
_FUNCTIONS: dict[str, Callable[..., Any]] = {
    **{function.__name__: function for function in (abs, float, int, len, list, max, min, round, sorted, str, sum)},
    "range": lambda *bounds: list(range(*bounds)[: _MAX_LENGTH + 1]),
    "reversed": lambda values: list(reversed(values)),
}
_METHODS: dict[type[Any], set[str]] = {
    str: {"count", "endswith", "index", "lower", "replace", "startswith", "strip", "title", "upper", "split", "join"},
    list: {"count", "index"},
}


class ProgramError(Exception):
    """The text is not a function of the subset, or the function fails on this input."""


def read_function(text: str) -> tuple[str, ast.expr]:
    """Return the parameter and the expression of the function that is all of `text`, a Markdown fence around it aside.

    Raises ProgramError if `text` is not one function of one parameter that returns an expression.
    """
    source = text.strip().removeprefix("```python").removeprefix("```").removesuffix("```").strip()
    if len(source) > _MAX_CHARS:
        raise ProgramError("too long")
    try:
        tree = ast.parse(source)
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        raise ProgramError("not Python") from error
    match tree.body:
        case [ast.FunctionDef(args=arguments, body=[ast.Return(value=ast.expr() as body)], decorator_list=[])]:
            pass
        case [ast.Expr(value=ast.Lambda(args=arguments, body=body))]:
            pass
        case [ast.Assign(targets=[ast.Name()], value=ast.Lambda(args=arguments, body=body))]:
            pass
        case _:
            raise ProgramError("not one function that returns an expression")
    match arguments:
        case ast.arguments(posonlyargs=[], args=[only], vararg=None, kwonlyargs=[], kwarg=None, defaults=[]):
            return only.arg, body
    raise ProgramError("not one parameter")


def run_function(function: tuple[str, ast.expr], x: Any) -> Any:
    """Return what the function makes of `x`; raise ProgramError if it leaves the subset, exceeds a bound, or fails."""
    name, body = function
    try:
        return _Evaluator().value(body, {name: x})
    except (ArithmeticError, LookupError, TypeError, ValueError, RecursionError, MemoryError) as error:
        raise ProgramError("the function fails") from error


class _Evaluator:
    """One run of an expression, whose steps are counted."""

    def __init__(self) -> None:
        self._steps = 0

    def value(self, node: ast.expr | None, names: Mapping[str, Any]) -> Any:
        """Return the value of an expression, or None where a slice has no bound."""
        self._steps += 1
        if self._steps > _MAX_STEPS:
            raise ProgramError("too many steps")
        return None if node is None else _bounded(self._evaluate(node, names))

    def _evaluate(self, node: ast.expr, names: Mapping[str, Any]) -> Any:
        match node:
            case ast.Constant(value=bool() | int() | float() | str() as constant):
                return constant
            case ast.Name(id=name) if name in names:
                return names[name]
            case ast.List(elts=elements):
                return [self.value(element, names) for element in elements]
            case ast.UnaryOp(op=op, operand=operand) if type(op) in _OPERATORS:
                return _OPERATORS[type(op)](self.value(operand, names))
            case ast.BinOp(left=left, op=op, right=right) if type(op) in _OPERATORS:
                return _operate(op, self.value(left, names), self.value(right, names))
            case ast.Compare(left=left, ops=[op], comparators=[right]) if type(op) in _OPERATORS:
                return _OPERATORS[type(op)](self.value(left, names), self.value(right, names))
            case ast.IfExp(test=test, body=body, orelse=otherwise):
                return self.value(body if self.value(test, names) else otherwise, names)
            case ast.Subscript(value=container, slice=ast.Slice(lower=lower, upper=upper, step=step)):
                bounds = [self.value(bound, names) for bound in (lower, upper, step)]
                return self.value(container, names)[slice(*bounds)]
            case ast.Subscript(value=container, slice=index):
                return self.value(container, names)[self.value(index, names)]
            case ast.Call() | ast.ListComp():
                return self._call(node, names)
        raise ProgramError("an expression that is not in the subset")

    def _call(self, node: ast.expr, names: Mapping[str, Any]) -> Any:
        match node:
            case ast.Call(func=ast.Name(id=name), args=arguments, keywords=[]) if name in _FUNCTIONS:
                return _FUNCTIONS[name](*(self.value(argument, names) for argument in arguments))
            case ast.Call(func=ast.Attribute(value=subject, attr=name), args=arguments, keywords=[]):
                owner = self.value(subject, names)
                if name in _METHODS.get(type(owner), set()):
                    return getattr(owner, name)(*(self.value(argument, names) for argument in arguments))
            case ast.ListComp(
                elt=element,
                generators=[ast.comprehension(target=ast.Name(id=name), iter=iterable, ifs=conditions)],
            ):
                rows = [{**names, name: item} for item in self.value(iterable, names)]
                return [self.value(element, row) for row in rows if all(self.value(each, row) for each in conditions)]
        raise ProgramError("a call that is not in the subset")


def _operate(op: ast.operator, left: Any, right: Any) -> Any:
    """Apply a binary operator, unless its result could be large before it can be measured."""
    match op:
        case ast.Mod() if isinstance(left, str):
            raise ProgramError("text is not formatted")
        case ast.Pow() if abs(right) > _MAX_EXPONENT:
            raise ProgramError("a large exponent")
        case ast.Mult() if isinstance(left, str | list) or isinstance(right, str | list):
            text, times = (left, right) if isinstance(left, str | list) else (right, left)
            if len(text) * times > _MAX_LENGTH:
                raise ProgramError("a value grew too long")
    return _OPERATORS[type(op)](left, right)


def _bounded(value: Any) -> Any:
    """Return `value` if it is a number, a text, or a list of these, and within bounds.

    A list in a list is refused: `[[x] * 200] * 200` and so on is quickly made, and never compared to its end.
    """
    if isinstance(value, int | float):
        if not abs(value) <= _MAX_NUMBER:
            raise ProgramError("a number grew too large")
    elif not isinstance(value, str | list) or len(value) > _MAX_LENGTH:
        raise ProgramError("a value grew too long, or is of a type that is not in the subset")
    elif isinstance(value, list) and any(isinstance(item, list) for item in value):
        raise ProgramError("a list in a list")
    return value


def score(doc: Mapping[str, Any], completion: str) -> float:
    """Return 1.0 if the function in `completion` gives the right value on every input of `doc`, else 0.0.

    `doc["tests"]` holds pairs of an input and the value that is wanted. A value of another type is a different value:
    1 is neither True nor 1.0. No completion makes it raise.
    """
    try:
        function = read_function(completion)
        return float(all(repr(run_function(function, x)) == repr(wanted) for x, wanted in doc["tests"]))
    except ProgramError:
        return 0.0


def process_results(doc: Mapping[str, Any], results: Sequence[str]) -> dict[str, float]:
    """Score the one completion of an lm-eval request."""
    return {"acc": score(doc, results[0])}
