"""Contract of the pipeline from Python: one call does what the command does, with nothing to prepare.

The function and the flow share the name of a module, so both must be found whatever was imported first.
"""

import os
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest

from tests.fixtures.pipeline import World
from tests.fixtures.program import processes_of

pytestmark = pytest.mark.long

CHECKOUT = Path(__file__).parents[2]


def python(code: str, *arguments: str, home: Path) -> "subprocess.CompletedProcess[str]":
    """Run `code` in a Python for which nothing was prepared."""
    ours = ("PREFECT_", "MLFLOW_", "RAMMERGE_")
    bare = {name: value for name, value in os.environ.items() if not name.startswith(ours)}
    done = subprocess.run(
        [sys.executable, "-c", code, *arguments],
        env={**bare, "HOME": str(home), "RAMMERGE_HOME": str(home)},
        cwd=CHECKOUT,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    return done


IMPORTS = (
    "from flows import merge_and_evaluate as function",
    "import flows; function = flows.merge_and_evaluate",
    "import flows.merge_and_evaluate; from flows import merge_and_evaluate as function",
    "from flows.merge_and_evaluate import merge_and_evaluate as flow; import flows; "
    "function = flows.merge_and_evaluate",
    "from prefect.flows import load_flow_from_entrypoint; "
    "flow = load_flow_from_entrypoint('flows/merge_and_evaluate.py:merge_and_evaluate'); "
    "from flows import merge_and_evaluate as function",
    "from flows.sweep import sweep; from flows import merge_and_evaluate as function",
)


def test_function_and_flow_are_found_in_any_order_of_imports(tmp_path: Path) -> None:
    """In one process, which forgets the modules of flows in between: importing Prefect takes seconds."""
    code = f"""if True:
        import inspect, sys
        for imports in {IMPORTS!r}:
            for name in [name for name in sys.modules if name.partition(".")[0] == "flows"]:
                del sys.modules[name]
            names = {{}}
            exec(imports, names)
            function = names["function"]
            assert list(inspect.signature(function).parameters) == ["recipe", "runner"], imports
            assert not hasattr(function, "deploy"), imports
            from flows.merge_and_evaluate import merge_and_evaluate
            found = names.get("flow", merge_and_evaluate).name
            assert merge_and_evaluate.name == found == "merge-and-evaluate", imports
    """
    python(code, home=tmp_path)


def test_importing_flows_is_light(tmp_path: Path) -> None:
    heavy = ("prefect", "mlflow", "torch", "rich", "pydantic")
    code = f"import sys, flows; print([name for name in {heavy} if name in sys.modules])"
    assert python(code, home=tmp_path).stdout.strip() == "[]"


def test_one_call_runs_the_pipeline_and_the_next_finds_it_done(tmp_path: Path) -> None:
    world = World(tmp_path / "world")
    world.write(merges=["ram"])
    code = """if True:
        import os, sys
        from pathlib import Path
        import prefect
        from flows import merge_and_evaluate
        first = merge_and_evaluate(sys.argv[1])
        assert [row.name for row in first.leaderboard.rows][:3] == ["base", "code", "tool"]
        assert first.decision.passed and first.leaderboard.selected == first.selected
        assert "PREFECT_API_URL" not in os.environ and prefect.settings.PREFECT_API_URL.value() is None
        print(first)
        print("---", flush=True)
        print("---", file=sys.stderr, flush=True)
        assert merge_and_evaluate(Path(sys.argv[1])) == first
        print(first._repr_html_())
    """
    done = python(code, str(world.recipe), home=world.home)
    text, html = done.stdout.split("---")
    steps, again = done.stderr.split("---")
    assert "tiny version 1 is champion now" in text and "Leaderboard" in text
    assert html.strip().startswith("<iframe sandbox srcdoc=") and "&lt;table" in html and "<table" not in html
    assert "fetch base" in steps and " done " in steps
    assert " done " not in again and "promote tiny" in again
    assert not processes_of(world)
    light = """if True:
        import sys
        from flows import merge_and_evaluate
        merge_and_evaluate(sys.argv[1])
        print([name for name in ("torch", "scipy.stats", "transformers", "matplotlib") if name in sys.modules])
    """
    assert python(light, str(world.recipe), home=world.home).stdout.strip() == "[]"
    assert not list((world.home / "runs" / "alive").iterdir()), "no later run has anything to close"
    with closing(sqlite3.connect(world.home / "prefect" / "prefect.db")) as prefect:
        assert prefect.execute("SELECT state_type, count(*) FROM flow_run").fetchall() == [("COMPLETED", 3)]
        steps, states = prefect.execute("SELECT count(DISTINCT task_run_id), count(*) FROM task_run_state").fetchone()
        assert steps == prefect.execute("SELECT count(*) FROM task_run").fetchone()[0] > 0
        assert states == 3 * steps, "each was pending, ran, and ended"
        beats = "SELECT count(*) FROM events WHERE event = 'prefect.flow-run.heartbeat'"
        assert prefect.execute(beats).fetchone() == (0,), "nobody outlives the run to hear them"


def test_mistakes_are_the_sentences_of_the_command(tmp_path: Path) -> None:
    code = """if True:
        from flows import merge_and_evaluate
        from rammerge.errors import InputError
        try:
            merge_and_evaluate("nowhere.yaml")
        except InputError as error:
            print(error)
    """
    assert python(code, home=tmp_path).stdout.startswith("nowhere.yaml: no such recipe file")
    assert not list(tmp_path.iterdir())
