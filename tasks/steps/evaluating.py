"""Evaluate models, compare them, choose a variant and judge it by the gates."""

import json
from collections.abc import Mapping, Sequence
from functools import partial
from importlib.metadata import version as installed
from pathlib import Path
from typing import Any, Self

from pydantic import BaseModel, ConfigDict

from evaluation.backends.serving import vllm_version
from evaluation.judging.gates import GateDecision, decide, own_code, parse_gate
from evaluation.judging.leaderboard import BOARD, Champion, Leaderboard, Yardstick, build_leaderboard
from evaluation.report.render import to_markdown
from evaluation.results import SuiteResult
from evaluation.runners.pool import Worker
from evaluation.suites import Split, Suite
from rammerge import store
from rammerge.errors import InputError
from rammerge.recipe import Recipe
from rammerge.system.atomic import write_json, write_text
from tasks.runtime.progress import progress
from tasks.runtime.slots import Claim, claim_of, share_out
from tasks.runtime.step import Result, step
from tasks.steps.packing import in_files
from tasks.steps.sources import Model, refuse_changed

_SUITE_VERSION = 2


class SuiteRef(BaseModel):
    """A suite that has been opened and checked.

    Attributes:
        name: its name in results and reports.
        path: its directory.
        digest: digest of its items and its scoring.
        sandbox: what runs the programs that models write, where it asks for programs.
        domain: what it measures, in a word.
        chat: whether its prompts are turns of a chat.
    """

    model_config = ConfigDict(frozen=True)

    name: str
    path: Path
    digest: str
    sandbox: str | None = None
    domain: str = ""
    chat: bool = False

    @property
    def identity(self) -> list[str]:
        """Name, content and sandbox; the path does not count."""
        return [self.name, self.digest, *([] if self.sandbox is None else [self.sandbox])]

    @classmethod
    def of(cls, suite: Suite) -> "SuiteRef":
        """Return what the steps need to know of an opened suite."""
        return cls(
            name=suite.name,
            path=suite.path,
            digest=suite.digest,
            sandbox=suite.sandbox,
            domain=suite.domain,
            chat=suite.apply_chat_template,
        )


class Conditions(BaseModel):
    """Everything that scores depend on, except the model and the suite.

    Attributes:
        batch_size: prompts at a time; None if each suite has its own.
        batches: prompts at a time by suite, where they are not the same for all.
        backend: what runs the models.
        vllm: its version, if it does.
        trust_remote_code: whether models may run the code that they bring.
        device: the kind, `cpu` or `cuda`: scores of one kind can be compared.
        devices: where models run; this is no part of the identity.
    """

    model_config = ConfigDict(frozen=True)

    dtype: str
    batch_size: int | None
    limit: int | None
    device: str
    lm_eval: str
    transformers: str
    torch: str
    batches: dict[str, int] = {}
    backend: str = "transformers"
    vllm: str | None = None
    trust_remote_code: bool = False
    devices: tuple[str, ...] = ("cpu",)

    @property
    def identity(self) -> dict[str, Any]:
        """All fields that say something, but for where models run."""
        return self.model_dump(exclude_defaults=True, exclude={"devices"})

    @classmethod
    def of(cls, recipe: Recipe, batches: Mapping[str, int] = {}) -> "Conditions":
        """Return the conditions of a recipe on this installation, with batches by suite where they were chosen."""
        asked = recipe.evaluation
        return cls(
            dtype=asked.dtype,
            batch_size=None if asked.batch_size == "auto" else asked.batch_size,
            limit=asked.limit,
            device=recipe.compute.kind_of_evaluation,
            devices=recipe.compute.evaluate_on,
            lm_eval=installed("lm_eval"),
            transformers=installed("transformers"),
            torch=installed("torch"),
            batches=dict(batches),
            backend=asked.backend,
            vllm=vllm_version() if asked.backend == "vllm" else None,
            trust_remote_code=asked.trust_remote_code,
        )

    def of_suite(self, suite: SuiteRef) -> "Conditions":
        """Return the conditions of one suite."""
        size = self.batches.get(suite.name, self.batch_size)
        return self.model_copy(update={"batch_size": size, "batches": {}})


class Scores(Result):
    """One model's results by suite: the directory with `<split>.json` and `<split>.jsonl` (samples), and the means."""

    directories: dict[str, Path]
    digests: dict[str, str]
    means: dict[str, dict[Split, float]]

    @property
    def identity(self) -> dict[str, str]:
        """The content of the results; the paths do not count."""
        return self.digests

    def load(self) -> dict[str, dict[Split, SuiteResult]]:
        """Return the results, item by item, by suite and split."""
        return {
            suite: {
                split: SuiteResult.from_json(json.loads((directory / f"{split}.json").read_text("utf-8")))
                for split in self.means[suite]
            }
            for suite, directory in self.directories.items()
        }

    @classmethod
    def read(cls, entry: store.Entry) -> Self:
        """Return the result that `evaluate` wrote, in a store that may have been elsewhere when it wrote it."""
        written = json.loads((entry.path / "scores.json").read_text("utf-8"))
        kinds = entry.path.parents[1]
        here = {suite: kinds.joinpath(*Path(path).parts[-3:]) for suite, path in written["directories"].items()}
        return cls(path=entry.path, digest=entry.digest, **(written | {"directories": here}))

    def holds(self) -> bool:
        """Return whether every suite's results are still in the store, unharmed; those of other machines come here."""
        return all(store.bring("suite", directory.parent.name) for directory in self.directories.values())


def model_claim(*, model: Model, conditions: Conditions, **_: Any) -> Claim:
    """Return what the model that a step asks needs. A server takes all memory that there is."""
    served = conditions.backend != "transformers" and conditions.device == "cpu"
    return Claim(alone=True) if served else claim_of(model.path, conditions.devices)


@step(
    "evaluate",
    version=2,
    run_name="evaluate {name}",
    result=Scores,
    ignore=["name"],
    runs_a_model=model_claim,
    work="evaluate",
)
def evaluate(out: Path, name: str, model: Model, suites: Sequence[SuiteRef], conditions: Conditions) -> None:
    """Run the model on every suite with lm-eval; a suite that these very weights were run on before is not run again.

    Args:
        out: written: `scores.json`, which names the store's entries, one a suite.
        name: what the model is to the recipe.
        model: the model directory.
        suites: what to ask.
        conditions: how to ask.
    """
    report = progress()

    def ask(number: int, suite: SuiteRef, process: Worker) -> store.Entry:
        report(number / len(suites), suite.name)
        inputs = {"model": model.content, "suite": suite.identity, "conditions": conditions.of_suite(suite).identity}
        run = partial(_run, process=process, model=model, suite=suite, conditions=conditions)
        return store.materialise("suite", store.key_of("suite", _SUITE_VERSION, inputs), run)

    # A process is taken before any of the store's locks: another step might wait for room while it holds one.
    work = [partial(ask, number, suite) for number, suite in enumerate(suites)]
    found = share_out(work, model_claim(model=model, conditions=conditions))
    write_scores(out, {suite.name: entry for suite, entry in zip(suites, found, strict=True)})


def write_scores(out: Path, entries: Mapping[str, store.Entry]) -> None:
    """Write `scores.json`, which `Scores` reads; `entries`, of the kind `suite`, have a model's results by suite."""
    scores = {
        # Below the store, wherever a machine has it.
        "directories": {suite: f"suite/{entry.path.name}/{suite}" for suite, entry in entries.items()},
        "digests": {suite: entry.digest for suite, entry in entries.items()},
        "means": {suite: _means(entry.path / suite) for suite, entry in entries.items()},
    }
    write_json(out / "scores.json", scores)


def _run(out: Path, *, process: Worker, model: Model, suite: SuiteRef, conditions: Conditions) -> None:
    with in_files(model) as whole:
        process.ask("evaluate", **harness_arguments(whole, suite, conditions), out=str(out))
        refuse_changed(whole)


def harness_arguments(model: Model, suite: SuiteRef, conditions: Conditions) -> dict[str, Any]:
    """Return what a process that runs models is told of a model, a suite and how to ask."""
    loaded = {
        "model_dir": str(model.path),
        "dtype": conditions.dtype,
        "batch_size": conditions.of_suite(suite).batch_size,
        "device": conditions.device,
        "backend": conditions.backend,
        "model_digest": model.digest,
    }
    asked = {"suite": str(suite.path), "suite_digest": suite.digest, "limit": conditions.limit}
    return {"model": loaded, **asked, "trust": conditions.trust_remote_code}


def _means(directory: Path) -> dict[str, float]:
    return {file.stem: json.loads(file.read_text("utf-8"))["mean"] for file in sorted(directory.glob("*.json"))}


class Compared(Result):
    """The leaderboard: `leaderboard.json`, `leaderboard.md` and `leaderboard.png` in `path`.

    Attributes:
        selected: the variant with the best validation average.
        markdown: the leaderboard for people.
    """

    selected: str
    markdown: str

    def load(self) -> Leaderboard:
        """Return the leaderboard with every model's scores of every item."""
        return Leaderboard.from_json(json.loads((self.path / BOARD).read_text("utf-8")))

    @classmethod
    def read(cls, entry: store.Entry) -> Self:
        """Return the result that `compare` wrote."""
        selected = (entry.path / "selected").read_text("utf-8")
        markdown = (entry.path / "leaderboard.md").read_text("utf-8")
        return cls(path=entry.path, digest=entry.digest, selected=selected, markdown=markdown)


@step("compare", version=3, run_name="compare", result=Compared)
def compare(
    out: Path,
    scores: Mapping[str, Scores],
    agents: Sequence[str],
    variants: Mapping[str, str],
    confidence: float,
    champion: Champion | None = None,
    yardsticks: Mapping[str, Yardstick] = {},
) -> None:
    """Compare all models item by item, and choose a variant on the validation split.

    Args:
        out: written: `leaderboard.json`, `.md` and `.png`, and `selected`.
        scores: by model; the base is called `base`.
        agents: the names of the agents.
        variants: name -> method of the variants.
        confidence: level of the intervals.
        champion: the present champion, if it has a separate row in `scores`.
        yardsticks: what else variants are measured against, by its row in `scores`.
    """
    from evaluation.report.figures import leaderboard_png  # matplotlib takes a second to import

    results = {name: model.load() for name, model in scores.items()}
    board = build_leaderboard(
        results,
        base="base",
        agents=agents,
        variants=variants,
        champion=champion,
        yardsticks=yardsticks,
        confidence=confidence,
    )
    write_json(out / BOARD, board.to_json())
    write_text(out / "leaderboard.md", to_markdown(board))
    write_text(out / "selected", board.select())
    (out / "leaderboard.png").write_bytes(leaderboard_png(board))


class Decision(Result):
    """The gates' decision on the selected variant: `decision.json` and `decision.md` in `path`."""

    variant: str
    passed: bool
    refusals: list[str]
    markdown: str

    def load(self) -> GateDecision:
        """Return every rule's outcome with its numbers."""
        return GateDecision.from_json(json.loads((self.path / "decision.json").read_text("utf-8")))

    @classmethod
    def read(cls, entry: store.Entry) -> Self:
        """Return the result that `gate` wrote."""
        decision = json.loads((entry.path / "decision.json").read_text("utf-8"))
        return cls(
            path=entry.path,
            digest=entry.digest,
            variant=decision["variant"],
            passed=decision["passed"],
            refusals=[outcome["sentence"] for outcome in decision["outcomes"] if not outcome["passed"]],
            markdown=(entry.path / "decision.md").read_text("utf-8"),
        )


@step("gate", version=3, run_name="gate", result=Decision, ignore=["trusted", "directory"])
def gate(
    out: Path,
    leaderboard: Compared,
    gates: Sequence[Mapping[str, Any]],
    champion: Champion | None,
    code: Mapping[str, str],
    trusted: Sequence[str] = (),
    directory: Path | None = None,
) -> None:
    """Judge the selected variant by the recipe's gates on the test split; write `decision.json` and `decision.md`.

    `champion` is the present champion, unless that is the selected variant itself. `code` has the digests of the rules'
    code where it is not rammerge's own; that code lies in the `trusted` modules, which may be in `directory`.
    """
    rules = [parse_gate(gate, trusted=trusted, directory=directory) for gate in gates]
    if own_code(rules) != code:
        raise InputError("the code of a gate was changed while the run was using it; run again")
    board = leaderboard.load().model_copy(update={"champion": champion})
    decision = decide(board, leaderboard.selected, rules)
    verdict = "passes every gate" if decision.passed else "is refused"
    lines = [f"**{decision.variant}** {verdict}.", ""]
    # A list, because the dashboards do not wrap lines in a table.
    lines += [f"- `{o.rule}` {'passed' if o.passed else '**refused**'}: {o.sentence}" for o in decision.outcomes]
    write_json(out / "decision.json", decision.to_json())
    write_text(out / "decision.md", "\n".join([*lines, ""]))
