"""The step that proves that a merged model runs."""

import json
from pathlib import Path
from typing import Any, Self

from rammerge.errors import RammergeError
from rammerge.recipe import Compute
from rammerge.store import Entry
from rammerge.system.atomic import write_json
from tasks.runtime.models import model_process
from tasks.runtime.result import Result
from tasks.runtime.step import step
from tasks.runtime.turns import Claim, claim_of
from tasks.steps.packing import in_files
from tasks.steps.sources import Model


class Smoked(Result):
    """The text of a short generation, which proves that transformers loads the model and can generate with it."""

    text: str

    @classmethod
    def read(cls, entry: Entry) -> Self:
        """Return the result that `smoke` wrote."""
        text = json.loads((entry.path / "smoke.json").read_text("utf-8"))["text"]
        return cls(path=entry.path, digest=entry.digest, text=text)


def _claim(*, model: Model, compute: Compute, **_: Any) -> Claim:
    return claim_of(model.path, compute.evaluate_on)


@step(
    "smoke",
    version=1,
    run_name="smoke {name}",
    result=Smoked,
    ignore=["name", "compute"],
    runs_a_model=_claim,
    work="evaluate",
)
def smoke(out: Path, name: str, model: Model, compute: Compute) -> None:
    """Check that transformers loads the model, that its logits are finite and that it generates; write `smoke.json`.

    Raises:
        RammergeError: one of these fails; then nothing is registered.
    """
    try:
        claim = _claim(model=model, compute=compute)
        with in_files(model) as whole, model_process(claim) as process:
            text, finite = process.ask("try_out", model_dir=str(whole.path), device=compute.kind_of_evaluation)
    except RammergeError as error:
        raise RammergeError(f"the merge '{name}' does not run in transformers: {error}") from error
    if not finite:
        raise RammergeError(f"the merge '{name}' at {model.path} gives logits that are not finite; inspect the agents")
    write_json(out / "smoke.json", {"text": text})
