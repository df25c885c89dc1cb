"""Run a family's recipe with this project's own command, and keep what it came to."""

import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import yaml

import rammerge
from benchmarks.results.data import Model, Run, read_runs, write_runs
from benchmarks.results.entries import FOUND
from benchmarks.results.families import Family
from evaluation.judging.leaderboard import Leaderboard
from evaluation.report.page import Page
from flows.run.outcome import Outcome
from tasks.records.found import read_page
from tasks.records.reporting import CONTENT


def run_all(families: Sequence[Family], scratch: Path, jobs: int, limit: int | None) -> Iterable[Run]:
    """Run what has not been run yet, `jobs` at once, and yield all runs but those that failed."""
    with ThreadPoolExecutor(jobs) as pool:
        begun = [(family, pool.submit(_run_once, family, scratch / family.name, limit)) for family in families]
        for family, result in begun:
            try:
                yield result.result()
            except subprocess.CalledProcessError as error:  # the others go on
                log = scratch / family.name / "run.log"
                print(f"{family.name} failed with code {error.returncode}, see {log}", file=sys.stderr, flush=True)


def _run_once(family: Family, folder: Path, limit: int | None) -> Run:
    kept = folder / "run.json"
    for run in read_runs(kept):
        return run
    started = time.monotonic()
    folder.mkdir(parents=True, exist_ok=True)
    recipe = folder / "recipe.yaml"
    recipe.write_text(yaml.safe_dump(family.recipe(limit), sort_keys=False), encoding="utf-8")
    home = folder / "home"
    with (folder / "run.log").open("w", encoding="utf-8") as log:
        command = [sys.executable, "-m", "rammerge", "run", str(recipe)]
        environment = {**os.environ, "RAMMERGE_HOME": str(home)}
        subprocess.run(command, env=environment, stdout=log, stderr=subprocess.STDOUT, check=True)
    run = _collect(family, home, time.monotonic() - started)
    write_runs(kept, [run])
    shutil.rmtree(home)  # hundreds of megabytes of merges that can be made again
    print(f"{family.name}: {run.seconds:.0f} s", flush=True)
    return run


def _collect(family: Family, home: Path, seconds: float) -> Run:
    """Read a run's report and leaderboard, and measure its agents."""
    outcome = Outcome.model_validate_json((home / "runs" / f"{family.name}.json").read_text("utf-8"))
    if outcome.report is None or outcome.leaderboard_file is None:
        raise RuntimeError(f"{family.name}: the run was not evaluated")
    files = outcome.report.with_name(CONTENT), outcome.leaderboard_file
    content, board = (json.loads(file.read_text("utf-8")) for file in files)
    page = read_page(content, board, family.name)
    overlap = rammerge.measure_overlap(str(family.base), {name: str(path) for name, path in family.agents.items()})
    features = overlap.features()
    if features is None:
        raise RuntimeError(f"{family.name}: its agents cannot be compared, because one changed nothing")
    densities = {name: row["density"] for name, row in overlap.summary().items()}
    models = tuple(_models(page, page.board))
    return Run(family.name, family.group, family.seed, features, densities, models, round(seconds, 1))


def _models(page: Page, board: Leaderboard) -> Iterable[Model]:
    settings = {facts.name: facts.method for facts in page.variants}
    if page.search is not None:
        places = {page.search.best: FOUND[0], page.search.second: FOUND[1]}
        settings |= {places[trial.number]: trial.words for trial in page.search.trials if trial.number in places}
    for row in board.rows:
        scores = {suite: np.asarray(values) for suite, values in board.scores[row.name]["test"].items()}
        validation = round(100 * row.average["validation"].value, 4)
        yield Model(row.name, row.kind, row.method or "", settings.get(row.name, ""), validation, scores)
