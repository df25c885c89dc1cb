"""A variant's method as an argument of steps, which may run in other processes."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Self

from pydantic import BaseModel, ConfigDict

from rammerge.errors import RammergeError
from rammerge.rules import ResolvedMethod, restore
from tasks.steps.activations import PromptsRef


class MethodRef(BaseModel):
    """A variant's method with every parameter settled, as `rammerge.rules.resolve` returns it.

    Attributes:
        name, preset, params: what was chosen.
        code: a digest of the code of a method that is not rammerge's own.
        weights, tensors, then: what is done differently with some agents and tensors, and what is done with the result,
            as `ResolvedMethod.to_json` gives it.
        whole_matrices: whether it merges whole matrices, and so reads the models by itself.
        prompts: what the base reads, for a method that needs data.
        trusted: modules whose code the recipe trusts.
        directory: the recipe's, where a module may be.
    """

    model_config = ConfigDict(frozen=True)

    name: str
    preset: str | None
    params: dict[str, Any]
    code: str | None = None
    weights: dict[str, float] = {}
    tensors: list[dict[str, Any]] = []
    then: list[dict[str, Any]] = []
    prompts: PromptsRef | None = None
    whole_matrices: bool = False
    trusted: tuple[str, ...] = ()
    directory: Path | None = None

    @classmethod
    def of(cls, settled: ResolvedMethod, *, trusted: Sequence[str], directory: Path) -> Self:
        """Return a method that can be found again in a different process."""
        return cls(
            name=settled.name,
            preset=settled.preset,
            params=dict(settled.params),
            code=settled.method.code,
            weights=dict(settled.weights),
            tensors=[rule.to_json() for rule in settled.tensors],
            then=[step.to_json() for step in settled.then],
            prompts=PromptsRef.of(settled.prompts) if settled.prompts else None,
            whole_matrices=settled.whole_matrices,
            trusted=tuple(trusted),
            directory=directory,
        )

    @property
    def identity(self) -> dict[str, Any]:
        """What was chosen, and the code of a method of the user's own; where it is found does not count."""
        given = {key for key in ("code", "weights", "tensors", "then") if getattr(self, key)}
        content = self.model_dump(mode="json", include={"name", "preset", "params", *given})
        return content | ({"prompts": self.data} if self.prompts else {})

    @property
    def data(self) -> str:
        """What identifies the method's prompts; empty for a method that needs no data."""
        return self.prompts.sha256 if self.prompts else ""

    @property
    def words(self) -> str:
        """The method with its preset and parameters, and the steps after it, for people."""
        said = [self.name, *([f"preset {self.preset}"] if self.preset else [])]
        said += [f"{name} {value}" for name, value in self.params.items() if value is not None]
        said += [f"weight of {agent} {weight:g}" for agent, weight in self.weights.items()]
        said += [f"{len(self.tensors)} rule{'s' * (len(self.tensors) > 1)} for tensors"] if self.tensors else []
        for written in self.then:
            for step, params in written.items():
                said.append(" ".join([f"then {step}", *(f"{name} {value}" for name, value in params.items())]))
        return ", ".join(said)

    def resolved(self) -> ResolvedMethod:
        """Return the method as the library takes it.

        Raises:
            RammergeError: the method's code or its prompts are no longer what they were when the run was planned.
        """
        found = restore(
            self.name,
            self.preset,
            self.params,
            weights=self.weights,
            tensors=self.tensors,
            then=self.then,
            prompts=self.prompts.read() if self.prompts else None,
            trusted=self.trusted,
            directory=self.directory,
        )
        if found.method.code != self.code:
            raise RammergeError(f"the code of method '{self.name}' changed after the run was planned; run again")
        return found


def said_of(methods: Mapping[str, MethodRef], sentences: Callable[[ResolvedMethod], Sequence[str]]) -> list[str]:
    """Return what `sentences` say of variants' methods, each once with the names of its variants."""
    said: dict[str, list[str]] = {}
    for name, method in methods.items():
        for sentence in sentences(method.resolved()):
            said.setdefault(sentence, []).append(name)
    return [f"{', '.join(names)}: {sentence}" for sentence, names in said.items()]
