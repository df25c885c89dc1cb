"""The preflight of the evaluations: every suite is asked of every model, as far as that needs no weights.

It is no step of the pipeline, because `rammerge check` does it too. What an earlier check of the same files found is in
the store.
"""

import hashlib
import json
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from evaluation.runners.pool import Worker
from evaluation.runners.rehearsal import Rehearsed
from rammerge import store
from rammerge.checkpoints.checkpoint import find_sidecars
from rammerge.checkpoints.digest import digest_file
from rammerge.errors import InputError, RammergeError
from rammerge.system.atomic import write_json
from tasks.runtime.models import expect_models, model_process
from tasks.runtime.turns import Claim
from tasks.steps.conditions import Conditions, SuiteRef

_KIND, _VERSION = "rehearsal", 3
_FILE = "found.json"


class Rehearsal:
    """What has to hold before models are evaluated on suites."""

    def __init__(self, suites: Sequence[SuiteRef], models: Mapping[str, Path], conditions: Conditions) -> None:
        """Take the suites, the model directories by name, and the conditions; nothing is asked yet."""
        self._suites, self._models, self._conditions = suites, models, conditions

    def expect(self) -> None:
        """Begin to start what asks, which takes seconds, unless an earlier check found the answers; returns at once."""
        with suppress(InputError):  # whoever opens the models says what is wrong with them
            if self._suites and store.find(_KIND, self._key(readers(self._models))) is None:
                expect_models()

    def found(self) -> Rehearsed:
        """Return what the user should know, and how many items there are.

        Raises:
            InputError: a model cannot be asked, a task cannot be built, asked or scored, or no prompt of a task fits.
        """
        if not self._suites:
            return Rehearsed([], {})
        alike = readers(self._models)

        def rehearse(out: Path) -> None:
            with model_process(Claim()) as process:
                write_json(out / _FILE, self._ask(process, {name: str(path) for name, (_, path) in alike.items()}))

        entry = store.materialise(_KIND, self._key(alike), rehearse)
        return Rehearsed(**json.loads((entry.path / _FILE).read_text("utf-8")))

    def _ask(self, process: Worker, models: Mapping[str, str]) -> Any:
        suites = {str(suite.path): suite.digest for suite in self._suites}
        try:
            trust = self._conditions.trust_remote_code
            return process.ask("rehearse", models=models, suites=suites, limit=self._conditions.limit, trust=trust)
        except InputError:
            raise
        except RammergeError as error:  # without a model, little memory is used
            raise InputError(
                f"the code of a suite ended the process that tried it, or used up the memory; correct one of "
                f"{', '.join(suites)}"
            ) from error

    def _key(self, alike: Mapping[str, tuple[str, Path]]) -> str:
        inputs = {
            "suites": [suite.identity for suite in self._suites],
            "models": {name: digest for name, (digest, _) in alike.items()},
            "limit": self._conditions.limit,
            "lm_eval": self._conditions.lm_eval,
            "transformers": self._conditions.transformers,
        } | ({"trust": True} if self._conditions.trust_remote_code else {})
        return store.key_of(_KIND, _VERSION, inputs)


def readers(models: Mapping[str, Path]) -> dict[str, tuple[str, Path]]:
    """Return models that read prompts differently, by their names: a digest of what they read with, and a directory."""
    alike: dict[str, list[str]] = {}
    for name, path in models.items():
        files = [f"{file.name} {digest_file(file).sha256}" for file in find_sidecars(path)]
        alike.setdefault(hashlib.sha256("\n".join(files).encode()).hexdigest(), []).append(name)
    return {", ".join(names): (digest, models[names[0]]) for digest, names in alike.items()}
