"""Champion and challengers over the runs of a recipe, as a chart: in Prefect an artifact, in MLflow metrics by run."""

import time
from base64 import b64encode

from prefect.artifacts import create_markdown_artifact

from evaluation.report.trend import At, trend_svg
from evaluation.report.words import percent
from flows.run.artifacts import artifact_key
from flows.run.past import Past, Score, past_runs
from tasks.records.pages import mlflow_page, run_fragment
from tasks.records.trend import log_trend

# A year of nightly runs is a curve; their table would be a book.
_DRAWN, _LISTED = 365, 20


def publish(last: Past) -> None:
    """Show the trend of the recipe whose run has just ended."""
    roles = {"challenger": last.challenger, "champion": last.champion}
    scores = {f"{role}/{bound}": value for role, score in roles.items() if score for bound, value in score}
    experiment, run = log_trend(last.recipe, last.number, {**scores, "seconds": last.seconds})
    page = mlflow_page(run_fragment(experiment, run))
    words = markdown(past_runs(last.recipe)[-_DRAWN:])
    create_markdown_artifact(
        f"{words}\n[The same in MLflow]({page})\n", key=artifact_key("trend", last.recipe), description="Trend"
    )


def markdown(runs: list[Past]) -> str:
    """Return a chart of the test averages, and a table of the latest runs."""
    image = b64encode(trend_svg({role: _drawn(runs, role) for role in ("challenger", "champion")}).encode()).decode()
    lines = [
        f"![Test average of challenger and champion over the runs](data:image/svg+xml;base64,{image})",
        "",
        "| run | ended (UTC) | outcome | challenger | champion | version | seconds |",
        "| ---: | --- | --- | ---: | ---: | ---: | ---: |",
    ]
    for run in reversed(runs[-_LISTED:]):
        ended = time.strftime("%Y-%m-%d %H:%M", time.gmtime(run.started + run.seconds))
        lines.append(
            f"| {run.number} | {ended} | {run.end} | {_shown(run.challenger)} | {_shown(run.champion)} "
            f"| {run.champion_version or ''} | {run.seconds:.0f} |"
        )
    return "\n".join([*lines, ""])


def _drawn(runs: list[Past], role: str) -> list[At]:
    scores = [(run.number, getattr(run, role)) for run in runs]
    return [At(number, score.value, score.low, score.high) for number, score in scores if score is not None]


def _shown(score: Score | None) -> str:
    return f"{percent(score.value)} ({percent(score.low)} to {percent(score.high)})" if score else "-"
