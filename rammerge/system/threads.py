"""Sharing work among threads."""

import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

Job = TypeVar("Job")


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
