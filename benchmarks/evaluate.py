"""Compare evaluations with lm-eval's own command on the same models and tasks, as whole processes, in one run.

    python -m benchmarks.evaluate --scratch DIR [--models DIR ...] [--suites NAME ...] [--runs 3]

lm-eval's command evaluates one model at a time. rammerge evaluates one by `rammerge evaluate`, and all as a run does:
each in a process of its own, as many at once as there are processors. Both decode greedily, in float32, with the same
batch size. The scores are compared; a difference ends the benchmark.
"""

import argparse
import json
import os
import re
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from benchmarks.measure import Measurement, median, run
from evaluation.runners.harness import BATCH_SIZE
from evaluation.runners.pool import Pool
from evaluation.suites import SPLITS, Suite, load_suite

ZOO = Path("examples/zoo/checkpoints")
_SCORE = re.compile(r"^\|(?P<task>\w+)\s*\|.*\|acc\s*\|[^|]*\|\s*(?P<score>[\d.]+)", re.MULTILINE)

Scores = dict[str, float]


def main() -> None:
    """Measure and print a table in markdown."""
    arguments = _parser().parse_args()
    suites = [load_suite(name) for name in arguments.suites]
    if arguments.together is not None:
        _evaluate_together(arguments.models, suites, arguments.together)
        return
    tasks = _write_tasks(suites, arguments.scratch / "tasks")
    ours, theirs = _one(arguments, tasks)
    rows = [("one model", theirs, ours)]
    theirs = [_lm_eval(model, tasks, arguments.scratch) for model in arguments.models]
    ours = [_all(arguments)]
    rows.append((f"{len(arguments.models)} models", theirs, ours))
    print("| what | lm-eval's command | rammerge | ratio |\n|---|---|---|---|")
    for what, slow, fast in rows:
        print(_row(what, slow, fast))


def _one(arguments: argparse.Namespace, tasks: Path) -> tuple[list[Measurement], list[Measurement]]:
    """Return the median of evaluating the first model, by rammerge and by lm-eval, whose scores must be equal."""
    model = arguments.models[0]
    file = arguments.scratch / "scores.json"
    names = [word for name in arguments.suites for word in ("--suite", name)]
    command = [sys.executable, "-m", "rammerge", "evaluate", str(model), *names, "--json", str(file)]
    ours = [run([*command, "--batch-size", str(BATCH_SIZE)]) for _ in range(arguments.runs)]
    theirs = [_lm_eval(model, tasks, arguments.scratch) for _ in range(arguments.runs)]
    found = {f"{each['suite']}_{each['split']}": round(each["mean"], 4) for each in json.loads(file.read_text("utf-8"))}
    expected: Scores = {match["task"]: float(match["score"]) for match in _SCORE.finditer(theirs[-1].output)}
    if found != expected:
        raise SystemExit(f"the scores differ: {found} and {expected}")
    return [median(ours)], [median(theirs)]


def _lm_eval(model: Path, tasks: Path, scratch: Path) -> Measurement:
    names = ",".join(sorted(file.stem for file in tasks.glob("*.yaml")))
    command = [sys.executable, "-m", "lm_eval", "run", "--model", "hf", "--tasks", names, "--include_path", str(tasks)]
    command += ["--model_args", f"pretrained={model},dtype=float32", "--batch_size", str(BATCH_SIZE)]
    return run([*command, "--device", "cpu"], {**os.environ, "HF_HOME": str(scratch / "hub")})


def _all(arguments: argparse.Namespace) -> Measurement:
    """Measure this program when it evaluates all models at once."""
    command = [sys.executable, "-m", "benchmarks.evaluate", "--scratch", str(arguments.scratch), "--suites"]
    command += [*arguments.suites, "--models", *map(str, arguments.models)]
    return median([run([*command, "--together", str(arguments.scratch / "out")]) for _ in range(arguments.runs)])


def _evaluate_together(models: Sequence[Path], suites: Sequence[Suite], out: Path) -> None:
    pool = Pool()

    def evaluate(model: Path) -> None:
        loaded = {"model_dir": str(model), "dtype": "float32", "batch_size": BATCH_SIZE, "device": "cpu"}
        with pool.worker() as worker:
            for suite in suites:
                asked = {"suite": str(suite.path), "suite_digest": suite.digest, "limit": None}
                worker.ask("evaluate", model=loaded, **asked, out=str(out / model.name))

    with ThreadPoolExecutor(os.cpu_count()) as threads:
        list(threads.map(evaluate, models))
    pool.close()


def _write_tasks(suites: Sequence[Suite], folder: Path) -> Path:
    """Write the suites' tasks with absolute paths, because lm-eval's command finds data from its working directory."""
    folder.mkdir(parents=True, exist_ok=True)
    for suite in suites:
        for split in SPLITS:
            text = (suite.path / "_task.yaml").read_text("utf-8") + (suite.path / f"{split}.yaml").read_text("utf-8")
            text = text.replace("include: _task.yaml\n", "").replace(
                f"{split}.jsonl", str(suite.path / f"{split}.jsonl")
            )
            text = text.replace("scoring.process_results", f"{suite.name}_scoring.process_results")
            (folder / f"{suite.name}_{split}.yaml").write_text(text)
        (folder / f"{suite.name}_scoring.py").write_bytes((suite.path / "scoring.py").read_bytes())
    return folder


def _row(what: str, theirs: Sequence[Measurement], ours: Sequence[Measurement]) -> str:
    slow, fast = (sum(each.seconds for each in measured) for measured in (theirs, ours))
    return f"| {what} | {slow:.1f} s | {fast:.1f} s | {slow / fast:.1f}x |"


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--scratch", type=Path, required=True)
    parser.add_argument("--models", type=Path, nargs="+", default=sorted(ZOO.iterdir()))
    parser.add_argument("--suites", nargs="+", default=["zoo_tool", "zoo_code", "zoo_memory"])
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--together", type=Path, help=argparse.SUPPRESS)
    return parser


if __name__ == "__main__":
    main()
