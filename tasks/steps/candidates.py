"""The weights of a search's candidates, in the store for as long as the search wants them (kind `trial-model`).

Candidates that are asked at the same time are merged in one read of the models, for the trial that comes first.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rammerge import store
from rammerge.errors import RammergeError
from rammerge.recipe import Compute, Output
from tasks.steps.activations import Recorded
from tasks.steps.merging import Merged, merge, write_merges
from tasks.steps.methods import MethodRef
from tasks.steps.overlap import OverlapResult
from tasks.steps.sources import Groups, Model, open_family

_KIND, _VERSION = "trial-model", 1

# How to compute, and what is known of the models already. Neither changes a byte of a merge.
Known = tuple[Compute, OverlapResult, Recorded | None]


@dataclass(frozen=True)
class Candidates:
    """The merges that one search tries of a base and agents.

    Attributes:
        base: the base.
        agents: the agents, and the members of groups.
        groups: agent -> members.
        output: how merged models are written.
        owner: the search. Another one may still ask a model that this one has finished with.
    """

    base: Model
    agents: Mapping[str, Model]
    groups: Groups
    output: Output
    owner: str

    def key(self, method: MethodRef) -> str:
        """Return the key of the step `merge` by a method."""
        return merge.key(**self._given(method))

    def weights(self, method: MethodRef, others: Sequence[MethodRef], known: Known) -> Merged:
        """Return the merge by a method. If it is missing it is made, with those of `others` that are missing.

        One process makes them, and those who wait for it find theirs.
        """
        own = self._weights_key(method)
        if (found := merge.find(**self._given(method))) is not None:
            return found
        if (entry := store.find(_KIND, own)) is not None:
            return Merged.read(entry)
        wanted = {self._weights_key(each): each for each in others if self._is_missing(each)}
        wanted[own] = method

        def build(directories: Mapping[str, Path]) -> Iterator[str]:
            family = open_family(self.base, self.agents, self.groups, self.output.resize)
            keys = {directory: key for key, directory in directories.items()}
            methods = {directory: wanted[key] for directory, key in keys.items()}
            names = {directory: f"trial of {method.name} {method.params}" for directory, method in methods.items()}
            made = write_merges(family, methods, self.output, *known, names=names)
            yield from (keys[directory] for directory in made)

        try:
            return Merged.read(store.materialise_together(_KIND, wanted, build)[own])
        except RammergeError:  # which is said by its own trial, if it is one of the others that cannot be merged
            if (entry := store.find(_KIND, own)) is None:
                raise
            return Merged.read(entry)

    def forget(self, method: MethodRef) -> None:
        """Remove the weights of a candidate, if a trial has left any. Its answers stay."""
        store.drop(_KIND, self._weights_key(method))

    def _weights_key(self, method: MethodRef) -> str:
        return store.key_of(_KIND, _VERSION, {"merge": self.key(method), "owner": self.owner})

    def _is_missing(self, method: MethodRef) -> bool:
        return not merge.exists(**self._given(method))

    def _given(self, method: MethodRef) -> dict[str, Any]:
        given = {"base": self.base, "agents": self.agents, "groups": self.groups, "output": self.output}
        return {**given, "method": method}
