"""What a pipeline run came to."""

from pathlib import Path

from pydantic import BaseModel, ConfigDict


class Outcome(BaseModel):
    """The end of a pipeline run.

    Attributes:
        recipe: its name.
        leaderboard: file with every score, as `Leaderboard.from_json` reads it.
        decision: file with every gate's outcome, as `GateDecision.from_json` reads it.
        selected: the variant chosen on validation.
        passed: whether it passed every gate.
        refusals: why not, one sentence a gate.
        model: the selected variant's directory.
        registered: the registered model's name and version.
        champion: sentence about the champion, or why there is no change.
        run_id: the MLflow run.
        warnings: what the user should know about the merges.
    """

    model_config = ConfigDict(frozen=True)

    recipe: str
    leaderboard: Path
    decision: Path
    selected: str
    passed: bool
    refusals: list[str]
    model: Path
    registered: tuple[str, int]
    champion: str
    run_id: str
    warnings: list[str]
