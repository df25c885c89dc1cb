"""A process that runs models for another, so that small models run at once and that one's interpreter stays free.

Importing lm-eval and torch takes seconds. So the process that is started does nothing else: for each socket that it is
then given it forks itself, and the fork answers what comes over that socket. All of them end with whoever started them,
and a fork ends when an answer takes longer than it may.

    python -m evaluation.runners.worker PARENT DESCRIPTOR

Requests and answers are lines of JSON: {"do": "evaluate", "seconds": 60, ...}, with how long the answer may take and
the arguments of the method of `Asked` of that name, and {"result": ...} or {"error": CLASS, "message": ...}.
"""

import gc
import json
import os
import signal
import socket
import sys
import traceback
import warnings
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import asdict
from importlib import import_module
from pathlib import Path
from typing import Any, NoReturn

from evaluation.backends.classes import trusting
from evaluation.backends.served import Endpoint
from evaluation.backends.transformers import try_out
from evaluation.runners.harness import Asks, Harness, preload
from evaluation.runners.loaded import open_model
from evaluation.runners.local import LocalModel
from evaluation.runners.rehearsal import rehearse
from evaluation.runners.served import ServedModel
from evaluation.suites import Suite, load_suite
from rammerge.activations.prompts import Prompts
from rammerge.activations.recording import record
from rammerge.activations.tokens import tokenize
from rammerge.checkpoints.checkpoint import open_checkpoint
from rammerge.errors import InputError, RammergeError, no_space, out_of_space
from rammerge.system import libc
from rammerge.system.allocator import keep_freed_blocks
from rammerge.system.deadlines import deadline
from rammerge.system.home import home

# Questions at a time to a server of vLLM, which makes its own batches of them.
_AT_SERVERS = 256


def main(parent: int, descriptor: int) -> None:
    """Fork a process for each socket that comes over `descriptor`, until it is closed."""
    _end_with(parent)
    keep_freed_blocks()
    _preload_for_good()
    # A child that ended needs no farewell, except for those that the children themselves start.
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    with socket.socket(fileno=descriptor) as control:
        while True:
            _, descriptors, _, _ = socket.recv_fds(control, 1, 1)
            if not descriptors:
                return
            with socket.socket(fileno=descriptors[0]) as connection:
                template = os.getpid()
                with warnings.catch_warnings():
                    # Python 3.12 warns of any thread. Those here are numpy's and pyarrow's own, which forks do without.
                    warnings.filterwarnings("ignore", "This process .* is multi-threaded", DeprecationWarning)
                    forked = os.fork()
                if forked == 0:
                    control.close()
                    _serve(connection, template)


def _preload_for_good() -> None:
    """Import what models need, a million objects that stay, and spare the garbage collector from looking at them.

    Neither while they are made nor in the forks, where it would also copy their pages.
    """
    gc.disable()
    preload()
    gc.freeze()
    gc.enable()


def _end_with(parent: int) -> None:
    """Have the kernel kill this process when its parent dies, however it dies."""
    libc.end_with_parent(signal.SIGKILL)
    if os.getppid() != parent:
        os._exit(1)  # it died before


def _serve(connection: socket.socket, template: int) -> NoReturn:
    """Answer requests until the other end closes the connection."""
    code = 1
    try:
        _end_with(template)
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        asked = Asked()
        with connection, connection.makefile("rb") as requests:
            for line in requests:
                request = json.loads(line)
                # It ends this process, whatever the answer waits for.
                with deadline(request.pop("seconds"), os.kill, os.getpid(), signal.SIGKILL):
                    answer = asked.answer(request)
                connection.sendall(json.dumps(answer).encode() + b"\n")
        asked.close()
        code = 0
    except (BrokenPipeError, ConnectionResetError):
        pass  # who asked was killed, and nobody is there to be told
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        os._exit(code)  # the interpreter's end belongs to the process that was forked


class Asked:
    """What one connection asks for; the model that it asked about last stays loaded."""

    def __init__(self) -> None:
        """Start without a model."""
        self._key: tuple[str, Mapping[str, Any]] | None = None
        self._asked: Asks | None = None
        self._open = ExitStack()

    def answer(self, request: Mapping[str, Any]) -> dict[str, Any]:
        """Do what `request` says and return the answer; its `trust` says whether models may run code of their own."""
        known: dict[str, Callable[..., Any]] = {
            "rehearse": self.rehearse,
            "evaluate": self.evaluate,
            "evaluate_served": self.evaluate_served,
            "look": self.look,
            "choose_batch": self.choose_batch,
            "try_out": self.try_out,
            "count_tokens": self.count_tokens,
            "record": self.record,
            "see": self.see,
            "call": self.call,
        }
        arguments = {name: value for name, value in request.items() if name not in ("do", "trust")}
        try:
            with trusting(request.get("trust", False)):
                return {"result": known[request["do"]](**arguments)}
        except RammergeError as error:
            return {"error": type(error).__name__, "message": str(error)}
        except Exception as error:
            if out_of_space(error):
                return {"error": "RammergeError", "message": no_space(getattr(error, "filename", None) or home())}
            return {"error": "Exception", "message": traceback.format_exc()}

    def close(self) -> None:
        """Let go of the model; a server that was started for it ends."""
        self._asked = None
        self._open.close()

    def rehearse(self, models: Mapping[str, str], suites: Mapping[str, str], limit: int | None) -> dict[str, Any]:
        """See `evaluation.runners.rehearsal.rehearse`; the suites are given as digests by path."""
        opened = [_opened(path, digest) for path, digest in suites.items()]
        return asdict(rehearse(opened, {name: Path(model) for name, model in models.items()}, limit=limit))

    def evaluate(self, model: Mapping[str, Any], suite: str, suite_digest: str, limit: int | None, out: str) -> None:
        """Evaluate a model (the arguments of `open_model`) on a suite; results and samples go below `out`."""
        self._loaded(model).evaluate([_opened(suite, suite_digest)], limit=limit, out=Path(out))

    def evaluate_served(
        self, server: Mapping[str, Any], key: str | None, suite: str, suite_digest: str, limit: int | None, out: str
    ) -> None:
        """Evaluate a model on a server (the arguments of `Endpoint`) on a suite; see `evaluate`.

        `key` is what the variable that holds the server's key says now, which may be newer than this process.
        """
        if key is not None:
            os.environ[server["key"]] = key
        model = Harness(ServedModel(Endpoint(**server), {}))
        model.evaluate([_opened(suite, suite_digest)], limit=limit, out=Path(out))

    def look(
        self, model: Mapping[str, Any], suite: str, suite_digest: str, limit: int | None, look: int
    ) -> list[float]:
        """Return what a model scores on the validation items that one look of a search adds; test items stay unread."""
        return self._loaded(model).look(_opened(suite, suite_digest), look, limit=limit)

    def choose_batch(self, model: Mapping[str, Any], suite: str, suite_digest: str, limit: int | None) -> int:
        """Return how many prompts of a suite a model is best asked at a time; see `evaluation.runners.batches`."""
        self._loaded(model)
        asked = self._asked
        return asked.choose_batch(_opened(suite, suite_digest), limit) if isinstance(asked, LocalModel) else _AT_SERVERS

    def _loaded(self, model: Mapping[str, Any]) -> Harness:
        """Return the model, loaded unless it is already; the batch size alone needs no loading."""
        settings = {name: value for name, value in model.items() if name not in ("model_dir", "batch_size")}
        size = model["batch_size"] or 1
        if self._asked is None or self._key != (model["model_dir"], settings):
            self.close()  # the one before has to go first
            opened = open_model(Path(model["model_dir"]), batch_size=size, **settings)
            self._key, self._asked = (model["model_dir"], settings), self._open.enter_context(opened)
        if isinstance(self._asked, LocalModel):
            self._asked.resize(size)
        return Harness(self._asked)

    def see(self, gpu: str) -> None:
        """See one GPU only, before any is used: `gpu` is its name for CUDA_VISIBLE_DEVICES."""
        os.environ["CUDA_VISIBLE_DEVICES"] = gpu

    def try_out(self, model_dir: str, device: str) -> list[Any]:
        """See `evaluation.backends.transformers.try_out`."""
        return list(try_out(Path(model_dir), device=device))

    def count_tokens(self, model_dir: str, prompts: str) -> int:
        """Return how many tokens the prompts of a file are; see `rammerge.activations.tokens.tokenize`."""
        return sum(map(len, tokenize(Path(model_dir), Prompts.read(Path(prompts)))))

    def record(self, model_dir: str, prompts: str, device: str, out: str) -> None:
        """Write activations below `out`; see `rammerge.activations.recording.record`."""
        record(open_checkpoint(Path(model_dir)), Prompts.read(Path(prompts)), Path(out), device=device)

    def call(self, function: str, arguments: Mapping[str, str]) -> None:
        """Call a function, given as `module:name`, that needs what this process has imported."""
        module, _, name = function.partition(":")
        getattr(import_module(module), name)(**arguments)


def _opened(suite: str, digest: str) -> Suite:
    opened = load_suite(suite)
    if opened.digest != digest:
        raise InputError(f"the suite {suite} was changed while the run was using it; run again")
    return opened


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]))
