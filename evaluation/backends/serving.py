"""A server of vLLM for one model directory, in a process of its own."""

import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from evaluation.backends.served import Endpoint
from rammerge.errors import InputError
from rammerge.system.home import home
from rammerge.system.servers import LOOPBACK, address_of, free_port, running

# A large model is loaded, compiled and measured before the first answer.
_START_SECONDS = 1800.0


def find_vllm() -> str:
    """Return the path of vLLM's program; InputError if it is not installed."""
    if (program := shutil.which("vllm")) is None:
        raise InputError("vLLM is not installed here; run `pip install vllm`, or use the backend transformers")
    return program


@cache
def vllm_version() -> str:
    """Return the version of vLLM, which may be installed in an environment of its own.

    Raises:
        InputError: it is not installed.
    """
    program = find_vllm()
    with suppress(PackageNotFoundError):
        return version("vllm")
    done = subprocess.run([program, "--version"], stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
    return done.stdout.strip() or "unknown"


@contextmanager
def vllm(model_dir: Path, *, dtype: str, concurrency: int) -> Iterator[Endpoint]:
    """Serve the model directory by vLLM while the context lasts.

    A checkpoint's own decoding settings and code are left aside, as transformers' models are evaluated.

    Raises:
        InputError: vLLM is not installed.
        RammergeError: its server ended or did not answer; the sentence names the log.
    """
    program, port = find_vllm(), free_port()
    command = [program, "serve", str(model_dir), "--served-model-name", model_dir.name, "--dtype", dtype]
    command += ["--host", LOOPBACK, "--port", str(port), "--seed", "0", "--generation-config", "vllm"]
    log = home() / "logs" / f"vllm-{port}.log"
    url = address_of(LOOPBACK, port)
    with running(
        "vLLM", command, url=url, health="/health", log=log, settings={}, start_seconds=_START_SECONDS
    ) as server:
        server.wait_until_healthy()
        yield Endpoint(f"{server.url}/v1", model_dir.name, concurrency=concurrency)
