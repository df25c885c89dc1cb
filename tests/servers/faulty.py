"""A proxy before a server that does what networks and busy servers do: refuse, cut off, hang, lose a header."""

import http.client
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import urlparse

_HOP = {"connection", "transfer-encoding", "expect"}


@dataclass(frozen=True)
class Request:
    """What a client asks: method, path with its query, and headers by their names in lower case."""

    method: str
    path: str
    headers: dict[str, str]


# What becomes of a request: a status that the proxy answers, or one of `cut` (half of the answer, then nothing), `hang`
# (no answer until the proxy ends) and `unconditional` (a condition that did not hold seems to). None: it is passed on.
Fault = Callable[[Request], int | str | None]


@dataclass
class Proxy:
    """A running proxy.

    Attributes:
        url: its address.
        fault: decides about each request.
        passed: the requests that were passed on.
        done: those of them that the server has answered.
        over: set when it ends.
    """

    url: str
    fault: Fault
    passed: list[Request] = field(default_factory=list)
    done: list[Request] = field(default_factory=list)
    over: threading.Event = field(default_factory=threading.Event)


@contextmanager
def faulty(server: str, fault: Fault = lambda _: None) -> Iterator[Proxy]:
    """Run a proxy before the address `server` while the context lasts."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def _answer(self) -> None:
            _handle(self, proxy, server)

        do_GET = do_HEAD = do_PUT = do_POST = do_DELETE = _answer  # noqa: N815 (the names that http.server calls)

        def log_message(self, *_: object) -> None:
            """Say nothing."""

    listening = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    listening.daemon_threads = True
    proxy = Proxy(f"http://127.0.0.1:{listening.server_port}", fault)
    thread = threading.Thread(target=listening.serve_forever, daemon=True)
    thread.start()
    try:
        yield proxy
    finally:
        proxy.over.set()
        listening.shutdown()
        listening.server_close()
        thread.join()


def _handle(handler: BaseHTTPRequestHandler, proxy: Proxy, server: str) -> None:
    body = handler.rfile.read(int(handler.headers.get("Content-Length") or 0))
    headers = {name.lower(): value for name, value in handler.headers.items() if name.lower() not in _HOP}
    request = Request(handler.command, handler.path, headers)
    fault = proxy.fault(request)
    if fault == "hang":
        proxy.over.wait()
        handler.close_connection = True
        return
    if isinstance(fault, int):
        _send(handler, fault, {}, b"")
        return
    proxy.passed.append(request)
    status, answered, content = _ask(server, request, headers, body)
    proxy.done.append(request)
    if status == 412 and fault == "unconditional":
        status, answered, content = 200, {}, b""
    _send(handler, status, answered, content, cut=fault == "cut")


def _ask(server: str, request: Request, headers: dict[str, str], body: bytes) -> tuple[int, dict[str, str], bytes]:
    connection = http.client.HTTPConnection(urlparse(server).netloc, timeout=60)
    try:
        connection.request(request.method, request.path, body=body, headers=headers)  # the host stays: it is signed
        answer = connection.getresponse()
        kept = {name: value for name, value in answer.getheaders() if name.lower() not in _HOP}
        return answer.status, kept, answer.read()
    finally:
        connection.close()


def _send(
    handler: BaseHTTPRequestHandler, status: int, headers: dict[str, str], content: bytes, *, cut: bool = False
) -> None:
    handler.send_response_only(status)
    length = headers.get("Content-Length", str(len(content)))
    for name, value in {**headers, "Content-Length": length}.items():
        handler.send_header(name, value)
    handler.end_headers()
    handler.wfile.write(content[: len(content) // 2] if cut else content)
    handler.close_connection = cut
