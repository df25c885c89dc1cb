"""Commands of the pipeline: run, check, report, ui, demo; those of other modules are added here."""

import json
from pathlib import Path
from typing import Annotated

import typer

from flows.cli.comparing import compare
from flows.cli.evaluating import evaluate
from flows.cli.importing import import_
from flows.cli.init import init
from flows.cli.metrics import metrics
from flows.cli.preparing import prepare
from flows.cli.pruning import prune
from flows.cli.releasing import approve, promote, push, refuse, releases, rollback
from flows.cli.serving import backup, migrate, restore, serve
from flows.cli.suites import suites
from rammerge.cli.terminal import say
from rammerge.errors import InputError
from rammerge.system.home import home
from tasks.records.pages import PORT

RecipeFile = Annotated[Path, typer.Argument(help="The recipe, a YAML file.", metavar="RECIPE")]


def add_commands(app: typer.Typer) -> None:
    """Add this module's commands to the program."""
    panels = {
        "Pipeline": (demo, init, import_, check, run, report, compare, metrics, ui, prune),
        "Servers": (serve, migrate, backup, restore),
        "Releases": (releases, approve, refuse, promote, rollback, push),
        "Models": (evaluate,),
    }
    for panel, panel_commands in panels.items():
        for command in panel_commands:
            app.command(command.__name__.rstrip("_"), rich_help_panel=panel)(command)
    app.add_typer(suites, name="suites", rich_help_panel="Models")


def run(
    recipe: RecipeFile,
    runner: Annotated[
        str | None,
        typer.Option(
            help="What runs the steps, instead of the recipe's `compute.runner`: threads, dask, ray, "
            "dask://HOST:PORT or ray://HOST:PORT.",
            metavar="RUNNER",
        ),
    ] = None,
) -> None:
    """Run the whole pipeline, except for work that was done before.

    Exit code 1 when a gate refuses the selected variant: the run is recorded and registered, but not promoted.
    """
    from flows.cli.running import run as run_recipe

    run_recipe(recipe, runner)


def demo() -> None:
    """Merge the bundled zoo of three RL-trained agents, evaluate everything, and promote the best merge."""
    run(_bundled("zoo.yaml"))


def check(
    recipe: Annotated[Path | None, typer.Argument(help="The recipe, a YAML file.", metavar="RECIPE")] = None,
    schema: Annotated[bool, typer.Option("--schema", help="Print the JSON schema of recipes and stop.")] = False,
) -> None:
    """Check a recipe and everything that it names, and forecast memory, disk and time, without doing any work."""
    if schema:
        from rammerge.recipe import schema as recipe_schema

        print(json.dumps(recipe_schema(), indent=2))
        return
    if recipe is None:
        raise InputError("give the path of a recipe, or --schema")
    prepare()
    from flows.run.checking import check as check_plan
    from flows.run.costs import costs
    from flows.run.planning import plan
    from flows.servers.api import require_prefect

    todo = plan(recipe, fetch=False)
    require_prefect()
    for line in (*check_plan(todo), *costs(todo)):
        print(line)
    print(f"{recipe}: ready to run")


def report(
    recipe: RecipeFile,
    out: Annotated[Path | None, typer.Option(help="Copy the page to this file.", metavar="FILE.html")] = None,
) -> None:
    """Print the path of the report of a recipe's last run: one HTML page that needs no script and no network."""
    from flows.run.outcome import Outcome
    from rammerge.recipe import load
    from rammerge.system.atomic import write_text

    asked = load(recipe)
    last = Outcome.last(asked.name)
    if last is None:
        raise InputError(f"{recipe} has no finished run under {home()}; run `rammerge run {recipe}` first")
    if last.report is None:
        raise InputError(f"the last run of {recipe} has no report, because nothing was evaluated; give it suites")
    if not asked.is_of_digest(last.recipe_digest):
        say(f"{recipe} was changed after its last run; this report is of that run")
    if out is not None:
        write_text(out, last.report.read_text("utf-8"))
    print(out or last.report)


def ui(
    port: Annotated[
        int, typer.Option(help="Port of the Prefect dashboard; MLflow's is the next free one.", min=0, max=65534)
    ] = PORT,
) -> None:
    """Serve the Prefect and MLflow dashboards on loopback until Ctrl-C."""
    prepare()
    from flows.servers.dashboards import serve

    serve(port)


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
