"""A base and the agents that were trained from it: opened, checked and digested once."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from types import MappingProxyType
from typing import Self, get_args

from rammerge.checkpoints.checkpoint import Checkpoint
from rammerge.checkpoints.digest import CheckpointDigest, digest_checkpoint, fingerprint
from rammerge.checkpoints.fetch import fetch
from rammerge.checkpoints.mergeable import Resize, check_mergeable
from rammerge.errors import InputError, RammergeError, check_choice

# A directory, a hub id `org/name[@revision]`, or a checkpoint that is open already.
Source = str | Path | Checkpoint


@dataclass(frozen=True)
class Family:
    """Checkpoints that can be merged.

    Attributes:
        base: a view of the model that the agents were trained from: with its embedding as a separate head too, if an
            agent keeps the two apart.
        agents: views of the agents with exactly the names and shapes of `base`, in the order of summation.
        sources: the checkpoints as they are stored: `base`, and the agents by name.
        resize: what became of agents that appended vocabulary rows: refused, or merged on the rows of the base.
        warnings: what the user should know.
        states: the status of each source's files when it was opened.
    """

    base: Checkpoint
    agents: Mapping[str, Checkpoint]
    sources: Mapping[str, Checkpoint]
    resize: Resize
    warnings: tuple[str, ...]
    states: Mapping[str, str]

    @classmethod
    def open(
        cls,
        base: Source,
        agents: Mapping[str, Source],
        *,
        resize: Resize = "refuse",
        progress: Callable[[str], None] | None = None,
    ) -> Self:
        """Open the checkpoints and check that every agent can be merged into the base.

        Args:
            base: the model that the agents were trained from.
            agents: name -> agent; their order is the order of summation.
            resize: `refuse` agents that appended vocabulary rows, or merge them on the `common` rows: the merged model
                then has the base's vocabulary.
            progress: called with one line for each long step, such as a download, as it begins.

        Raises:
            InputError: a source cannot be opened, or an agent cannot be merged; names it and the fix.
            RammergeError: the hub did not answer; the same call may succeed later.
        """
        check_choice("resize", resize, get_args(Resize))
        if not agents:
            raise InputError("there is no agent to merge; name at least one")
        if "base" in agents:
            raise InputError("an agent cannot be named 'base'; give it a different name")
        opened = {"base": _open(base, None, progress)}
        for name, agent in agents.items():
            opened[name] = _open(agent, opened["base"], progress)
        states = {name: fingerprint(checkpoint) for name, checkpoint in opened.items()}
        originals = {name: opened[name] for name in agents}
        seen, views, warnings = check_mergeable(opened["base"], originals, resize)
        return cls(
            base=seen,
            agents=MappingProxyType(views),
            sources=MappingProxyType(opened),
            resize=resize,
            warnings=tuple(warnings),
            states=MappingProxyType(states),
        )

    @cached_property
    def digests(self) -> Mapping[str, CheckpointDigest]:
        """The content digest of each source."""
        return {name: digest_checkpoint(checkpoint) for name, checkpoint in self.sources.items()}

    @cached_property
    def floats(self) -> tuple[str, ...]:
        """The names of the float tensors."""
        return tuple(name for name, info in self.base.tensors.items() if info.dtype.is_floating_point)

    @property
    def elements(self) -> int:
        """How many float elements the model has."""
        return sum(self.base.tensors[name].numel for name in self.floats)

    def check_unchanged(self) -> None:
        """Check that no file was written since the checkpoints were opened.

        Raises:
            RammergeError: one was.
        """
        for name, checkpoint in self.sources.items():
            if fingerprint(checkpoint) != self.states[name]:
                raise RammergeError(
                    f"{checkpoint.path} changed after it was opened; run again once nothing writes to it"
                )


def _open(source: Source, base: Checkpoint | None, progress: Callable[[str], None] | None) -> Checkpoint:
    return source if isinstance(source, Checkpoint) else fetch(str(source), base=base, progress=progress)
