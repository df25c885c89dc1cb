"""Ctrl-C and SIGTERM end the program within seconds, whatever it waits for.

A signal raises an exception in the main thread, which cleans up on its way out. But Python waits for the other threads,
which may compute or ask a server that never answers, and a call of a C library keeps the main thread from noticing the
signal at all. So one more thread hears of signals by way of a pipe. It has others stop at once, and it ends the program
if it is still there after a few seconds. Nothing is lost, because what was finished is complete at any moment.
"""

import os
import shutil
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType

_GRACE_SECONDS = 3.5
_AGAIN_SECONDS = 0.02
_SIGNALS = (signal.SIGINT, signal.SIGTERM)
_LINE = "interrupted; run the same command again to continue: what was finished is kept"
_SHOW_CURSOR = "\x1b[?25h"

_lock = threading.Lock()
_received: int | None = None
_hears = False
_ends = False
_normal = False
_said = False
_acts: list[Callable[[], object]] = []
_scratch: list[Path] = []


def interrupted() -> bool:
    """Tell whether a signal is ending this process, or the work in it."""
    return _received is not None


@contextmanager
def ended_by_signals() -> Iterator[None]:
    """While the context lasts, Ctrl-C and SIGTERM end the process within seconds. For a program's main thread."""
    global _ends
    _ends = True
    handlers, hook = {signum: signal.getsignal(signum) for signum in _SIGNALS}, sys.unraisablehook
    with _pipe():
        for signum, handler in handlers.items():
            if handler is not signal.SIG_IGN:  # as in the background of a shell
                signal.signal(signum, _raise)
        sys.unraisablehook = _raise_again
        yield
        if interrupted():
            return  # threads may still keep the process from ending
        sys.unraisablehook = hook
        for signum, handler in handlers.items():
            signal.signal(signum, handler)
        _ends = False


@contextmanager
def hearing(act: Callable[[], object]) -> Iterator[None]:
    """While the context lasts, call `act`, perhaps in a thread, when a signal comes, whatever the main thread does."""
    _acts.append(act)
    try:
        with _pipe():
            yield
    except (Exception, GeneratorExit):
        raise
    except BaseException:  # the exception of the signal may be here before the thread has heard of it
        act()
        raise
    finally:
        _acts.remove(act)


@contextmanager
def removed_afterwards(scratch: Path) -> Iterator[None]:
    """Remove the directory `scratch` when the context ends, or when a signal ends the process."""
    _scratch.append(scratch)
    try:
        yield
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
        _scratch.remove(scratch)


def end_at_once(code: int, *, anyway: bool) -> None:
    """End this process, whatever its threads wait for, if it is a program's (`ended_by_signals`), or `anyway`."""
    if _ends or anyway:
        _remove_scratch()
        os._exit(code)


def end_normally() -> None:
    """From now on a signal is the normal end of the program, as it is of a server: no line, and exit code 0."""
    global _normal
    _normal = True


def say_interrupted() -> int:
    """Say on stderr, once, that a signal ends the program; return the exit code."""
    global _said
    with _lock:
        if not _said and not _normal:
            # A live display that the process cannot end leaves the terminal without a cursor.
            print(_SHOW_CURSOR * sys.stderr.isatty() + _LINE, file=sys.stderr, flush=True)
        _said = True
    return 0 if _normal else 128 + (_received or signal.SIGINT)


def _raise(signum: int, _: FrameType | None) -> None:
    global _received
    _received = signum
    raise KeyboardInterrupt


def _raise_again(dropped: "sys.UnraisableHookArgs") -> None:
    """Send the signal again if Python dropped its exception, as in a finalizer or a callback of a weak reference."""
    if issubclass(dropped.exc_type, Exception | GeneratorExit):
        sys.__unraisablehook__(dropped)
    else:
        # Here its handler would run at once, and what it raises would be dropped again.
        threading.Timer(_AGAIN_SECONDS, signal.raise_signal, (_received or signal.SIGINT,)).start()


@contextmanager
def _pipe() -> Iterator[None]:
    """Have a thread watch for signals, unless one does already or Python does not allow it here."""
    global _hears, _received
    if _hears or threading.current_thread() is not threading.main_thread():
        yield
        return
    reading, writing = os.pipe()
    os.set_blocking(writing, False)
    _hears, _received = True, None
    before = signal.set_wakeup_fd(writing, warn_on_full_buffer=False)
    threading.Thread(target=_watch, args=(reading,), daemon=True, name="rammerge-signals").start()
    try:
        yield
    finally:
        if not (_ends and interrupted()):
            signal.set_wakeup_fd(before)
            os.close(writing)
            _hears = False


def _watch(pipe: int) -> None:
    global _received
    while received := os.read(pipe, 1):
        if received[0] in _SIGNALS:
            _received = received[0]
            for act in list(_acts):
                act()
            if _ends:
                _end_soon()
    os.close(pipe)


def _end_soon() -> None:
    time.sleep(_GRACE_SECONDS)
    _remove_scratch()
    os._exit(say_interrupted())


def _remove_scratch() -> None:
    for scratch in list(_scratch):
        shutil.rmtree(scratch, ignore_errors=True)
