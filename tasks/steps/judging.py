"""Compare models, choose a variant, and judge it by the gates."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Self

from evaluation.judging.building import build_leaderboard
from evaluation.judging.deciding import decide, own_code, parse_gate
from evaluation.judging.gates import GateDecision
from evaluation.judging.leaderboard import BOARD, Champion, Leaderboard, Yardstick
from evaluation.report.render import to_markdown
from rammerge import store
from rammerge.errors import InputError
from rammerge.system.atomic import write_json, write_text
from tasks.runtime.result import Result
from tasks.runtime.step import step
from tasks.steps.evaluating import Scores


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
    write_text(out / "selected", board.selected)
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
