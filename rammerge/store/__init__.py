"""A content-addressed store: a step's output is kept under the digest of everything that determines it."""

from rammerge.store.entries import Entry, drop, find, generation, is_new, key_of, materialise, materialise_together
from rammerge.store.exchanging import drop_unused, exchange, using
from rammerge.store.pruning import Pruned, prune

__all__ = [
    "Entry",
    "Pruned",
    "drop",
    "drop_unused",
    "exchange",
    "find",
    "generation",
    "is_new",
    "key_of",
    "materialise",
    "materialise_together",
    "prune",
    "using",
]
