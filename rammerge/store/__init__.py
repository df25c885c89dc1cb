"""A content-addressed store: a step's output is kept under the digest of everything that determines it."""

from rammerge.store.caching import trim
from rammerge.store.carrying import bring, has, is_pending
from rammerge.store.downloads import bring_file, offer_file
from rammerge.store.entries import Entry, drop, find, generation, is_new, key_of
from rammerge.store.exchanging import drop_unused, exchange, using
from rammerge.store.making import materialise, materialise_together
from rammerge.store.pruning import Pruned, prune
from rammerge.store.sharing import share, shared_url, try_shared

__all__ = [
    "Entry",
    "Pruned",
    "bring",
    "bring_file",
    "drop",
    "drop_unused",
    "exchange",
    "find",
    "generation",
    "has",
    "is_new",
    "is_pending",
    "key_of",
    "materialise",
    "materialise_together",
    "offer_file",
    "prune",
    "share",
    "shared_url",
    "trim",
    "try_shared",
    "using",
]
