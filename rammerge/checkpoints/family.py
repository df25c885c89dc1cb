"""A base and the agents that were trained from it: opened, checked and digested once."""

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import chain
from pathlib import Path
from types import MappingProxyType
from typing import Self, get_args

from rammerge.checkpoints.checkpoint import Checkpoint
from rammerge.checkpoints.digest import CheckpointDigest, digest_checkpoint, fingerprint
from rammerge.checkpoints.fetch import fetch
from rammerge.checkpoints.held import check_room, hold
from rammerge.checkpoints.licences import licence_problems
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
        members: views of the agents' checkpoints, with exactly the names and shapes of `base` and in the order of
            summation. The members of a group follow each other.
        groups: agent -> members, for agents that are the mean of several checkpoints.
        sources: the checkpoints as they are stored: `base`, and the members by name.
        resize: what became of agents that appended vocabulary rows: refused, or merged on the rows of the base.
        warnings: what the user should know.
        states: the status of each source's files when it was opened.
    """

    base: Checkpoint
    members: Mapping[str, Checkpoint]
    groups: Mapping[str, tuple[str, ...]]
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
        groups: Mapping[str, Sequence[str]] | None = None,
        resize: Resize = "refuse",
        progress: Callable[[str], None] | None = None,
    ) -> Self:
        """Open the checkpoints and check that every agent can be merged into the base.

        Args:
            base: the model that the agents were trained from.
            agents: name -> agent; their order is the order of summation.
            groups: name of an agent that is the mean of several checkpoints -> the names of these in `agents`. It is
                merged exactly as the float32 checkpoint that averaging them would write.
            resize: `refuse` agents that appended vocabulary rows, or merge them on the `common` rows: the merged model
                then has the base's vocabulary.
            progress: called with one line for each long step, such as a download, as it begins.

        Raises:
            InputError: a source cannot be opened, or an agent cannot be merged; names it and the fix.
            RammergeError: the hub did not answer; the same call may succeed later.
        """
        check_choice("resize", resize, get_args(Resize))
        _check_names(agents)
        grouped = _checked_groups(agents, groups or {})
        opened = {"base": _open(base, None, progress)}
        opened |= {name: _open(agent, opened["base"], progress) for name, agent in agents.items()}
        states = {name: fingerprint(checkpoint) for name, checkpoint in opened.items()}
        seen, views, warnings = check_mergeable(opened["base"], {name: opened[name] for name in agents}, resize)
        return cls(
            base=seen,
            members=MappingProxyType({name: views[name] for name in chain(*_agents(views, grouped).values())}),
            groups=MappingProxyType(grouped),
            sources=MappingProxyType(opened),
            resize=resize,
            warnings=(*warnings, *licence_problems(opened)),
            states=MappingProxyType(states),
        )

    @cached_property
    def agents(self) -> Mapping[str, tuple[Checkpoint, ...]]:
        """What is merged: by agent the view of its checkpoint, or of each checkpoint of its group."""
        names = _agents(self.members, self.groups)
        return {name: tuple(self.members[member] for member in members) for name, members in names.items()}

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

    def held(self) -> Self:
        """Return the family with all weights in memory, for merges that are tried one after the other.

        The memory is freed with the family.

        Raises:
            InputError: they do not fit into the memory that is free.
        """
        check_room([self.base, *self.members.values()])
        members = {name: hold(member) for name, member in self.members.items()}
        return replace(self, base=hold(self.base), members=MappingProxyType(members))

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


def _check_names(agents: Collection[str]) -> None:
    if not agents:
        raise InputError("there is no agent to merge; name at least one")
    if "base" in agents:
        raise InputError("an agent cannot be named 'base'; give it a different name")


def _checked_groups(agents: Mapping[str, Source], groups: Mapping[str, Sequence[str]]) -> dict[str, tuple[str, ...]]:
    free = set(agents)
    for name, members in groups.items():
        if name in {"base", *agents}:
            raise InputError(f"the group '{name}' has the name of a model; give it a different one")
        if not members or len(set(members)) < len(members) or not free.issuperset(members):
            raise InputError(f"the group '{name}' has the members {list(members)}; name agents, each in one group")
        free -= set(members)
    return {name: tuple(members) for name, members in groups.items()}


def _agents(members: Iterable[str], groups: Mapping[str, tuple[str, ...]]) -> dict[str, tuple[str, ...]]:
    """Return agent -> members, in the order in which their first members are given."""
    whose = {member: name for name, those in groups.items() for member in those}
    names = dict.fromkeys(whose.get(member, member) for member in members)
    return {name: groups.get(name, (name,)) for name in names}


def _open(source: Source, base: Checkpoint | None, progress: Callable[[str], None] | None) -> Checkpoint:
    return source if isinstance(source, Checkpoint) else fetch(str(source), base=base, progress=progress)
