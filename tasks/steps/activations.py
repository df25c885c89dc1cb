"""The data that some methods need: prompts, and a step that runs the base on them."""

import json
from pathlib import Path
from typing import Any, Self

from pydantic import BaseModel, ConfigDict

from rammerge import store
from rammerge.activations.activations import Activations
from rammerge.activations.prompts import Prompts
from rammerge.errors import RammergeError
from rammerge.recipe import Compute
from rammerge.store import Entry
from rammerge.system.atomic import write_json
from tasks.runtime.models import model_process
from tasks.runtime.result import Result
from tasks.runtime.step import step
from tasks.runtime.turns import Claim, claim_of
from tasks.steps.rehearsing import readers
from tasks.steps.sources import Model

_KIND, _VERSION = "prompts", 1


class PromptsRef(BaseModel):
    """A file of prompts as it was when the run was planned.

    Attributes:
        path: the file.
        sha256: of its bytes.
    """

    model_config = ConfigDict(frozen=True)

    path: Path
    sha256: str

    @classmethod
    def of(cls, prompts: Prompts) -> Self:
        """Return prompts that can be read again in a different process."""
        return cls(path=prompts.path, sha256=prompts.sha256)

    @property
    def identity(self) -> str:
        """What the file says; where it is does not count."""
        return self.sha256

    def read(self) -> Prompts:
        """Return the prompts.

        Raises:
            RammergeError: the file was changed since.
        """
        prompts = Prompts.read(self.path)
        if prompts.sha256 != self.sha256:
            raise RammergeError(f"{self.path} was changed after the run was planned; run again")
        return prompts

    def described(self, base: Path) -> str:
        """Return how many tokens the base reads. What an earlier check of the same files found is in the store.

        Raises:
            InputError: the base cannot read a prompt, or the prompts are too long.
        """
        (digest,) = (digest for digest, _ in readers({"base": base}).values())

        def count(out: Path) -> None:
            with model_process(Claim()) as process:
                tokens = process.ask("count_tokens", model_dir=str(base), prompts=str(self.path))
            write_json(out / "tokens.json", {"prompts": len(self.read().items), "tokens": tokens})

        entry = store.materialise(_KIND, store.key_of(_KIND, _VERSION, {"prompts": self.sha256, "base": digest}), count)
        found = json.loads((entry.path / "tokens.json").read_text("utf-8"))
        return f"prompts: {found['prompts']:,} in {self.path.name}, {found['tokens']:,} tokens"


class Recorded(Result):
    """Activations of the base on prompts, in `path`."""

    tokens: int

    @classmethod
    def read(cls, entry: Entry) -> Self:
        """Return the result that `activations` wrote."""
        return cls(path=entry.path, digest=entry.digest, tokens=_opened(entry.path).tokens)

    def opened(self) -> Activations:
        """Return the activations as the library takes them.

        Raises:
            RammergeError: they are gone.
        """
        return _opened(self.path)


def _opened(path: Path) -> Activations:
    found = Activations.open(path)
    if found is None:
        raise RammergeError(f"the activations in {path} are gone; run again")
    return found


def _claim(*, base: Model, compute: Compute, **_: Any) -> Claim:
    return claim_of(base.path, compute.evaluate_on)


@step(
    "activations",
    version=1,
    run_name="run base on prompts",
    result=Recorded,
    ignore=["compute"],
    runs_a_model=_claim,
    work="evaluate",
)
def activations(out: Path, base: Model, prompts: PromptsRef, compute: Compute) -> None:
    """Run the base on prompts and write what flows into its linear layers, in float32.

    Raises:
        InputError: the base cannot read a prompt, or its activations are not finite.
    """
    prompts.read()
    where = {"model_dir": str(base.path), "prompts": str(prompts.path), "out": str(out)}
    with model_process(_claim(base=base, compute=compute)) as process:
        process.ask("record", device=compute.kind_of_evaluation, **where)
