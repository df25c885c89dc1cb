"""Contract: the code that a model directory brings does not run, whatever is done with it, unless a recipe trusts it.

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
import transformers

import rammerge
from evaluation.backends.transformers import load_tokenizer, try_out
from evaluation.runners.harness import evaluate_model
from evaluation.runners.rehearsal import rehearse
from evaluation.runners.worker import Asked
from evaluation.suites import Suite, load_suite
from flows.cli import program
from flows.run.code import models_code
from flows.run.planning import plan
from rammerge.checkpoints.checkpoint import open_checkpoint
from rammerge.errors import InputError
from tasks.records.layout import describe
from tests.evaluation.made import write_model, write_suite
from tests.fixtures.models import edit_config, save_agent
from tests.fixtures.pipeline import World
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


OWN = """
import pathlib
from transformers import LlamaConfig, LlamaForCausalLM

pathlib.Path({mark!r}).touch()

class OwnConfig(LlamaConfig):
    model_type = "own"

class Own(LlamaForCausalLM):
    config_class = OwnConfig
"""


def test_trusted_code_runs_and_scores_as_what_it_is(
    plain: Path, suite: Suite, mark: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("transformers.dynamic_module_utils.HF_MODULES_CACHE", str(tmp_path / "modules"))
    monkeypatch.syspath_prepend(tmp_path / "modules")
    known: Any = transformers.AutoModelForCausalLM._model_mapping  # which transformers adds trusted classes to
    monkeypatch.setattr(known, "_extra_content", dict(known._extra_content))
    own = plant_code(shutil.copytree(plain, tmp_path / "own"), mark, **UNKNOWN)
    edit_config(own, auto_map={"AutoConfig": "own.OwnConfig", "AutoModelForCausalLM": "own.Own"})
    (own / "own.py").write_text(OWN.format(mark=str(mark)))
    shutil.rmtree(own / "custom_generate")  # which would run in place of greedy decoding
    shutil.copy(plain / "tokenizer_config.json", own)
    loaded = {"model_dir": str(own), "dtype": "float32", "batch_size": 1, "device": "cpu"}
    question = {
        "do": "evaluate",
        "model": loaded,
        "suite": str(suite.path),
        "suite_digest": suite.digest,
        "limit": None,
    }
    asked = Asked()
    assert "contains custom code" in asked.answer({**question, "out": str(tmp_path / "out")})["message"]
    assert not mark.exists()
    assert asked.answer({**question, "out": str(tmp_path / "out"), "trust": True}) == {"result": None}
    assert mark.exists()
    (score,) = json.loads((tmp_path / "out" / "words" / "test.json").read_text())["scores"].values()
    assert [score] == list(evaluate_model(plain, [suite], batch_size=1)["words", "test"].scores.values())
    mark.unlink()
    edit_config(own, auto_map={"AutoConfig": "org/other--own.OwnConfig", "AutoModelForCausalLM": "own.Own"})
    refused = Asked().answer({**question, "out": str(tmp_path / "elsewhere"), "trust": True})
    assert "names code of a different repository" in refused["message"]
    assert "error" in Asked().answer({**question, "out": str(tmp_path / "again"), "trust": False})


def test_a_recipe_that_trusts_code_pins_it(tmp_path: Path) -> None:
    world = World(tmp_path)
    trusting = {"suites": ["./words"], "trust_remote_code": True}
    assert plan(world.write(evaluation=trusting)).conditions.trust_remote_code  # directories are here already
    for revision in (None, "main", "a" * 39):
        source = {"source": "org/code", **({"revision": revision} if revision else {})}
        with pytest.raises(
            InputError, match=r"agents\.far: org/code may run its code .* is not pinned; give as `revision`"
        ):
            plan(world.write(evaluation=trusting, agents={"tool": "tool", "far": source}))
    plan(world.write(evaluation=trusting, agents={"tool": "tool", "far": {"source": "org/code", "revision": "a" * 40}}))
    plain = plan(world.write())
    assert not plain.conditions.trust_remote_code and "trust_remote_code" not in plain.conditions.identity
    with pytest.raises(InputError, match="trust_remote_code does not go with the backend vllm"):
        plan(world.write(evaluation={**trusting, "backend": "vllm"}))


def test_an_unknown_architecture_is_merged_and_its_code_copied_but_not_run(
    plain: Path, mark: Path, tmp_path: Path
) -> None:
    base = plant_code(shutil.copytree(plain, tmp_path / "base"), mark, **UNKNOWN)
    agent = plant_code(save_agent(plain, tmp_path / "agent"), mark, **UNKNOWN)
    rammerge.merge(base, {"agent": agent}, out=tmp_path / "merged", method="average")
    assert (tmp_path / "merged" / "own.py").read_bytes() == (base / "own.py").read_bytes()
    assert not mark.exists()
    card = (tmp_path / "merged" / "README.md").read_text()
    assert f"> the model brings code of {base}, which the merge copied and did not run: " in card and " own.py" in card
    sources = {"base": open_checkpoint(base), "plain": open_checkpoint(plain)}
    (sentence,) = models_code(sources, trusted=False)
    assert sentence.startswith("base brings code, which is copied and never run: ")
