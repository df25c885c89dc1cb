"""What decides the bytes of a merge: its inputs and its settings."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any, Self

if TYPE_CHECKING:  # reading a manifest needs none of these
    from rammerge.checkpoints.family import Family
    from rammerge.engine.options import MergeOptions
    from rammerge.rules import ResolvedMethod

# Raise this when the same inputs and settings give different bytes. It is part of cache keys.
MERGE_VERSION = 4

_METHOD = ("method", "preset", "params", "code", "weights", "tensors", "then", "prompts")
_GIVEN = ("code", "weights", "tensors", "then", "prompts", "groups")


@dataclass(frozen=True)
class Settings:
    """What a merge was asked to do, apart from its inputs and from what does not change a byte.

    Attributes:
        method, preset, params: the method with all its parameters settled.
        dtype, rounding, seed, shard_size: see MergeOptions.
        tokenizer_from: `base`, or the agent whose tokenizer was copied.
        resize: see Family.
        code: a digest of the method's code, if it is not one of rammerge's own.
        weights: factors of agents' task vectors, if not 1.
        tensors: what was done with some tensors instead, if anything.
        then: steps after the method, if any.
        prompts: what the base read, for a method that needs data: SHA-256 of the file, number of prompts, tokens.
        groups: agent -> members, for agents that are the mean of several checkpoints.
    """

    method: str
    preset: str | None
    params: Mapping[str, Any]
    dtype: str
    rounding: str
    seed: int
    shard_size: int
    tokenizer_from: str
    resize: str
    code: str | None = None
    weights: Mapping[str, float] | None = None
    tensors: Sequence[Mapping[str, Any]] | None = None
    then: Sequence[Mapping[str, Mapping[str, Any]]] | None = None
    prompts: Mapping[str, Any] | None = None
    groups: Mapping[str, Sequence[str]] | None = None

    @classmethod
    def of(cls, method: ResolvedMethod, options: MergeOptions, tokenizer_from: str, family: Family) -> Self:
        """Return the settings of a merge."""
        return cls(
            **method.to_json(),
            dtype=options.dtype,
            rounding=options.rounding,
            seed=options.seed,
            shard_size=options.shard_size,
            tokenizer_from=tokenizer_from,
            resize=family.resize,
            groups={name: list(members) for name, members in family.groups.items()} or None,
        )

    def of_tokens(self, tokens: int | None) -> Self:
        """Return the settings with the number of tokens of the prompts, which are known once the base has read them."""
        return self if tokens is None else replace(self, prompts={**(self.prompts or {}), "tokens": tokens})

    def exceptions(self) -> list[str]:
        """Return sentences: which agents are means, and what was done differently with some agents and tensors."""
        groups = (self.groups or {}).items()
        said = [f"Agent {name} is the mean of {', '.join(members)}." for name, members in groups]
        if self.weights:
            weights = ", ".join(f"{name} {weight:g}" for name, weight in self.weights.items())
            said.append(f"Weights of task vectors: {weights}; the others 1.")
        for rule in self.tensors or ():
            what = f"copied from {rule['use']}" if "use" in rule else f"merged with {listed(rule['params'])}"
            said.append(f"Tensors `{rule['match']}`: {what}.")
        for name, params in self.steps():
            said.append(f"Then `{name}` with {listed(params)}." if params else f"Then `{name}`.")
        if self.prompts:
            counted = f"{self.prompts['count']:,} unlabeled prompts, {self.prompts['tokens']:,} tokens"
            said.append(f"Made with data: {counted}, SHA-256 `{self.prompts['sha256']}`.")
        return said

    def steps(self) -> list[tuple[str, Mapping[str, Any]]]:
        """Return the name and the parameters of each step after the method."""
        return [step for steps in self.then or () for step in steps.items()]

    def method_json(self) -> dict[str, Any]:
        """Return the method as `ResolvedMethod.to_json` gives it."""
        return {key: value for key, value in self.to_json().items() if key in _METHOD}

    def to_json(self) -> dict[str, Any]:
        """Return everything as plain JSON. What was not given does not appear."""
        return {key: value for key, value in asdict(self).items() if value or key not in _GIVEN}


def listed(params: Mapping[str, Any]) -> str:
    """Return parameters as text."""
    return ", ".join(f"{key} = {value}" for key, value in params.items())


def merge_identity(family: Family, settings: Settings) -> dict[str, Any]:
    """Return all that the bytes of a merge depend on, as plain JSON."""
    inputs = [[name, digest.digest] for name, digest in family.digests.items()]
    return {"merge_version": MERGE_VERSION, "inputs": inputs, **settings.to_json()}
