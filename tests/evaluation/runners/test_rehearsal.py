"""Contract: what an evaluation cannot do is known before any weights are read, in one sentence with the fix.

The ways to name code and data are those of the task files' own keys, each of which is broken in turn.
"""

import json
import socket
from collections.abc import Callable
from dataclasses import fields
from pathlib import Path
from typing import NoReturn

import pytest
import yaml
from lm_eval.api.task import TaskConfig

from evaluation.runners import patience
from evaluation.runners.rehearsal import rehearse
from evaluation.runners.tasks import task_manager
from evaluation.suites import load_suite
from rammerge.errors import InputError
from tests.evaluation.made import HANGS, write_model, write_suite, write_tokenizer
from tests.fixtures.models import edit_config, save_model

# What lm-eval calls for every item, with what.
FUNCTIONS = {
    "process_results": "doc, results",
    "process_docs": "dataset",
    "doc_to_text": "doc",
    "doc_to_target": "doc",
}


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model without weights: nothing here may need them."""
    model = write_model(tmp_path_factory.mktemp("model"))
    (model / "model.safetensors").unlink()
    return model


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return write_suite(tmp_path / "words", sizes=(3, 4))


def edit_task(folder: Path, **changes: object) -> None:
    """Change keys of the test task; None takes one out, and `module.name()` is a function."""
    file = folder / "test.yaml"
    task = yaml.safe_load(file.read_text().replace("!function ", ""))
    task = {key: value for key, value in (task | changes).items() if value is not None}
    text = yaml.safe_dump(task)
    for module in ("scoring", "own"):
        text = text.replace(f" {module}.", f" !function {module}.")
    file.write_text(text)


def refusal(folder: Path, models: dict[str, Path], limit: int | None = None) -> str:
    with pytest.raises(InputError) as refused:
        rehearse([load_suite(folder)], models, limit=limit)
    assert "\n" not in str(refused.value)
    return str(refused.value)


def test_a_good_suite_says_nothing(folder: Path, model: Path, tmp_path: Path) -> None:
    suites = [
        load_suite(folder),
        load_suite(write_suite(tmp_path / "chat", apply_chat_template=True)),
        load_suite(write_suite(tmp_path / "choice", kind="choice")),
    ]
    assert rehearse(suites, {"base": model}).warnings == []
    assert rehearse(suites, {}).warnings == []


@pytest.mark.parametrize("key", [field.name for field in fields(TaskConfig) if "Callable" in str(field.type)])
@pytest.mark.parametrize(
    ("module", "reason"),
    [
        (None, "cannot be imported"),
        ("", "cannot be imported"),
        ("import nowhere\n", "cannot be imported"),
        ("def function(:\n", "cannot be imported"),
        ("raise SystemExit(3)\n", "cannot be imported"),
        ("function = 3\n", "which is 3; give a function"),
    ],
)
def test_each_function_that_a_task_can_name_is_loaded(
    key: str, module: str | None, reason: str, folder: Path, model: Path
) -> None:
    if module is not None:
        (folder / "own.py").write_text(module)
    edit_task(folder, **{"process_results": "scoring.process_results", key: "own.function"})
    said = refusal(folder, {"base": model})
    assert f"a file in {folder} names the function 'own.function', " in said
    assert reason in said


@pytest.mark.parametrize("key", FUNCTIONS)
def test_a_function_that_never_returns_ends_the_check_and_not_the_night(key: str, folder: Path, model: Path) -> None:
    """Also one that takes every error for a wrong answer."""
    body = f"""
def function({FUNCTIONS[key]}):
    try:
        {HANGS}
    except Exception:
        return {{"acc": 0.0}}
"""
    (folder / "own.py").write_text(body)
    edit_task(folder, **{key: "own.function"})

    assert f"one call of function took more than {patience.CALL_SECONDS:g} s" in refusal(folder, {"m": model})


@pytest.mark.parametrize("key", FUNCTIONS)
@pytest.mark.parametrize("body", ["(): return 1", "({}): raise KeyError('gold')", "({}): raise SystemExit(3)"])
def test_each_function_of_a_task_is_called(key: str, body: str, folder: Path, model: Path) -> None:
    (folder / "own.py").write_text("def function" + body.replace("{}", FUNCTIONS[key]))
    edit_task(folder, **{"process_results": "scoring.process_results", key: "own.function"})
    said = refusal(folder, {"base": model})
    assert "TypeError" in said or "KeyError('gold')" in said or "SystemExit(3)" in said
    assert str(folder) in said


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        ("return dataset.filter(lambda item: False)", "process_docs of the task 'words_test' .* keeps no item"),
        ("return None", "NoneType"),
    ],
)
def test_process_docs_has_to_keep_items(body: str, reason: str, folder: Path, model: Path) -> None:
    with (folder / "scoring.py").open("a") as scoring:
        scoring.write(f"\ndef process_docs(dataset):\n    {body}\n")
    edit_task(folder, process_results="scoring.process_results", process_docs="scoring.process_docs")
    with pytest.raises(InputError, match=reason):
        rehearse([load_suite(folder)], {"base": model})


def test_an_unknown_task_is_named_with_the_nearest(
    folder: Path, model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # A library of no tasks in place of lm-eval's own, which takes seconds to index.
    (tmp_path / "library").mkdir()
    monkeypatch.setattr("lm_eval.tasks.manager.__file__", str(tmp_path / "library" / "manager.py"))
    monkeypatch.setattr("evaluation.runners.rehearsal.task_manager", task_manager.__wrapped__)
    suite = yaml.safe_load((folder / "suite.yaml").read_text())
    suite["tasks"]["test"] = ["word_test"]
    (folder / "suite.yaml").write_text(yaml.safe_dump(suite))
    assert "names the unknown lm-eval task 'word_test' (did you mean 'words_test'?)" in refusal(folder, {"base": model})


def test_data_that_cannot_be_reached_are_named_with_the_task(
    folder: Path, model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object, **__: object) -> NoReturn:
        raise ConnectionError("Couldn't reach 'org/name' on the Hub")

    monkeypatch.setattr("datasets.load_dataset", refuse)
    edit_task(folder, dataset_path="org/name", dataset_kwargs=None, process_results="scoring.process_results")
    said = refusal(folder, {"base": model})
    assert "the data of the task 'words_test' of the suite" in said
    assert "are not on this machine" in said


def test_a_suite_that_asks_with_a_chat_template_needs_one(model: Path, tmp_path: Path) -> None:
    folder = write_suite(tmp_path / "chat", apply_chat_template=True)
    plain = tmp_path / "plain"
    save_model(plain)
    write_tokenizer(plain, chat_template=None)
    assert "asks with a chat template, and agent has none" in refusal(folder, {"base": model, "agent": plain})


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        (
            {"generation_kwargs": {"until": ["f"], "max_gen_toks": 128}},
            "answer with 128 tokens, which fill the context",
        ),
        ({"generation_kwargs": {"until": ["f"]}}, "answer with 256 tokens, which fill the context of base, 128 tokens"),
        (
            {"generation_kwargs": {"until": ["f"], "max_gen_toks": 127}},
            "has no prompt that fits into the context of base",
        ),
        ({"num_fewshot": 100}, "shows 100 examples (num_fewshot), and there are 4; lower num_fewshot"),
    ],
)
def test_prompts_and_answers_have_to_fit_into_the_context(
    changes: dict[str, object], reason: str, folder: Path, model: Path
) -> None:
    edit_task(folder, process_results="scoring.process_results", **changes)
    assert reason in refusal(folder, {"base": model})


def test_prompts_that_are_cut_are_counted(folder: Path, model: Path) -> None:
    items = [json.loads(line) for line in (folder / "test.jsonl").read_text().splitlines()]
    for index, item in enumerate(items):
        item["prompt"] = "ab" * (10 if index else 70)
    (folder / "test.jsonl").write_text("".join(json.dumps(item) + "\n" for item in items))
    (warning,) = rehearse([load_suite(folder)], {"base": model}).warnings
    assert warning.startswith(f"1 of 4 prompts of the test task 'words_test' of the suite {folder} do not fit into")
    assert "the context of base, 128 tokens" in warning
    assert "every" not in warning
    assert "has no prompt that fits" in refusal(folder, {"base": model}, limit=1)


def test_the_room_is_exactly_what_lm_eval_leaves(folder: Path, model: Path) -> None:
    """128 positions and 6 new tokens: 122 tokens are read whole, 123 are cut."""
    items = [json.loads(line) for line in (folder / "test.jsonl").read_text().splitlines()]
    for size, expected in ((122, 0), (123, 1)):
        items[0]["prompt"] = "a" * size
        (folder / "test.jsonl").write_text("".join(json.dumps(item) + "\n" for item in items))
        assert len(rehearse([load_suite(folder)], {"base": model}).warnings) == expected


def no_config(model: Path) -> None:
    (model / "config.json").unlink()


def no_tokenizer(model: Path) -> None:
    for file in model.glob("tokenizer*"):
        file.unlink()


def broken_tokenizer(model: Path) -> None:
    (model / "tokenizer.json").write_text('{"model": 1}')


def broken_template(model: Path) -> None:
    (model / "chat_template.jinja").write_text("{% for m in messages %}")


def odd_end(model: Path) -> None:
    (model / "generation_config.json").write_text(json.dumps({"eos_token_id": "</s>"}))


def broken_generation(model: Path) -> None:
    (model / "generation_config.json").write_text("{")


def encoder(model: Path) -> None:
    edit_config(model, model_type="bert", architectures=["BertForMaskedLM"])


@pytest.mark.parametrize(
    ("damage", "reason"),
    [
        (no_config, "it has no config.json"),
        (no_tokenizer, "its tokenizer cannot be loaded"),
        (broken_tokenizer, "its tokenizer cannot be loaded"),
        (broken_template, "cannot be asked of base"),
        (odd_end, "eos_token_id must be the id of a token"),
        (broken_generation, "generation_config.json cannot be loaded"),
        (encoder, "can be merged but not evaluated"),
    ],
)
def test_companions_that_cannot_be_used_are_found(damage: Callable[[Path], None], reason: str, tmp_path: Path) -> None:
    model = write_model(tmp_path / "model")
    damage(model)
    assert reason in refusal(write_suite(tmp_path / "chat", apply_chat_template=True), {"base": model})


def test_nothing_reaches_for_the_network(folder: Path, model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> NoReturn:
        raise AssertionError("the rehearsal reached for the network")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    assert rehearse([load_suite(folder)], {"base": model}).warnings == []


def test_clusters_lie_in_one_split_whatever_makes_the_items(model: Path, tmp_path: Path) -> None:
    folder = write_suite(tmp_path / "words", sizes=(4, 4), cluster="topic")
    rehearse([load_suite(folder)], {"base": model})
    assert "has one cluster (topic: validation 0), which says nothing about others" in refusal(
        folder, {"base": model}, limit=3
    )
    own = "def process_docs(dataset):\n    return dataset.map(lambda doc: {'topic': 'x'})\n"
    (folder / "own.py").write_text(own)
    edit_task(folder, process_docs="own.process_docs")
    (folder / "validation.yaml").write_text(
        (folder / "validation.yaml").read_text() + "process_docs: !function own.process_docs\n"
    )
    assert "1 clusters are in both splits (one has topic: x)" in refusal(folder, {"base": model})


def test_answers_are_sampled_only_where_they_are_generated(model: Path, tmp_path: Path) -> None:
    sampling = {"repeats": 2, "temperature": 0.5}
    folder = write_suite(tmp_path / "choice", kind="choice", sizes=(1, 1), sampling=sampling)
    assert "samples answers, and the task 'choice_validation' generates none" in refusal(folder, {"base": model})
