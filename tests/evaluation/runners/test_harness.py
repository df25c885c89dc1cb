"""Contract: scores are those of plain greedy decoding of each item alone, kept by item, offline.

They are the same whatever the batch size, the other suites or the checkpoint's decoding settings.
"""

import builtins
import dataclasses
import json
import shutil
import socket
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
import pytest
import torch
import yaml
from transformers import AutoModelForCausalLM, AutoTokenizer

from evaluation.results import SuiteResult
from evaluation.runners.harness import evaluate_model
from evaluation.suites import Split, Suite, load_suite
from rammerge.errors import InputError, RammergeError
from tests.evaluation.made import write_model, write_suite
from tests.fixtures.models import edit_config

Results = dict[tuple[str, Split], SuiteResult]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_model(tmp_path_factory.mktemp("model"))


@pytest.fixture(scope="module")
def suites(tmp_path_factory: pytest.TempPathFactory) -> list[Suite]:
    folder = tmp_path_factory.mktemp("suites")
    return [
        load_suite(write_suite(folder / "words")),
        load_suite(write_suite(folder / "chat", apply_chat_template=True, metric="share")),
        load_suite(write_suite(folder / "choice", kind="choice")),
    ]


@pytest.fixture(scope="module")
def out(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("out")


@pytest.fixture(scope="module")
def results(model: Path, suites: list[Suite], out: Path) -> Results:
    def refuse(*_: object) -> NoReturn:
        raise AssertionError("the runner reached for the network")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(socket.socket, "connect", refuse)
        before = global_state()
        results = evaluate_model(model, suites, out=out, model_digest="d1")
        assert global_state() == before
    return results


def global_state() -> list[object]:
    state = [torch.get_num_threads(), torch.get_default_dtype(), torch.get_rng_state().tolist()]
    return [*state, np.random.get_state(legacy=False)["state"]["key"].tolist(), torch.is_grad_enabled()]


def samples(out: Path, suite: str, split: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (out / suite / f"{split}.jsonl").read_text().splitlines()]


def items(suite: Suite, split: str) -> dict[str, dict[str, Any]]:
    return {str(item["id"]): item for item in suite.task_files[f"{suite.name}_{split}"].items()}


@pytest.mark.usefixtures("results")
@pytest.mark.parametrize("index", [0, 1])
@pytest.mark.parametrize("split", ["validation", "test"])
def test_completions_are_greedy_decoding_of_each_item_alone(
    model: Path, suites: list[Suite], out: Path, index: int, split: str
) -> None:
    suite = suites[index]
    tokenizer = AutoTokenizer.from_pretrained(model)
    network = AutoModelForCausalLM.from_pretrained(model, dtype=torch.float32).eval()
    docs = items(suite, split)
    logged = samples(out, suite.name, split)
    assert [sample["id"] for sample in logged] == sorted(docs)
    score = suite.task_files[f"{suite.name}_{split}"].config["process_results"].load()
    for sample in logged:
        doc = docs[str(sample["id"])]
        prompt = f"<user>{doc['prompt']}!" if suite.apply_chat_template else doc["prompt"]
        assert sample["prompt"] == prompt
        ids = tokenizer(prompt, return_tensors="pt").input_ids
        text = ""
        with torch.no_grad():
            for _ in range(6):
                token = network(ids).logits[0, -1].argmax()
                text += (
                    tokenizer.decode(token, skip_special_tokens=True) if token != 1 else "f"
                )  # the end of text ends it, as "f" does
                ids = torch.cat([ids, token.view(1, 1)], dim=1)
        completion = text.partition("f")[0]
        assert sample["completion"] == completion
        assert sample["score"] == score(doc, [completion])[suite.metric]
    assert len({sample["completion"] for sample in logged}) > 1


@pytest.mark.usefixtures("results")
def test_multiple_choice_takes_the_most_likely_choice(model: Path, suites: list[Suite], out: Path) -> None:
    tokenizer = AutoTokenizer.from_pretrained(model)
    network = AutoModelForCausalLM.from_pretrained(model, dtype=torch.float32).eval()
    docs = items(suites[2], "test")

    def likelihood(prompt: str, choice: str) -> float:
        ids = tokenizer(f"{prompt} {choice}", return_tensors="pt").input_ids
        with torch.no_grad():
            logits = network(ids).logits[0, :-1].log_softmax(-1)
        return float(logits.gather(1, ids[0, 1:, None])[-len(choice) - 1 :].sum())

    for sample in samples(out, "choice", "test"):
        doc = docs[str(sample["id"])]
        best = max(range(3), key=lambda index: likelihood(doc["prompt"], doc["choices"][index]))
        assert str(sample["completion"]).strip() == doc["choices"][best]
        assert sample["score"] == float(best == doc["target"])


def test_results_say_how_they_were_made(suites: list[Suite], results: Results, out: Path) -> None:
    assert set(results) == {(suite.name, split) for suite in suites for split in ("validation", "test")}
    for (name, split), result in results.items():
        suite = next(suite for suite in suites if suite.name == name)
        assert (result.suite, result.split, result.suite_digest) == (name, split, suite.digest)
        assert (result.dtype, result.batch_size, result.model_digest, result.limit) == ("float32", 100, "d1", None)
        assert list(result.scores) == sorted(items(suite, split))
        assert result.n == {"validation": 5, "test": 12}[split]
        assert result.mean == pytest.approx(np.mean([sample["score"] for sample in samples(out, name, split)]))
        written = json.loads((out / name / f"{split}.json").read_text())
        assert SuiteResult.from_json(written) == result
        assert (written["n"], written["mean"]) == (result.n, result.mean)
    digests = {(name, split): result.items_digest for (name, split), result in results.items()}
    assert len(set(digests.values())) == len(digests)


def test_scores_depend_on_neither_batches_nor_other_suites_nor_limits(
    model: Path, suites: list[Suite], results: Results
) -> None:
    alone = evaluate_model(model, [suites[0]], splits=["test"], batch_size=3, limit=7)
    scores = alone["words", "test"].scores
    whole = results["words", "test"].scores
    assert set(alone) == {("words", "test")}
    assert len(scores) == 7
    assert dict(scores) == {identity: whole[identity] for identity in scores}


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"metric": "ac"}, r"has no metric 'ac' \(did you mean 'acc'\?\); it has acc, share"),
        ({"metric": "acc,strict"}, r"has the filters none: write the metric as 'acc,none'"),
    ],
)
def test_a_wrong_metric_names_the_right_one(model: Path, tmp_path: Path, change: dict[str, str], sentence: str) -> None:
    suite = load_suite(write_suite(tmp_path / "words", sizes=(1, 1), **change))
    with pytest.raises(InputError, match=sentence):
        evaluate_model(model, [suite], splits=["test"])


@pytest.mark.parametrize(
    ("scoring", "kind", "sentence"),
    [
        ("return {'acc': 37.2}", InputError, r"gave an item the acc 37.2, but a suite's metric must .* \[0, 1\]"),
        ("return {'acc': float('nan')}", InputError, r"gave an item the acc nan"),
        ("raise KeyError('gold')", RammergeError, r"test split .* cannot be evaluated: KeyError\('gold'\)"),
    ],
)
def test_scoring_that_fails_is_one_sentence(
    model: Path, tmp_path: Path, scoring: str, kind: type[RammergeError], sentence: str
) -> None:
    folder = write_suite(tmp_path / "words", sizes=(1, 1))
    (folder / "scoring.py").write_text(f"def process_results(doc, results):\n    {scoring}\n")
    with pytest.raises(kind, match=sentence):
        evaluate_model(model, [load_suite(folder)], splits=["test"])


def test_a_task_that_lm_eval_refuses_is_bad_input(model: Path, tmp_path: Path) -> None:
    folder = write_suite(tmp_path / "words", sizes=(1, 1))
    task = folder / "test.yaml"
    task.write_text(task.read_text().replace("generate_until", "generate_untill"))
    with pytest.raises(InputError, match="lm-eval cannot build the task 'words_test'"):
        evaluate_model(model, [load_suite(folder)], splits=["test"])


def test_what_is_no_model_is_bad_input(model: Path, suites: list[Suite], tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"is not a model directory: it has no config\.json"):
        evaluate_model(tmp_path, suites)
    broken = shutil.copytree(model, tmp_path / "broken")
    (broken / "model.safetensors").write_bytes(b"\0" * 100)
    with pytest.raises(InputError, match="cannot be loaded by transformers"):
        evaluate_model(broken, suites)
    with pytest.raises(InputError, match=r"unknown dtype 'bf16' \(did you mean"):
        evaluate_model(model, suites, dtype="bf16")


def test_a_model_never_runs_code_of_its_own(
    model: Path, suites: list[Suite], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not even where a person at a terminal would agree to it."""
    own = shutil.copytree(model, tmp_path / "own")
    edit_config(own, model_type="own", auto_map={"AutoConfig": "own.Config", "AutoModelForCausalLM": "own.Model"})
    (own / "own.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')\n")
    monkeypatch.setattr(builtins, "input", lambda *_: "y")
    with pytest.raises(InputError, match="contains custom code"):
        evaluate_model(own, suites)
    assert not (tmp_path / "ran").exists()


def test_nothing_is_written_of_a_suite_that_fails(model: Path, tmp_path: Path) -> None:
    folder = write_suite(tmp_path / "words", sizes=(1, 1), metric="none")
    with pytest.raises(InputError):
        evaluate_model(model, [load_suite(folder)], out=tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_results_are_frozen(results: Results) -> None:
    found: Any = next(iter(results.values()))
    with pytest.raises(dataclasses.FrozenInstanceError):
        found.dtype = "bfloat16"


def test_process_docs_gets_a_dataset(model: Path, tmp_path: Path) -> None:
    folder = write_suite(tmp_path / "words", sizes=(2, 4))
    (folder / "scoring.py").write_text(
        "def process_docs(dataset):\n    return dataset.filter(lambda doc: len(doc['prompt']) > 0).select([0, 1])\n"
        "def process_results(doc, results):\n    return {'acc': 1.0}\n"
    )
    task = folder / "test.yaml"
    task.write_text(task.read_text() + "process_docs: !function scoring.process_docs\n")
    assert yaml.safe_load((folder / "suite.yaml").read_text())["name"] == "words"
    assert evaluate_model(model, [load_suite(folder)], splits=["test"])["words", "test"].n == 2


def test_sampled_answers_are_kept_and_are_the_same_again(model: Path, tmp_path: Path) -> None:
    sampling = {"repeats": 4, "temperature": 1.0}
    suite = load_suite(write_suite(tmp_path / "words", metric="share", cluster="topic", sampling=sampling))
    before = global_state()
    result = evaluate_model(model, [suite], splits=["test"], out=tmp_path / "out")["words", "test"]
    assert global_state() == before
    assert result.answers is not None
    for sample in samples(tmp_path / "out", "words", "test"):
        scores = [answer["score"] for answer in sample["answers"]]
        assert scores == [answer["completion"].count("e") / 6 for answer in sample["answers"]]
        assert result.answers[sample["id"]] == scores
        assert result.scores[sample["id"]] == sample["score"] == pytest.approx(np.mean(scores))
        assert sample["completion"] == sample["answers"][0]["completion"]
        assert len(scores) == 4
    assert any(len(set(scores)) > 1 for scores in result.answers.values())
    assert result.clusters == {name: doc["topic"] for name, doc in sorted(items(suite, "test").items())}
    assert result.decoding == "4 answers at temperature 1"
    assert SuiteResult.from_json(json.loads((tmp_path / "out" / "words" / "test.json").read_text())) == result
    again = evaluate_model(model, [suite], splits=["test"])["words", "test"]
    assert again.answers == result.answers


def test_results_say_how_prompts_were_made(results: Results) -> None:
    assert results["words", "test"].few_shot == {"words_test": 0}
    assert results["words", "test"].chat_template is None
    assert len(results["chat", "test"].chat_template or "") == 64
    assert {result.decoding for result in results.values()} == {"greedy"}
