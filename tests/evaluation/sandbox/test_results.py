"""Contract: the sandbox that ran the programs is part of a result, and no part of a result without programs."""

from pathlib import Path

from evaluation.runners.harness import evaluate_model
from evaluation.sandbox import find_sandbox
from evaluation.suites import load_suite
from tasks.steps.conditions import SuiteRef
from tests.evaluation.made import write_model, write_suite

SCORING = """\
from evaluation.sandbox import run_tests

def process_results(doc, results):
    failed = run_tests(f"def f(): return {results[0]!r}", "f", f"def check(f): assert f() == {results[0]!r}")
    return {"acc": float(failed is None), "share": 0.0}
"""


def test_a_result_names_the_sandbox(tmp_path: Path) -> None:
    folder = write_suite(tmp_path / "made", sizes=(1, 2), sandbox=True)
    (folder / "scoring.py").write_text(SCORING)
    suite = load_suite(folder)
    results = evaluate_model(write_model(tmp_path / "model"), [suite])
    label = find_sandbox().label
    assert {result.sandbox for result in results.values()} == {label}
    assert [result.mean for result in results.values()] == [1.0, 1.0]
    assert SuiteRef.of(suite).identity == [suite.name, suite.digest, label]
    assert load_suite("zoo_tool").sandbox is None
