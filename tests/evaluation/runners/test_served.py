"""Contract: a model on a server gets the scores that the same model gets here, and its results say where they are from.

The server's answers come from transformers itself, over loopback, in the protocol that vLLM and others speak.
"""

import json
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, GenerationConfig

from evaluation.backends.served import Endpoint
from evaluation.runners.harness import evaluate_model
from evaluation.runners.served import ServedModel, evaluate_served
from evaluation.runners.worker import Asked
from evaluation.suites import Suite, load_suite
from flows.cli.program import main
from rammerge.errors import InputError, RammergeError
from rammerge.system.servers import answers
from tests.evaluation.made import write_model, write_suite
from tests.fixtures.answering import Answering, answering


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_model(tmp_path_factory.mktemp("model"))


@pytest.fixture(scope="module")
def suites(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Suite]:
    folder = tmp_path_factory.mktemp("suites")
    return {
        "words": load_suite(write_suite(folder / "words")),
        "chat": load_suite(write_suite(folder / "chat", apply_chat_template=True, metric="share")),
        "choice": load_suite(write_suite(folder / "choice", kind="choice")),
    }


class Answers:
    """What transformers answers."""

    def __init__(self, model: Path) -> None:
        self.tokenizer = AutoTokenizer.from_pretrained(model)
        self.network = AutoModelForCausalLM.from_pretrained(model, dtype=torch.float32).eval()
        self.network.generation_config = GenerationConfig(eos_token_id=1, pad_token_id=0)

    def __call__(self, question: dict[str, Any]) -> str | dict[str, Any]:
        """Answer as a server of this model would."""
        prompt = question.get("prompt") or self.tokenizer.apply_chat_template(
            question["messages"], tokenize=False, add_generation_prompt=True
        )
        encoded = self.tokenizer(prompt, return_tensors="pt", return_offsets_mapping=True)
        if question.get("echo"):
            return self._repeated(encoded)
        with torch.inference_mode():
            tokens = self.network.generate(encoded.input_ids, max_new_tokens=question["max_tokens"], do_sample=False)
        # No server stops at more than it was told to.
        text = str(self.tokenizer.decode(tokens[0, encoded.input_ids.shape[1] :], skip_special_tokens=True))
        return text if not question.get("stop") else min((text.split(stop)[0] for stop in question["stop"]), key=len)

    def _repeated(self, encoded: Any) -> dict[str, Any]:
        with torch.inference_mode():
            logs = self.network(encoded.input_ids).logits[0, :-1].log_softmax(-1)
        chosen = logs.gather(1, encoded.input_ids[0, 1:, None])[:, 0].tolist()
        return {
            "text": "",
            "logprobs": {
                "text_offset": [start for start, _ in encoded.offset_mapping[0].tolist()],
                "token_logprobs": [None, *chosen],
                "top_logprobs": [None, *({"best": best} for best in logs.max(-1).values.tolist())],
            },
        }


@pytest.fixture
def rammerge(monkeypatch: pytest.MonkeyPatch) -> Callable[..., object]:
    """Return the command line, which returns its exit code."""

    def run(*words: object) -> object:
        monkeypatch.setattr(sys, "argv", ["rammerge", *map(str, words)])
        with pytest.raises(SystemExit) as ended:
            main()
        return ended.value.code

    return run


@pytest.fixture
def server(model: Path) -> Iterator[Answering]:
    with answering() as there:
        there.answer = Answers(model)
        yield there


def test_scores_are_those_of_the_same_model_here(model: Path, suites: dict[str, Suite], server: Answering) -> None:
    here = evaluate_model(model, list(suites.values()))

    there = evaluate_served(Endpoint(server.url, "tiny"), list(suites.values()))

    assert {key: result.scores for key, result in there.items()} == {key: each.scores for key, each in here.items()}
    assert {key: result.items_digest for key, result in there.items()} == {
        key: result.items_digest for key, result in here.items()
    }
    assert any(0 < result.mean < 1 for result in there.values())
    assert all(result.dtype == "unknown" and result.device == f"tiny at {server.url}" for result in there.values())


def test_a_password_in_the_address_is_in_no_result() -> None:
    conditions = ServedModel(Endpoint("http://me:secret1@127.0.0.1/v1", "tiny"), {}).conditions
    assert conditions["device"] == "tiny at http://127.0.0.1/v1"


def test_answers_are_greedy_and_cut_at_every_end_of_the_task(
    suites: dict[str, Suite], server: Answering, tmp_path: Path
) -> None:
    server.answer = lambda _: "abcdefg"  # of a server that knows no ends

    results = evaluate_served(Endpoint(server.url, "tiny"), [suites["words"]], splits=["test"], out=tmp_path)

    samples = [json.loads(line) for line in (tmp_path / "words" / "test.jsonl").read_text().splitlines()]
    assert {sample["completion"] for sample in samples} == {"abcde"}

    asked = [body for _, _, body in server.asked[1:]]
    assert all(body["temperature"] == 0.0 and body["model"] == "tiny" for body in asked)
    assert len(asked) == results["words", "test"].n


def test_all_answers_to_an_item_are_to_one_prompt_with_the_same_examples(server: Answering, tmp_path: Path) -> None:
    folder = write_suite(tmp_path / "words", sizes=(3, 6), sampling={"repeats": 3, "temperature": 1.0})
    with (folder / "test.yaml").open("a") as task:
        task.write("num_fewshot: 2\nfewshot_split: test\n")
    server.answer = lambda _: "abc"

    evaluate_served(Endpoint(server.url, "tiny"), [load_suite(folder)], splits=["test"])

    asked = Counter(body["prompt"] for _, _, body in server.asked[1:])
    assert list(asked.values()) == [3] * 6


def test_what_is_wrong_with_a_server_is_known_before_any_suite_is_built(
    tmp_path: Path, server: Answering, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("evaluation.runners.served.rehearse", lambda *_, **__: pytest.fail("a suite was built"))
    server.faults = [404]

    with pytest.raises(InputError, match="is not there"):
        evaluate_served(Endpoint(server.url, "tiny"), [load_suite(write_suite(tmp_path / "words"))])


def test_choices_in_a_chat_are_refused(tmp_path: Path, server: Answering) -> None:
    suite = load_suite(write_suite(tmp_path / "choice", kind="choice", apply_chat_template=True))

    with pytest.raises(RammergeError, match="cannot be asked in its chat how likely an answer is"):
        evaluate_served(Endpoint(server.url, "tiny"), [suite])


def test_the_command_asks_a_server_by_its_name_for_the_model(
    suites: dict[str, Suite],
    server: Answering,
    tmp_path: Path,
    rammerge: Callable[..., object],
    capsys: pytest.CaptureFixture[str],
) -> None:
    words = ("evaluate", "tiny", "--backend", "openai", "--url", server.url, "--suite", suites["words"].path)

    assert rammerge(*words, "--json", tmp_path / "scores.json", "--samples", tmp_path / "all", "--limit", 3) == 0

    assert len((tmp_path / "all" / "words" / "test.jsonl").read_text().splitlines()) == 3
    assert {body["model"] for _, _, body in server.asked} == {"tiny"}
    assert {result["n"] for result in json.loads((tmp_path / "scores.json").read_text())} == {3}
    assert "words" in capsys.readouterr().out


@pytest.mark.parametrize("words", [["--backend", "openai"], ["--url", "http://127.0.0.1:9/v1"]])
def test_an_address_without_its_backend_is_refused(
    words: list[str], rammerge: Callable[..., object], capsys: pytest.CaptureFixture[str]
) -> None:
    assert rammerge("evaluate", "tiny", "--suite", "zoo_tool", *words) == 2

    assert "--backend openai go together; give both or neither" in capsys.readouterr().err


FAKE = """#!{python}
import json, pathlib, sys, threading
sys.path.insert(0, {root!r})
from tests.fixtures.answering import Answering
pathlib.Path({said!r}).write_text(json.dumps(sys.argv[1:]))
{then}
"""


def write_vllm(directory: Path, said: Path, then: str) -> None:
    root = str(Path(__file__).parents[3])
    program = directory / "vllm"
    program.write_text(FAKE.format(python=sys.executable, root=root, said=str(said), then=then))
    program.chmod(0o755)


def test_vllm_serves_a_directory_without_its_decoding_settings_and_ends(
    model: Path,
    suites: dict[str, Suite],
    tmp_path: Path,
    rammerge: Callable[..., object],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """With a program in vLLM's place, which says what it was started with: vLLM itself needs a GPU."""
    then = "Answering(int(sys.argv[sys.argv.index('--port') + 1])).serve_forever()"
    write_vllm(tmp_path, tmp_path / "said.json", then)
    monkeypatch.setenv("PATH", str(tmp_path))
    words = ("evaluate", model, "--backend", "vllm", "--suite", suites["words"].path, "--limit", 2)

    assert rammerge(*words, "--json", tmp_path / "scores.json") == 0

    said = json.loads((tmp_path / "said.json").read_text())
    assert said[:2] == ["serve", str(model)]
    assert said[said.index("--generation-config") + 1] == "vllm"
    assert said[said.index("--host") + 1] == "127.0.0.1"
    result = json.loads((tmp_path / "scores.json").read_text())[0]
    assert (result["dtype"], len(result["model_digest"])) == ("float32", 64)
    assert not answers(f"http://127.0.0.1:{said[said.index('--port') + 1]}/health")


def test_a_run_has_vllm_serve_each_model_for_as_long_as_it_is_asked(
    model: Path, suites: dict[str, Suite], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    then = "Answering(int(sys.argv[sys.argv.index('--port') + 1])).serve_forever()"
    write_vllm(tmp_path, tmp_path / "said.json", then)
    monkeypatch.setenv("PATH", str(tmp_path))
    loaded = {"model_dir": str(model), "dtype": "float32", "batch_size": 4, "device": "cpu", "backend": "vllm"}
    suite = {"suite": str(suites["chat"].path), "suite_digest": suites["chat"].digest, "limit": 2}
    process = Asked()

    def port() -> str:
        said = json.loads((tmp_path / "said.json").read_text())
        return str(said[said.index("--port") + 1])

    assert process.answer({"do": "evaluate", "model": loaded, **suite, "out": str(tmp_path)}) == {"result": None}
    first = port()
    result = json.loads((tmp_path / "chat" / "test.json").read_text())
    assert (result["backend"], result["dtype"], result["batch_size"]) == ("vllm", "float32", 4)
    assert result["tokens"] > 0 and result["chat_template"], "the directory's own tokenizer counts"
    process.answer({"do": "look", "model": loaded, **suite, "look": 0})
    assert port() == first, "the same model is not loaded twice"
    process.answer({"do": "look", "model": {**loaded, "dtype": "bfloat16"}, **suite, "look": 0})
    assert port() != first and not answers(f"http://127.0.0.1:{first}/health")
    process.close()
    assert not answers(f"http://127.0.0.1:{port()}/health")


@pytest.mark.parametrize(
    ("then", "code", "sentence"),
    [("sys.exit(3)", 1, "vLLM stopped while starting (code 3); see "), (None, 2, "pip install vllm")],
)
def test_a_vllm_that_does_not_start_is_said(
    then: str | None,
    code: int,
    sentence: str,
    model: Path,
    tmp_path: Path,
    rammerge: Callable[..., object],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    if then is not None:
        write_vllm(tmp_path, tmp_path / "said.json", then)
    monkeypatch.setenv("PATH", str(tmp_path))

    assert rammerge("evaluate", model, "--backend", "vllm", "--suite", "zoo_tool") == code

    assert sentence in capsys.readouterr().err
