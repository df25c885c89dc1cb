"""What a run of the pipeline came to."""

import io
import json
from html import escape
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, ValidationError
from rich.console import Console, Group
from rich.text import Text

from evaluation.judging.gates import GateDecision
from evaluation.judging.leaderboard import Leaderboard
from evaluation.report.differences import differences_to_rich
from evaluation.report.render import to_rich
from rammerge.errors import InputError
from rammerge.system.atomic import write_text
from rammerge.system.home import home

_TEXT_WIDTH = 140

Approval = Literal["none", "waiting", "approved", "refused"]


class Outcome(BaseModel):
    """The end of a run. It prints as the command does; a notebook shows its report.

    Attributes:
        recipe: its name.
        recipe_digest: of its content.
        leaderboard_file: every score, as `Leaderboard.from_json` reads it. Like the next two it is None if the recipe
            has no evaluation.
        decision_file: every gate's outcome, as `GateDecision.from_json` reads it.
        report: the run as one HTML page.
        selected: the variant chosen on validation.
        passed: whether no gate refused it.
        refusals: why not, one sentence for each gate.
        model: the selected variant's directory.
        registered: the registered model's name and version.
        champion: a sentence about the champion, or why it did not change.
        approval: what a person said, where one is asked before a promotion: `waiting` for an answer after the end of
            the run, `refused` also if nobody answered in time.
        run_id: the MLflow run.
        warnings: what the user should know about the merges.
    """

    model_config = ConfigDict(frozen=True)

    recipe: str
    recipe_digest: str
    leaderboard_file: Path | None
    decision_file: Path | None
    report: Path | None
    selected: str
    passed: bool
    refusals: list[str]
    model: Path
    registered: tuple[str, int]
    champion: str
    approval: Approval = "none"
    run_id: str
    warnings: list[str]

    def keep(self) -> None:
        """Remember this as the last run of the recipe, for `last`."""
        write_text(_memory(self.recipe), self.model_dump_json(indent=2))

    @classmethod
    def last(cls, recipe: str) -> "Outcome | None":
        """Return the outcome of the last run of the recipe of that name, unless its report is gone."""
        try:
            outcome = cls.model_validate_json(_memory(recipe).read_text("utf-8"))
        except (OSError, ValidationError):
            return None
        return outcome if outcome.report is None or outcome.report.is_file() else None

    @classmethod
    def referenced(cls) -> set[Path]:
        """Return the files and models in the store that the outcomes of all recipes' last runs lead to."""
        found: set[Path] = set()
        for outcome in cls.all_last():
            places = (outcome.leaderboard_file, outcome.decision_file, outcome.report, outcome.model)
            found |= {place for place in places if place is not None}
        return found

    @classmethod
    def all_last(cls) -> "list[Outcome]":
        """Return the outcome of the last run of each recipe, unless its report is gone."""
        return [outcome for file in (home() / "runs").glob("*.json") if (outcome := cls.last(file.stem))]

    @property
    def state(self) -> str:
        """The name of the state that a run with this outcome ends in."""
        if self.approval == "waiting":
            return "AwaitingApproval"
        return "Completed" if self.passed and self.approval != "refused" else "Refused"

    @property
    def sentence(self) -> str:
        """What came of it in one line: which gate refused and by how much, and who is champion."""
        chosen = "is selected" if self.leaderboard_file else "is not evaluated"
        verdict = " ".join(self.refusals) or f"{self.selected} {chosen}."
        return f"{verdict} {self.champion[:1].upper()}{self.champion[1:]}."

    @property
    def leaderboard(self) -> Leaderboard:
        """Every model's scores, with intervals and paired differences; InputError if there was no evaluation."""
        return Leaderboard.from_json(_read(self.leaderboard_file))

    @property
    def decision(self) -> GateDecision:
        """What each gate said about the selected variant, with its numbers; InputError if there was no evaluation."""
        return GateDecision.from_json(_read(self.decision_file))

    def __rich__(self) -> Group:
        """Return what a terminal shows."""
        warnings = [_line(("warning: ", "yellow"), warning) for warning in self.warnings]
        facts = [_line(f"{name:<11}", value) for name, value in self._facts()]
        if self.leaderboard_file is None:
            return Group(*warnings, *facts)
        board = self.leaderboard
        verdicts = [
            _line("gate       ", ("passed  ", "green") if gate.passed else ("refused ", "red"), gate.sentence)
            for gate in self.decision.outcomes
        ]
        return Group(to_rich(board), differences_to_rich(board), *warnings, "", *verdicts, *facts)

    def __str__(self) -> str:
        """Return what a terminal shows, without colors."""
        console = Console(file=io.StringIO(), width=_TEXT_WIDTH)
        with console.capture() as captured:
            console.print(self, highlight=False)
        return captured.get()

    def _repr_html_(self) -> str:
        """Return what a notebook shows: the report, in a frame in which no script runs."""
        if self.report is None:
            return f"<pre>{escape(str(self))}</pre>"
        page = escape(self.report.read_text("utf-8"))
        return f'<iframe sandbox srcdoc="{page}" style="width: 100%; height: 40rem; border: 0"></iframe>'

    def _facts(self) -> list[tuple[str, str]]:
        facts = {"selected": self.selected, "model": self.model, "report": self.report, "registry": self.champion}
        if self.report is None:
            facts = {"merged": self.selected, "evaluation": "none", "model": self.model, "registry": self.champion}
        return [(name, str(value)) for name, value in facts.items()]


def _line(*parts: str | tuple[str, str]) -> Text:
    return Text.assemble(*parts, no_wrap=True, overflow="ignore")


def _read(file: Path | None) -> Any:
    if file is None:
        raise InputError("the recipe has `evaluation: none`, so there are no scores; give it suites")
    return json.loads(file.read_text("utf-8"))


def _memory(recipe: str) -> Path:
    return home() / "runs" / f"{recipe}.json"
