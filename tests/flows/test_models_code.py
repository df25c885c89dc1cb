"""Contract: the code that a model directory brings never runs, whatever is done with the model.

It is copied beside the merged weights, and no more. Where transformers knows the architecture it uses its own classes;
where it does not, the model is refused by everything that would run it.
"""

import builtins
import json
import shutil
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import mlflow.transformers
import pytest

import rammerge
from evaluation.backends.transformers import load_tokenizer, try_out
from evaluation.runners.harness import evaluate_model
from evaluation.runners.rehearsal import rehearse
from evaluation.suites import Suite, load_suite
from flows.cli import program
from flows.run.code import unused_code
from rammerge.checkpoints.checkpoint import open_checkpoint
from rammerge.errors import InputError
from tasks.records.layout import describe
from tests.evaluation.made import write_model, write_suite
from tests.fixtures.models import save_agent
from tests.fixtures.planted import plant_code

UNKNOWN: dict[str, Any] = {"model_type": "own", "architectures": ["Own"]}


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_model(tmp_path_factory.mktemp("plain") / "model")


@pytest.fixture(scope="module")
def suite(tmp_path_factory: pytest.TempPathFactory) -> Suite:
    return load_suite(write_suite(tmp_path_factory.mktemp("suite") / "words", sizes=(1, 1)))


@pytest.fixture
def mark(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The file that the code would make. A person at the terminal would agree to run it."""
    monkeypatch.setattr(builtins, "input", lambda *_: "y")
    monkeypatch.chdir(tmp_path)
    return tmp_path / "it ran"


def test_a_known_architecture_is_used_without_the_code(plain: Path, suite: Suite, mark: Path, tmp_path: Path) -> None:
    base = plant_code(shutil.copytree(plain, tmp_path / "base"), mark)
    agent = plant_code(save_agent(plain, tmp_path / "agent"), mark)
    assert program._run(["inspect", "--base", str(base), str(agent)], debug=True) == 0
    merged = tmp_path / "merged"
    words = ["merge", "--base", str(base), "--agent", str(agent), "--method", "average", "--out", str(merged)]
    assert program._run(words, debug=True) == 0
    rammerge.verify(merged)
    assert rehearse([suite], {"merged": merged}).test_items == {"words": 1}
    assert try_out(merged, device="cpu")[1]
    assert evaluate_model(merged, [suite], batch_size=1)["words", "test"].n == 1
    describe(str(tmp_path / "version"), str(merged))
    shutil.copytree(merged, tmp_path / "version" / "model", dirs_exist_ok=True)
    assert mlflow.transformers.load_model(str(tmp_path / "version"), device="cpu")("abc", max_new_tokens=1)
    assert not mark.exists()


@pytest.mark.parametrize(
    "use",
    [
        lambda model, suite: rehearse([suite], {"own": model}),
        lambda model, suite: evaluate_model(model, [suite]),
    ],
    ids=["check", "evaluate"],
)
def test_an_unknown_architecture_is_refused(
    use: Callable[[Path, Suite], Any], plain: Path, suite: Suite, mark: Path, tmp_path: Path
) -> None:
    own = plant_code(shutil.copytree(plain, tmp_path / "own"), mark, **UNKNOWN)
    with pytest.raises(InputError):
        use(own, suite)
    assert not mark.exists()


def test_an_unknown_tokenizer_is_refused_and_a_version_without_one_not_described(
    plain: Path, mark: Path, tmp_path: Path
) -> None:
    own = plant_code(shutil.copytree(plain, tmp_path / "own"), mark, **UNKNOWN)
    (own / "tokenizer.json").unlink()
    settings = own / "tokenizer_config.json"
    settings.write_text(json.dumps({**json.loads(settings.read_text()), "tokenizer_class": "OwnTokenizer"}))
    with pytest.raises(InputError, match="its tokenizer cannot be loaded"):
        load_tokenizer(own)
    assert try_out(own, device="cpu") == ("", True)
    with suppress(Exception):
        describe(str(tmp_path / "version"), str(own))
    assert not mark.exists()


def test_an_unknown_architecture_is_merged_and_its_code_copied_but_not_run(
    plain: Path, mark: Path, tmp_path: Path
) -> None:
    base = plant_code(shutil.copytree(plain, tmp_path / "base"), mark, **UNKNOWN)
    agent = plant_code(save_agent(plain, tmp_path / "agent"), mark, **UNKNOWN)
    rammerge.merge(base, {"agent": agent}, out=tmp_path / "merged", method="average")
    assert (tmp_path / "merged" / "own.py").read_bytes() == (base / "own.py").read_bytes()
    assert not mark.exists()
    card = (tmp_path / "merged" / "README.md").read_text()
    assert f"> the model brings code of {base}, which was copied and never run: " in card and " own.py" in card
    (sentence,) = unused_code({"base": open_checkpoint(base), "plain": open_checkpoint(plain)})
    assert sentence.startswith("base brings code, which is copied and never run: ")
