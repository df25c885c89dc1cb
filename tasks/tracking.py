"""Record a pipeline run in MLflow: a parent run, and a child run for each variant."""

import json
import shutil
import tempfile
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rammerge.atomic import write_json
from rammerge.home import home
from rammerge.recipe import Recipe
from rammerge.store import Entry
from tasks import registry
from tasks.environment import tracking_server
from tasks.evaluating import Compared, Decision, SuiteRef
from tasks.merging import Merged, Method, OverlapResult
from tasks.sources import Model
from tasks.step import TRACKING_RETRIES, Result, step

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import DatasetInput

    from evaluation.leaderboard import Row

TAG_KEY = "rammerge.pipeline"
# Without it MLflow's dashboard shows an experiment as one of traces and prompts, of which there are none.
_SHOWN_AS_RUNS = {"mlflow.experimentKind": "custom_model_development"}


class Tracked(Result):
    """The MLflow runs: the parent's id, and each variant's."""

    run_id: str
    children: dict[str, str]

    @property
    def identity(self) -> str:
        """Runs are told apart by MLflow."""
        return self.run_id


def tracked(entry: Entry) -> Tracked:
    """Read what `track` wrote."""
    return Tracked(path=entry.path, digest=entry.digest, **json.loads((entry.path / "runs.json").read_text("utf-8")))


def recorded(entry: Entry) -> bool:
    """Say whether MLflow still has the runs."""
    from mlflow.exceptions import MlflowException

    runs = tracked(entry)
    try:
        found = [registry.client().get_run(run) for run in (runs.run_id, *runs.children.values())]
    except MlflowException:
        return False
    return all(run.info.lifecycle_stage == "active" and run.info.status == "FINISHED" for run in found)


@step(
    "track",
    version=1,
    run_name="record in MLflow",
    result=tracked,
    valid=recorded,
    ignore=["recipe_file", "flow_run"],
    retries=TRACKING_RETRIES,
)
def track(
    out: Path,
    recipe: Recipe,
    base: Model,
    agents: Mapping[str, Model],
    methods: Mapping[str, Method],
    variants: Mapping[str, Merged],
    suites: Sequence[SuiteRef],
    overlap: OverlapResult,
    leaderboard: Compared,
    decision: Decision,
    recipe_file: str,
    flow_run: str,
) -> None:
    """Record parameters, scores, the recipe, the leaderboard, the decision, figures and what was measured on.

    Runs that an earlier, killed attempt left unfinished are removed first. Written: `runs.json`.
    """
    from mlflow.utils.mlflow_tags import MLFLOW_PARENT_RUN_ID, MLFLOW_RUN_NOTE

    mlflow = registry.client()
    experiment = _experiment(mlflow, recipe.name)
    key = f"{recipe.digest[:16]}-{decision.digest[:16]}"
    _remove_unfinished(mlflow, experiment, key)
    board = leaderboard.load()
    rows = {row.name: row for row in board.rows}
    sources = {name: _source(model) for name, model in {"base": base, **agents}.items()}
    common = {
        "rammerge.recipe": recipe.digest,
        "rammerge.prefect_run": flow_run,
        **{f"rammerge.source.{name}": source for name, source in sources.items()},
    }
    start = partial(mlflow.create_run, experiment)
    gates = "passed" if decision.passed else "refused"
    tags = {**common, TAG_KEY: key, "rammerge.selected": board.selected, "rammerge.gates": gates}
    parent = start(run_name=recipe.name, tags={**tags, MLFLOW_RUN_NOTE: leaderboard.markdown}).info.run_id
    params = {"base": sources["base"], **{f"agent.{name}": sources[name] for name in agents}}
    settings = {f"output.{name}": value for name, value in recipe.output.model_dump().items()}
    measured = {f"evaluation.{name}": value for name, value in recipe.evaluation.model_dump().items()}
    inputs = [_dataset(suite) for suite in suites]
    metrics = _metrics(rows[board.selected])
    for name in ("base", *agents):
        metrics |= {f"{name}/{metric}": value for metric, value in _metrics(rows[name]).items()}
    _log(mlflow, parent, {**params, **settings, **measured}, metrics, inputs)
    _log_files(mlflow, parent, Path(recipe_file), leaderboard, decision, overlap)
    children = {}
    for name, model in variants.items():
        method = methods[name]
        child_tags = {**common, MLFLOW_PARENT_RUN_ID: parent, registry.TAG_DIGEST: model.content}
        if name == board.selected:
            child_tags |= {"rammerge.selected": "true", "rammerge.gates": gates}
        child = start(run_name=name, tags=child_tags).info.run_id
        own = {"method": method.name, "preset": method.preset, **{f"method.{k}": v for k, v in method.params.items()}}
        rescaling = {f"lambda/{agent}": value for agent, value in (model.manifest["lambda"] or {}).items()}
        _log(mlflow, child, {**own, **settings}, {**_metrics(rows[name]), **rescaling}, inputs)
        for file in ("rammerge.json", "README.md"):
            mlflow.log_artifact(child, str(model.path / file))
        mlflow.set_terminated(child)
        children[name] = child
    mlflow.set_terminated(parent)
    write_json(out / "runs.json", {"run_id": parent, "children": children})


def _experiment(mlflow: "MlflowClient", name: str) -> str:
    from mlflow.exceptions import MlflowException

    if found := mlflow.get_experiment_by_name(name):
        return str(found.experiment_id)
    # A local place, so that models are registered by hard links; a server elsewhere chooses its own.
    location = None if tracking_server() else (home() / "mlflow" / "artifacts" / name).as_uri()
    try:
        return str(mlflow.create_experiment(name, artifact_location=location, tags=_SHOWN_AS_RUNS))
    except MlflowException:  # another run was faster
        found = mlflow.get_experiment_by_name(name)
        if found is None:
            raise
        return str(found.experiment_id)


def _remove_unfinished(mlflow: "MlflowClient", experiment: str, key: str) -> None:
    for parent in mlflow.search_runs([experiment], f"tags.`{TAG_KEY}` = '{key}' and attributes.status = 'RUNNING'"):
        children = mlflow.search_runs([experiment], f"tags.`mlflow.parentRunId` = '{parent.info.run_id}'")
        for run in (*children, parent):
            mlflow.delete_run(run.info.run_id)


def _log(
    mlflow: "MlflowClient",
    run: str,
    params: Mapping[str, Any],
    metrics: Mapping[str, float],
    inputs: "Sequence[DatasetInput]",
) -> None:
    import time

    from mlflow.entities import Metric, Param

    now = int(time.time() * 1000)
    mlflow.log_batch(
        run,
        metrics=[Metric(name, value, now, 0) for name, value in metrics.items()],
        params=[Param(name, json.dumps(v) if isinstance(v, list | dict) else str(v)) for name, v in params.items()],
    )
    mlflow.log_inputs(run, datasets=inputs)


def _log_files(
    mlflow: "MlflowClient", run: str, recipe: Path, leaderboard: Compared, decision: Decision, overlap: OverlapResult
) -> None:
    with tempfile.TemporaryDirectory() as scratch:
        shutil.copyfile(recipe, Path(scratch) / "recipe.yaml")
        for directory in (leaderboard.path, decision.path, overlap.path):
            shutil.copytree(directory, scratch, dirs_exist_ok=True, ignore=shutil.ignore_patterns(".*"))
        mlflow.log_artifacts(run, scratch)


def _metrics(row: "Row") -> dict[str, float]:
    metrics = {}
    for split, suites in row.suites.items():
        for suite, estimate in suites.items():
            metrics[f"{split}/{suite}"] = estimate.value
        metrics[f"{split}/average"] = row.average[split].value
        metrics[f"{split}/average_low"] = row.average[split].low
        metrics[f"{split}/average_high"] = row.average[split].high
    return metrics


def _source(model: Model) -> str:
    return f"{model.source}{f'@{model.revision}' if model.revision else ''} sha256:{model.digest}"


def _dataset(suite: SuiteRef) -> "DatasetInput":
    from mlflow.entities import Dataset, DatasetInput, InputTag

    source = json.dumps({"suite": suite.name, "digest": suite.digest})
    dataset = Dataset(name=suite.name, digest=suite.digest[:36], source_type="rammerge-suite", source=source)
    return DatasetInput(dataset, [InputTag("mlflow.data.context", "evaluation")])


class Registered(Result):
    """The version that holds the selected variant."""

    name: str
    version: int

    @property
    def identity(self) -> list[str | int]:
        """Versions are told apart by MLflow."""
        return [self.name, self.version]


def registered(entry: Entry) -> Registered:
    """Read what `register` wrote."""
    release = json.loads((entry.path / "release.json").read_text("utf-8"))
    return Registered(path=release["path"], digest=entry.digest, name=release["name"], version=release["version"])


def still_registered(entry: Entry) -> bool:
    """Say whether MLflow still has the version, with its files."""
    release = json.loads((entry.path / "release.json").read_text("utf-8"))
    found = registry.find_release(release["name"], release["tags"][registry.TAG_DIGEST])
    return found is not None and found.version == release["version"]


@step(
    "register",
    version=1,
    run_name="register {name}",
    result=registered,
    valid=still_registered,
    ignore=["flow_run", "runs"],
    retries=TRACKING_RETRIES,
)
def register(
    out: Path,
    name: str,
    variants: Mapping[str, Merged],
    decision: Decision,
    recipe_digest: str,
    sources: Mapping[str, Model],
    runs: Tracked,
    flow_run: str,
) -> None:
    """Register the selected variant as the challenger, by reference; write `release.json`."""
    model = variants[decision.variant]
    release = registry.register(
        name,
        model.path,
        digest=model.content,
        run_id=runs.children[decision.variant],
        description=decision.markdown,
        tags={
            "rammerge.variant": decision.variant,
            "rammerge.weights": model.digest,
            "rammerge.recipe": recipe_digest,
            "rammerge.gates": "passed" if decision.passed else "refused: " + " ".join(decision.refusals),
            "rammerge.prefect_run": flow_run,
            **{f"rammerge.source.{who}": _source(source) for who, source in sources.items()},
        },
    )
    write_json(out / "release.json", release.model_dump(mode="json"))


class Promoted(Result):
    """Who is champion, and why."""

    champion: int | None
    sentence: str


def promoted(entry: Entry) -> Promoted:
    """Read what `promote` wrote."""
    promotion = json.loads((entry.path / "promotion.json").read_text("utf-8"))
    return Promoted(
        path=entry.path, digest=entry.digest, champion=promotion["champion"], sentence=promotion["sentence"]
    )


def still_promoted(entry: Entry) -> bool:
    """Say whether the champion is who it was when the step ended; a person may have changed it since."""
    promotion = json.loads((entry.path / "promotion.json").read_text("utf-8"))
    champions = [r.version for r in registry.releases(promotion["name"]) if registry.CHAMPION in r.aliases]
    return champions == [promotion["champion"]]


@step(
    "promote",
    version=1,
    run_name="promote {name}",
    result=promoted,
    valid=still_promoted,
    retries=TRACKING_RETRIES,
)
def promote(out: Path, name: str, release: Registered) -> None:
    """Make the version the champion, unless a person rolled it back; write `promotion.json`."""
    promotion = registry.promote(name, release.version)
    write_json(out / "promotion.json", promotion.model_dump(mode="json"))
