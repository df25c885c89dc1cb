"""The calls in an answer, parsed and never run.

Two forms are understood: Python, `[name(parameter=value), ...]`, and JSON between the tags that many chat models were
trained with, `<tool_call>{"name": ..., "arguments": {...}}</tool_call>`.
"""

import ast
import json
import re
from typing import Any

Call = tuple[str, dict[str, Any]]

_TAGGED = re.compile(r"<tool_call>(.*?)(?:</tool_call>|\Z)", re.DOTALL)
_FENCE = re.compile(r"```(?:python|py|json)?[ \t]*\n(.*?)```", re.DOTALL)


def calls_in(answer: str) -> list[Call] | None:
    """Return the calls that an answer makes, in its order; None if it is in neither form."""
    try:
        if tagged := _TAGGED.findall(answer):
            return [_from_json(text) for text in tagged]
        fenced = _FENCE.search(answer)
        return _from_python(fenced[1] if fenced else answer)
    except (SyntaxError, ValueError, TypeError, KeyError, RecursionError, MemoryError):
        return None


def _from_json(text: str) -> Call:
    said = json.loads(text)
    arguments = said["arguments"]
    if not isinstance(said["name"], str) or not isinstance(arguments, dict):
        raise TypeError
    return said["name"], arguments


def _from_python(text: str) -> list[Call]:
    stripped = text.strip("`\n '")
    stripped = stripped if stripped.startswith("[") else f"[{stripped}"
    stripped = stripped if stripped.endswith("]") else f"{stripped}]"
    body = ast.parse(stripped, mode="eval").body
    if not isinstance(body, ast.List):
        raise TypeError
    return [_call(element) for element in body.elts]


def _call(node: ast.expr) -> Call:
    if not isinstance(node, ast.Call):
        raise TypeError
    return ast.unparse(node.func), {str(word.arg): _value(word.value) for word in node.keywords}


def _value(node: ast.expr) -> Any:
    """Return what a literal stands for; anything else as its text, as names of variables are among the answers."""
    match node:
        case ast.Constant(value=value):
            return "..." if value is Ellipsis else value
        case ast.UnaryOp(op=ast.USub(), operand=ast.Constant(value=int() | float() as value)):
            return -value
        case ast.List(elts=elements):
            return [_value(element) for element in elements]
        case ast.Tuple(elts=elements):
            return tuple(_value(element) for element in elements)
        case ast.Dict(keys=keys, values=values):
            return {_value(key) if key else "**": _value(value) for key, value in zip(keys, values, strict=True)}
        case ast.Call(keywords=[_, *_]):
            name, arguments = _call(node)
            return {name: arguments}
    return ast.unparse(node)
