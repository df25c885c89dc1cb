"""What runs inside a sandbox: a program of a model whose function is called, or the tests that call such a function.

This file is given to `python -I -S -c`, so it imports nothing but the standard library. Requests and answers are lines
of JSON. A program never meets the tests: they run in a sandbox of their own, and each call of the function goes through
the process that started both.

Values cross as plain data: JSON's scalars, and every other value as [type, content].
"""

from __future__ import annotations

import json
import os
import resource
import sys

TYPE_CHECKING = False
if TYPE_CHECKING:  # these would take longer to import than everything else
    from collections.abc import Callable
    from typing import IO, Any

_MESSAGE = 200  # characters of an error that are passed on


def encode(value: Any) -> Any:
    """Return `value` as data for JSON; raise TypeError for an object that is not made of plain types."""
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, dict):
        return ["dict", [[encode(key), encode(content)] for key, content in value.items()]]
    for kind in (list, tuple, set, frozenset):
        if isinstance(value, kind):
            return [kind.__name__, [encode(part) for part in value]]
    if isinstance(value, complex):
        return ["complex", [value.real, value.imag]]
    if isinstance(value, bytes | bytearray):
        return ["bytes", list(value)]
    raise TypeError(f"the type {type(value).__name__} is not plain")


def decode(data: Any) -> Any:
    """Return the value that `encode` was given; raise TypeError or ValueError for any other data."""
    if not isinstance(data, list):
        return data
    kind, content = data
    if kind == "dict":
        return {decode(key): decode(value) for key, value in content}
    if kind == "complex":
        return complex(*content)
    kinds: dict[str, Callable[..., Any]] = {
        "list": list,
        "tuple": tuple,
        "set": set,
        "frozenset": frozenset,
        "bytes": bytes,
    }
    return kinds[kind](decode(part) for part in content)


def serve_program(ask: Callable[[dict[str, Any]], Any], request: dict[str, Any]) -> None:
    """Define what the program defines, then call its function once for each request, and answer with what it gives.

    An answer repeats its request's nonce: what the program writes without one answers nothing.
    """
    defined: dict[str, Any] = {"__name__": "program"}
    failed = None
    try:
        exec(compile(request["source"], "<program>", "exec"), defined)
    except BaseException as error:  # a program may raise anything
        failed = _sentence(error)
    answer: dict[str, Any] = {"nonce": request["nonce"], "value": None}
    while True:
        call = ask(answer if failed is None else {"nonce": answer["nonce"], "error": failed})
        answer = {"nonce": call["nonce"]}
        try:
            arguments = decode(call["arguments"])
            answer["value"] = encode(defined[call["function"]](*arguments[0], **arguments[1]))
        except BaseException as error:
            answer["error"] = _sentence(error)


def serve_tests(ask: Callable[[dict[str, Any]], Any], request: dict[str, Any]) -> None:
    """Run tests, one request after the other, and answer each with `{"failed": why}`, or null for tests that passed.

    Between a request and its answer stand the calls of the function, `{"call": arguments}`, and what they gave.
    """
    import random

    def candidate(*arguments: Any, **named: Any) -> Any:
        given = ask({"call": encode((arguments, named))})
        if "error" in given:
            raise RuntimeError(given["error"])
        return decode(given["value"])

    while True:
        random.seed(0)  # tests that draw their inputs draw the same ones for every model
        defined: dict[str, Any] = {"__name__": "tests"}
        failed = None
        try:
            exec(compile(request["tests"], "<tests>", "exec"), defined)
            defined["check"](candidate)
        except Exception as error:
            failed = _sentence(error)
        request = ask({"failed": failed})


def _sentence(error: BaseException) -> str:
    try:
        return f"{type(error).__name__}: {error}"[:_MESSAGE]
    except BaseException:  # an error's own text is code, too
        return "an error without words"


def _private_streams() -> tuple[IO[bytes], IO[bytes]]:
    """Return standard input and output under descriptors of their own; whoever prints prints to nowhere."""
    requests, answers = os.fdopen(os.dup(0), "rb"), os.fdopen(os.dup(1), "wb")
    nowhere = os.open(os.devnull, os.O_RDWR)
    for descriptor in (0, 1, 2):
        os.dup2(nowhere, descriptor)
    return requests, answers


def main() -> None:
    """Set the limits that the first request names, then serve what it asks for until there is nobody to answer."""
    requests, answers = _private_streams()
    sys.setrecursionlimit(10_000)

    def ask(answer: dict[str, Any]) -> Any:
        answers.write(json.dumps(answer).encode() + b"\n")
        answers.flush()
        return json.loads(requests.readline())

    request = json.loads(requests.readline())
    for name, limit in request["limits"].items():
        kind = getattr(resource, name)
        highest = resource.getrlimit(kind)[1]
        lower = limit if highest == resource.RLIM_INFINITY else min(limit, highest)
        resource.setrlimit(kind, (lower, lower))
    serve = serve_program if "source" in request else serve_tests
    try:
        serve(ask, request)
    finally:
        os._exit(0)


if __name__ == "__main__":
    main()
