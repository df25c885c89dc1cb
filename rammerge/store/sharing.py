"""The shared store of this process: a place that other machines use too, and the kinds of entries that go there.

No result depends on it: without it, or while it is away, everything is made here.
"""

import logging
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache

from rammerge.storage import Place, PlaceError, open_place, try_place

VARIABLE = "RAMMERGE_SHARED_STORE"
# What other machines can use: models, and what was found out about them. Not what says where something is on this
# machine or in its MLflow (fetch, unpacked, pack, track, register, promote, release), not what this installation was
# tried with (rehearsal, prompts, demands), and not what a search throws away (trial-model).
DOWNLOADS = "hub"
_MODELS = {DOWNLOADS, "converted", "chosen", "merge", "merge_together"}
_FINDINGS = {"preflight", "extract", "activations", "smoke", "batches", "trial", "reference", "candidate", "look"}
_SCORES = {"suite", "evaluate", "evaluate-served", "route", "compare", "gate", "searched", "report"}
KINDS = frozenset(_MODELS | _FINDINGS | _SCORES)
_PAUSE_SECONDS = 60.0
_log = logging.getLogger(__name__)


class _Present:
    """The present setting: the place that a recipe named, and the time before which it is not asked."""

    url: str | None = None
    away_until = 0.0


def share(url: str | None) -> None:
    """From now on use the place `url` as the shared store, or for None the one in RAMMERGE_SHARED_STORE, if any."""
    _Present.url, _Present.away_until = url, 0.0


def shared_url() -> str | None:
    """Return what the user calls the shared store, or None if there is none."""
    return _Present.url or os.environ.get(VARIABLE) or None


def place_of(kind: str) -> Place | None:
    """Return the shared store if entries of this kind go there and it is not known to be away.

    Raises:
        InputError: what the user gave is no such place.
    """
    url = shared_url()
    if url is None or kind not in KINDS or time.monotonic() < _Present.away_until:
        return None
    return opened(url)


@lru_cache(maxsize=1)
def opened(url: str) -> Place:
    """Return the place `url`, opened once."""
    return open_place(url)


@contextmanager
def forgiving() -> Iterator[None]:
    """Say what goes wrong with the shared store, and leave it alone for a minute: the run goes on without it."""
    try:
        yield
    except PlaceError as error:
        _Present.away_until = time.monotonic() + _PAUSE_SECONDS
        say(f"{error}; going on without it")


@lru_cache(maxsize=1)
def try_shared(url: str) -> None:
    """Try, once in this process, whether the place `url` can be the shared store.

    Raises:
        InputError: it cannot; found within seconds.
    """
    try_place(url)


def say(sentence: str) -> None:
    """Tell the user what does not stop the run."""
    _log.warning("warning: %s", sentence)
