"""A content-addressed store: a step's output is kept under the digest of everything that determines it."""

from rammerge.store.caching import trim
from rammerge.store.carrying import bring, has, is_pending
from rammerge.store.downloads import bring_file, offer_file
from rammerge.store.entries import Entry, drop, find, generation, is_new, key_of
from rammerge.store.exchanging import drop_unused, exchange, using
from rammerge.store.making import materialise, materialise_together
from rammerge.store.moved import here
from rammerge.store.noting import note_uses
from rammerge.store.pruning import InUseError, Pruned, alone, prune
from rammerge.store.sharing import share, shared_url, try_shared
from rammerge.store.withdrawing import Withdrawn, prune_shared

__all__ = [
    "Entry",
    "InUseError",
    "Pruned",
    "Withdrawn",
    "alone",
    "bring",
    "bring_file",
    "drop",
    "drop_unused",
    "exchange",
    "find",
    "generation",
    "has",
    "here",
    "is_new",
    "is_pending",
    "key_of",
    "materialise",
    "materialise_together",
    "note_uses",
    "offer_file",
    "prune",
    "prune_shared",
    "share",
    "shared_url",
    "trim",
    "try_shared",
    "using",
]
