"""The artifacts of a run in Prefect's dashboard. Keys are stable, so each run adds a version."""

import re
from base64 import b64encode
from collections.abc import Mapping, Sequence
from pathlib import Path
from uuid import UUID

from prefect import State, get_client
from prefect.artifacts import create_markdown_artifact, create_table_artifact
from prefect.logging import get_run_logger
from prefect.runtime import flow_run
from prefect.states import Completed

from evaluation.report.searches import search_markdown
from evaluation.report.words import percent, plain
from evaluation.search.history import History
from flows.run.telling import tell_of_move
from tasks.records.pages import file_fragment, mlflow_page, run_fragment, version_fragment
from tasks.records.promotion import Promotion
from tasks.records.record import NOT_EVALUATED
from tasks.records.releasing import Registered
from tasks.records.reporting import PAGE
from tasks.records.tracking import Tracked
from tasks.steps.history import Searched
from tasks.steps.judging import Compared, Decision
from tasks.steps.merging import Merged
from tasks.steps.overlap import OverlapResult

_KEY_DIGITS = 12


def publish_overlap(recipe: str, overlap: OverlapResult) -> None:
    """Show what each agent changed, alone and with others."""
    rows = [
        {
            "agent": agent,
            "changed": f"{row['active']:,}",
            "density": f"{row['density']:.1%}",
            "unique": f"{row['unique_share']:.1%}",
            "shared": f"{1 - row['unique_share']:.1%}" if row["active"] else "0.0%",
            "rho": "∞" if row["rho"] is None else f"{row['rho']:.3f}",
        }
        for agent, row in overlap.summary.items()
    ]
    create_table_artifact(rows, key=artifact_key("overlap", recipe), description=_overlap_words(overlap))


def publish_check(recipe: str, lines: Sequence[str]) -> None:
    """Show what a check found."""
    words = "\n".join(f"- {plain(line)}" for line in lines)
    create_markdown_artifact(words, key=artifact_key("check", recipe), description="Check")


def publish_progress(recipe: str, history: History) -> None:
    """Show what has become of the candidates of a search so far."""
    create_markdown_artifact(
        search_markdown(history), key=artifact_key("search", recipe), description="Search, still running"
    )


def publish_search(recipe: str, searched: Searched) -> None:
    """Show the candidates of a search with what they scored on how many items, and its figures."""
    figures = [
        _inline(searched.path / "search-history.png", "The trials of the search, one after the other"),
        _inline(searched.path / "search-pareto.png", "The average and the worst suite of each candidate"),
    ]
    markdown = "\n".join([searched.markdown, *figures, ""])
    create_markdown_artifact(markdown, key=artifact_key("search", recipe), description="Search")


def publish_leaderboard(recipe: str, leaderboard: Compared) -> None:
    """Show the leaderboard as Markdown with its figure, and as a table of the test scores in percent."""
    figure = _inline(leaderboard.path / "leaderboard.png", "The leaderboard as a figure")
    markdown = f"{leaderboard.markdown}\n{figure}\n"
    create_markdown_artifact(markdown, key=artifact_key("leaderboard", recipe), description="Leaderboard")
    rows = [
        {"model": row.name, "kind": row.kind}
        | {suite: percent(estimate.value) for suite, estimate in row.suites["test"].items()}
        | {"average": percent(row.average["test"].value)}
        for row in leaderboard.load().rows
    ]
    create_table_artifact(rows, key=artifact_key("scores", recipe), description="Test scores in percent")


def publish_variants(recipe: str, variants: Mapping[str, Merged]) -> None:
    """Show each variant's rescaling factors, warnings and place in the store."""
    # Prefect renders a cell as Markdown and breaks no lines in it: a dash would be a bullet, and a path or a warning
    # would push the other columns off the page.
    rows = [
        {
            "variant": name,
            "lambda": ", ".join(f"{agent} {value:.4f}" for agent, value in model.factors.items()) or "none",
            "key": f"`{model.path.parent.name[:_KEY_DIGITS]}`",
        }
        for name, model in variants.items()
    ]
    store = next(iter(variants.values())).path.parents[1]
    words = [f"The merged variants. Each model is in `{store}/`*key*`.../model`."]
    words += [f"- **{name}**: {plain(warning)}" for name, model in variants.items() for warning in model.warnings]
    create_table_artifact(rows, key=artifact_key("variants", recipe), description="\n".join(words))


def publish_decision(recipe: str, decision: Decision) -> None:
    """Show the decision of the gates."""
    create_markdown_artifact(decision.markdown, key=artifact_key("gates", recipe), description="Gate decision")


def publish_release(recipe: str, sentence: str, release: Registered, runs: Tracked, report: Path | None) -> None:
    """Show what was registered and who is champion, and lead to the report, if any, and to MLflow's pages of both."""
    version = version_fragment(release.name, release.version)
    run = run_fragment(runs.experiment, runs.run_id)
    page = file_fragment(runs.experiment, runs.run_id, PAGE)
    lines = [
        f"{sentence}.",
        "",
        f"- [The report]({mlflow_page(page)}), on disk `{report}`" if report else NOT_EVALUATED,
        f"- In MLflow: [version {release.version} of {release.name}]({mlflow_page(version)})",
        f"- In MLflow: [scores, figures and files of this run]({mlflow_page(run)})",
        f"- On disk: `{release.path}`",
        "",
    ]
    create_markdown_artifact("\n".join(lines), key=artifact_key("release", recipe), description="Release")


def end_move(moved: Promotion) -> State[Promotion]:
    """Show what a promotion or a rollback came to, tell who wants to hear, and return the state that says it."""
    lines = [f"{moved.sentence}.", "", *(f"- {plain(line)}" for line in (*moved.cautions, *moved.difference)), ""]
    create_markdown_artifact("\n".join(lines), key=artifact_key("release", moved.name), description="Release")
    if moved.changed and moved.champion is not None:
        for problem in tell_of_move(moved, moved.champion, "promoted"):
            get_run_logger().warning(problem)
    return Completed(name="Completed" if moved.changed else "Unchanged", message=moved.sentence, data=moved)


def tag_run(*tags: str) -> None:
    """Tag the current flow run, for the dashboard's filter.

    Afterwards rather than by `flow(tags=...)`, which its steps would inherit: for each tag of a step Prefect asks the
    server for a concurrency slot, and that takes seconds a step.
    """
    with get_client(sync_client=True) as client:
        client.update_flow_run(UUID(str(flow_run.id)), tags=list(tags))


def _overlap_words(overlap: OverlapResult) -> str:
    return "\n\n".join(
        ["Elements that each agent changed, alone (unique) or with others (shared)", *map(plain, overlap.warnings)]
    )


def _inline(image: Path, words: str) -> str:
    """Return Markdown that contains the PNG `image`, because the dashboard serves no files."""
    return f"![{words}](data:image/png;base64,{b64encode(image.read_bytes()).decode('ascii')})"


def artifact_key(what: str, recipe: str) -> str:
    """Return the key of an artifact of a recipe's runs."""
    # Prefect allows lowercase letters, digits and dashes.
    return re.sub(r"[^a-z0-9]+", "-", f"{recipe}-{what}".lower()).strip("-")
