"""Sharing work among threads."""

import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from typing import TypeVar

from rammerge.system.lazy import torch

Job = TypeVar("Job")
Result = TypeVar("Result")


def work_through(jobs: Sequence[Job], work: Callable[[Job], None], threads: int) -> None:
    """Call `work` on each job on `threads` threads. Jobs are started in order.

    After an error, all threads end with their present job, and the error of the earliest job is raised.
    """
    failures: dict[int, BaseException] = {}
    pending = _Shared(enumerate(jobs))

    def loop() -> None:
        for index, job in pending:
            try:
                work(job)
            except BaseException as error:  # an interrupt, too, must stop the other threads
                failures[index] = error
            if failures:
                return

    with ThreadPoolExecutor(max_workers=max(1, threads), thread_name_prefix="merge") as pool:
        futures = [pool.submit(loop) for _ in range(max(1, threads))]
        try:
            for future in futures:
                future.result()
        except BaseException as error:
            failures.setdefault(len(jobs), error)
    if failures:
        raise failures[min(failures)]


class _SingleThreaded:
    """How many users need torch to compute on one thread, and how many threads it had before them."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.users = self.before = 0


_single_threaded = _SingleThreaded()


@contextmanager
def single_threaded() -> Iterator[None]:
    """Have torch compute each operation on the thread that asks for it: no sum then depends on the number of threads.

    The setting holds for the whole process, and ends with the last context.
    """
    state = _single_threaded
    with state.lock:
        if not state.users:
            state.before = torch.get_num_threads()
            torch.set_num_threads(1)
        state.users += 1
    try:
        yield
    finally:
        with state.lock:
            state.users -= 1
            if not state.users:
                torch.set_num_threads(state.before)


def in_order(jobs: Iterable[Job], work: Callable[[Job], Result], threads: int) -> Iterator[Result]:
    """Yield the results of `work` on each job in the order of the jobs, from threads that are a few jobs ahead."""
    with ThreadPoolExecutor(max_workers=threads) as pool:
        begun: deque[Future[Result]] = deque()
        try:
            for job in jobs:
                begun.append(pool.submit(work, job))
                if len(begun) > 2 * threads:
                    yield begun.popleft().result()
            while begun:
                yield begun.popleft().result()
        finally:
            for future in begun:
                future.cancel()


class _Shared(Iterable[Job]):
    """An iterator that several threads draw from."""

    def __init__(self, source: Iterable[Job]) -> None:
        self._source = iter(source)
        self._lock = threading.Lock()

    def __iter__(self) -> Iterator[Job]:
        while True:
            with self._lock:
                try:
                    item = next(self._source)
                except StopIteration:
                    return
            yield item
