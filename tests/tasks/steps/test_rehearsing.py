"""Contract: whether models can be evaluated on suites is asked once for the same files, and again for changed ones."""

from collections.abc import Callable
from pathlib import Path
from typing import NoReturn

import pytest

from evaluation.suites import load_suite
from rammerge.errors import InputError
from rammerge.recipe import Recipe
from tasks.steps import rehearsing
from tasks.steps.conditions import Conditions, SuiteRef
from tasks.steps.rehearsing import Rehearsal
from tests.evaluation.made import write_model, write_suite


class AskedError(Exception):
    """A process was asked."""


@pytest.fixture
def rehearsal(tmp_path: Path) -> Callable[[], Rehearsal]:
    """Return what makes a rehearsal of the present files: two models, alike but for their weights, and a suite."""
    for seed, name in enumerate(("base", "agent")):
        write_model(tmp_path / name, seed=seed)
    write_suite(tmp_path / "words", sizes=(2, 3))
    recipe = {"name": "r", "base": "base", "agents": {"agent": "agent"}, "merges": ["ram"]}
    conditions = Conditions.of(Recipe.model_validate(recipe | {"evaluation": {"suites": ["words"]}}))

    def make() -> Rehearsal:
        suites = [SuiteRef.of(load_suite(tmp_path / "words"))]
        return Rehearsal(suites, {name: tmp_path / name for name in ("base", "agent")}, conditions)

    return make


@pytest.fixture
def found(rehearsal: Callable[[], Rehearsal], monkeypatch: pytest.MonkeyPatch) -> Callable[[], Rehearsal]:
    """The same after a first rehearsal, from which on each question is an error."""
    assert rehearsal().found().warnings == []

    def refuse(*_: object, **__: object) -> NoReturn:
        raise AskedError

    monkeypatch.setattr(rehearsing, "model_process", refuse)
    monkeypatch.setattr(rehearsing, "expect_models", refuse)
    return rehearsal


def test_the_same_files_are_asked_once(found: Callable[[], Rehearsal]) -> None:
    found().expect()
    assert found().found().warnings == []


@pytest.mark.parametrize("file", ["agent/tokenizer.json", "base/config.json", "words/test.jsonl", "words/scoring.py"])
def test_a_changed_file_is_asked_about_again(file: str, found: Callable[[], Rehearsal], tmp_path: Path) -> None:
    (tmp_path / file).write_text((tmp_path / file).read_text() + "\n")
    with pytest.raises(AskedError):
        found().found()
    with pytest.raises(AskedError):
        found().expect()


def test_weights_do_not_count(found: Callable[[], Rehearsal], tmp_path: Path) -> None:
    write_model(tmp_path / "agent", seed=7)
    assert found().found().warnings == []


def test_a_refusal_is_not_kept(rehearsal: Callable[[], Rehearsal], tmp_path: Path) -> None:
    scoring = (tmp_path / "words" / "scoring.py").read_text()
    (tmp_path / "words" / "scoring.py").write_text("import nowhere\n")
    for _ in range(2):
        with pytest.raises(InputError, match="cannot be imported"):
            rehearsal().found()
    (tmp_path / "words" / "scoring.py").write_text(scoring)
    assert rehearsal().found().warnings == []


def test_a_suite_that_ends_the_process_is_bad_input(rehearsal: Callable[[], Rehearsal], tmp_path: Path) -> None:
    scoring = (tmp_path / "words" / "scoring.py").read_text()
    (tmp_path / "words" / "scoring.py").write_text("import os\nos._exit(3)\n")
    with pytest.raises(InputError, match="ended the process that tried it"):
        rehearsal().found()
    (tmp_path / "words" / "scoring.py").write_text(scoring)
    assert rehearsal().found().warnings == [], "the process that ended serves nobody else"


def test_without_suites_nothing_is_asked(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(rehearsing, "model_process", lambda **_: 1 / 0)
    recipe = {"name": "r", "base": "b", "agents": {"a": "a"}, "merges": ["ram"], "evaluation": "none"}
    assert Rehearsal([], {"base": tmp_path}, Conditions.of(Recipe.model_validate(recipe))).found().warnings == []
