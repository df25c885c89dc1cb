"""Commands of the pipeline: run, check, evaluate, promote, rollback, releases, ui, demo."""

import json
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from rammerge.cli.terminal import say
from rammerge.errors import InputError, RammergeError

if TYPE_CHECKING:
    from rich.console import Console

    from flows.cli.display import Steps
    from flows.run.outcome import Outcome

_RECORDING_SECONDS = 5.0
_PLAIN_WIDTH = 140

RecipeFile = Annotated[Path, typer.Argument(help="The recipe, a YAML file.", metavar="RECIPE")]
Name = Annotated[str, typer.Argument(help="Registered model.", metavar="NAME")]


def add_commands(app: typer.Typer) -> None:
    """Add this module's commands to the program."""
    for command in (run, check, evaluate, promote, rollback, releases, ui, demo):
        app.command(command.__name__)(command)


def run(recipe: RecipeFile) -> None:
    """Run the whole pipeline; what was done before is not done again.

    Exit code 1 when a gate refuses the selected variant: the run is recorded and registered, but not promoted.
    """
    _run(recipe)


def demo() -> None:
    """Merge the bundled zoo of three RL-trained agents, evaluate everything, and promote the best merge."""
    _run(_bundled("zoo.yaml"))


def check(
    recipe: Annotated[Path | None, typer.Argument(help="The recipe, a YAML file.", metavar="RECIPE")] = None,
    schema: Annotated[bool, typer.Option("--schema", help="Print the JSON schema of recipes and stop.")] = False,
) -> None:
    """Check a recipe and everything that it names, and forecast memory and disk, without doing any work."""
    if schema:
        from rammerge.recipe import schema as recipe_schema

        print(json.dumps(recipe_schema(), indent=2))
        return
    if recipe is None:
        raise InputError("give the path of a recipe, or --schema")
    _prepare()
    from flows.run.checking import check as check_plan
    from flows.run.planning import plan

    for line in check_plan(plan(recipe)):
        print(line)
    print(f"{recipe}: ready to run")


def evaluate(
    model: Annotated[str, typer.Argument(help="A model directory, or a hub id ORG/NAME[@REVISION].")],
    suite: Annotated[list[str], typer.Option("--suite", help="A bundled suite, or a directory. Repeat it.")],
    json_: Annotated[Path | None, typer.Option("--json", help="Write results, item by item, to this file.")] = None,
    dtype: Annotated[Literal["float32", "bfloat16", "float16"], typer.Option(help="Dtype to load it in.")] = "float32",
    batch_size: Annotated[int, typer.Option(help="Prompts at a time.", min=1)] = 100,
    device: Annotated[str, typer.Option(help="cpu, cuda or cuda:N.")] = "cpu",
    limit: Annotated[int | None, typer.Option(help="Items a suite and split; default: all.", min=1)] = None,
) -> None:
    """Evaluate one model on suites, on their validation and test splits."""
    from evaluation.suites import load_suite

    suites = [load_suite(name) for name in suite]
    from evaluation.runners.harness import evaluate_model
    from evaluation.statistics import mean
    from rammerge.checkpoints.digest import digest_checkpoint
    from rammerge.checkpoints.fetch import fetch
    from rammerge.system.atomic import write_json

    checkpoint = fetch(model, progress=say)
    digest = digest_checkpoint(checkpoint).digest
    results = evaluate_model(
        checkpoint.path,
        suites,
        dtype=dtype,
        batch_size=batch_size,
        device=device,
        limit=limit,
        model_digest=digest,
        progress=say,
    )
    from rich.table import Table

    table = Table("suite", "split", "score", "95 % interval", "items", title=f"{model} ({dtype})", title_justify="left")
    for (name, split), result in results.items():
        estimate = mean(list(result.scores.values()))
        interval = f"{100 * estimate.low:.1f} to {100 * estimate.high:.1f}"
        table.add_row(name, split, f"{100 * estimate.value:.1f} %", interval, str(result.n))
    _console().print(table)
    if json_ is not None:
        write_json(json_, [result.to_json() for result in results.values()])


def promote(name: Name, version: Annotated[int, typer.Argument(help="Version to serve.", metavar="VERSION")]) -> None:
    """Make a registered version the champion; the champion so far becomes `previous`."""
    _prepare()
    from tasks.records import registry

    print(registry.promote(name, version, by_hand=True).sentence)


def rollback(name: Name) -> None:
    """Make the previous champion the champion again."""
    _prepare()
    from tasks.records import registry

    print(registry.rollback(name).sentence)


def releases(name: Name) -> None:
    """List the registered versions of a model, newest first."""
    _prepare()
    from rich.table import Table

    from tasks.records.registry import releases as list_releases

    table = Table("version", "alias", "variant", "gates", "registered", "weights", box=None)
    table.add_column("path", overflow="fold")
    for release in list_releases(name):
        tags = release.tags
        table.add_row(
            str(release.version),
            ", ".join(release.aliases) or ("rolled back" if "rammerge.rolled_back" in tags else ""),
            tags.get("rammerge.variant", ""),
            tags.get("rammerge.gates", "").partition(":")[0],
            time.strftime("%Y-%m-%d %H:%M", time.localtime(release.created)),
            tags.get("rammerge.weights", "")[:12],
            release.path,
        )
    _console().print(table)


def ui(
    port: Annotated[int, typer.Option(help="Port of the Prefect dashboard; MLflow's is the next free one.")] = 4200,
) -> None:
    """Serve the Prefect and MLflow dashboards on loopback until Ctrl-C."""
    _prepare()
    from flows.servers.dashboards import serve

    serve(port)


def _run(recipe: Path) -> None:
    from rammerge.recipe import load

    started = time.monotonic()
    load(recipe)  # most mistakes are in the recipe, and show before anything starts
    _prepare()
    say(f"{recipe}: checking, and starting Prefect ...")
    with _prefect() as healthy:
        from flows.cli.display import steps_display
        from flows.merge_and_evaluate import merge_and_evaluate
        from flows.run.checking import check
        from flows.run.planning import plan
        from tasks.runtime.progress import listening

        todo = plan(recipe)
        for _ in check(todo):
            pass
        healthy()
        with steps_display(todo.steps) as steps, listening(steps):
            state: Any = merge_and_evaluate(recipe, return_state=True)
            _wait_until_recorded(state.state_details.flow_run_id)
        outcome: Outcome = state.result()
        _report(outcome, steps, time.monotonic() - started)
    if not outcome.passed:
        raise RammergeError(f"'{outcome.selected}' was refused by a gate: {' '.join(outcome.refusals)}")


def _report(outcome: "Outcome", steps: "Steps", seconds: float) -> None:
    from rich.markup import escape

    from evaluation.judging.leaderboard import Leaderboard
    from evaluation.report.render import differences_to_rich, to_rich

    board = Leaderboard.from_json(json.loads(outcome.leaderboard.read_text("utf-8")))
    decision = json.loads(outcome.decision.read_text("utf-8"))
    console = _console()
    console.print()
    console.print(to_rich(board))
    console.print(differences_to_rich(board))
    for warning in outcome.warnings:
        console.print(f"[yellow]warning:[/] {escape(warning)}", highlight=False)
    name, version = outcome.registered
    lines = [f"{steps.summary()}, {seconds:.0f} s", ""]
    for gate in decision["outcomes"]:
        verdict = "[green]passed[/] " if gate["passed"] else "[red]refused[/]"
        lines.append(f"gate       {verdict} {escape(gate['sentence'])}")
    lines += [
        f"selected   {outcome.selected}",
        f"model      {outcome.model}",
        f"registry   {outcome.champion}",
        "",
        "look further:",
        "  rammerge ui                        the run in Prefect, the scores and releases in MLflow",
        f"  rammerge releases {name:<16} what is registered, and who is champion",
        f"  export MLFLOW_TRACKING_URI={os.environ['MLFLOW_TRACKING_URI']}",
        f"  python -c 'import mlflow; mlflow.transformers.load_model(\"models:/{name}/{version}\")'",
    ]
    console.print("\n".join(lines), highlight=False, soft_wrap=True)


def _prepare() -> None:
    from tasks.runtime.environment import prepare, quiet

    prepare()
    quiet()


@contextmanager
def _prefect() -> Iterator[Any]:
    """Make a Prefect API available: the user's, that of `rammerge ui`, or one of our own while the context lasts.

    Yields a function that returns once the API answers, so that imports go on beside the server's start. Our own rather
    than Prefect's temporary one: its log stays off the terminal, and a kill of this process ends it too.
    """
    from flows.servers.dashboards import running_dashboard
    from flows.servers.local import free_port, prefect_server

    if "PREFECT_API_URL" in os.environ or "PREFECT_PROFILE" in os.environ:
        yield lambda: None
    elif address := running_dashboard():
        os.environ["PREFECT_API_URL"] = f"{address}/api"
        yield lambda: None
    else:
        with prefect_server(port=free_port(), dashboard=False) as server:
            os.environ["PREFECT_API_URL"] = f"{server.url}/api"
            yield server.wait_until_healthy


def _wait_until_recorded(flow_run: Any) -> None:
    """Return once Prefect's database has the log and the end of every step, which it learns a moment after the flow."""
    from prefect.client.orchestration import get_client
    from prefect.client.schemas.filters import FlowRunFilter, FlowRunFilterId
    from prefect.logging.handlers import APILogWorker

    APILogWorker.drain_all()
    deadline = time.monotonic() + _RECORDING_SECONDS
    with get_client(sync_client=True) as client:
        while time.monotonic() < deadline:
            runs = client.read_task_runs(flow_run_filter=FlowRunFilter(id=FlowRunFilterId(any_=[flow_run])))
            if all(run.state is not None and run.state.is_final() for run in runs):
                return
            time.sleep(0.1)


def _console() -> "Console":
    from rich.console import Console

    console = Console()
    return console if console.is_terminal else Console(width=_PLAIN_WIDTH)


def _bundled(name: str) -> Path:
    """Return a recipe of examples/: beside the package in a checkout, among the shared data of an installed wheel."""
    import site
    import sysconfig

    import rammerge

    prefixes = [Path(prefix) / "share" / "rammerge" for prefix in (sysconfig.get_path("data"), site.getuserbase())]
    for root in (Path(rammerge.__file__).resolve().parent.parent, *prefixes):
        if (root / "examples" / name).is_file():
            return root / "examples" / name
    raise InputError(f"the bundled recipe {name} is missing from this installation; install rammerge again")
