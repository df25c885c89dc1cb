"""A content-addressed store: a step's output is kept under the digest of everything that determines it."""

from rammerge.store.entries import Entry, drop, find, generation, is_new, key_of, materialise, materialise_together
from rammerge.store.pruning import Pruned, prune

__all__ = [
    "Entry",
    "Pruned",
    "drop",
    "find",
    "generation",
    "is_new",
    "key_of",
    "materialise",
    "materialise_together",
    "prune",
]
