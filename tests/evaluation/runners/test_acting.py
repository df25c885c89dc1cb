"""Contract: an item of a suite with an environment is a conversation, kept whole, that the environment scores.

The model's answers are those of plain greedy decoding of what it was told, wherever it runs. What the environment does
wrong is known before any weights are read.
"""

import json
from collections import defaultdict
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from evaluation.backends.served import Endpoint
from evaluation.runners import patience
from evaluation.runners.acting import acting
from evaluation.runners.harness import evaluate_model
from evaluation.runners.rehearsal import rehearse
from evaluation.runners.served import evaluate_served
from evaluation.runners.views import answering as answering_by
from evaluation.suites import Suite, imports, load_suite
from evaluation.suites.environment import Reply, World
from rammerge.errors import InputError, RammergeError
from tests.evaluation.made import HANGS, WORLD, write_model, write_suite
from tests.fixtures.answering import answering


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_model(tmp_path_factory.mktemp("model"))


@pytest.fixture(scope="module")
def suite(tmp_path_factory: pytest.TempPathFactory) -> Suite:
    return load_suite(write_suite(tmp_path_factory.mktemp("suites") / "mirror", kind="world"))


@pytest.fixture(scope="module")
def greedy(model: Path) -> Callable[[str], str]:
    """Return plain greedy decoding of one prompt: six characters, unless the text ends before."""
    tokenizer = AutoTokenizer.from_pretrained(model)
    network = AutoModelForCausalLM.from_pretrained(model, dtype=torch.float32).eval()

    def answer(prompt: str) -> str:
        ids = tokenizer(prompt, return_tensors="pt").input_ids
        start = ids.shape[1]
        with torch.no_grad():
            while ids.shape[1] < start + 6 and (token := network(ids).logits[0, -1].argmax()) != 1:
                ids = torch.cat([ids, token.view(1, 1)], dim=1)
        return str(tokenizer.decode(ids[0, start:], skip_special_tokens=True))

    return answer


def samples(out: Path, name: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (out / name / "test.jsonl").read_text().splitlines()]


def test_conversations_are_greedy_decoding_of_each_turn_alone(
    model: Path, suite: Suite, greedy: Callable[[str], str], tmp_path: Path
) -> None:
    result = evaluate_model(model, [suite], splits=["test"], batch_size=5, out=tmp_path)["mirror", "test"]
    kept = samples(tmp_path, "mirror")
    items = {item["id"]: item for item in suite.task_files["mirror_test"].items()}
    assert [sample["id"] for sample in kept] == sorted(items)
    for sample in kept:
        item = items[sample["id"]]
        first, last = f"{item['prompt']}", item["id"][-1]
        one = greedy(f"<user>{first}!")
        two = greedy(f"<user>{first}<assistant>{one}<user>{one[::-1]}={last}!")
        three = greedy(f"<user>{two[::-1]}={last}!")
        assert sample["prompt"] == f"<user>{first}!"
        assert sample["turns"] == [
            {"role": "assistant", "content": one},
            {"role": "user", "content": f"{one[::-1]}={last}"},
            {"role": "assistant", "content": two},
            {"role": "user", "content": f"{two[::-1]}={last}", "forget": True},
            {"role": "assistant", "content": three},
        ]
        assert sample["completion"].startswith(f"[assistant] {one}\n\n[user] ")
        assert sample["score"] == result.scores[sample["id"]] == len(set(one + two + three)) / 18
    assert len({sample["score"] for sample in kept}) > 1


def test_a_model_on_a_server_talks_as_it_does_here(
    model: Path, suite: Suite, greedy: Callable[[str], str], tmp_path: Path
) -> None:
    def answer(question: dict[str, Any]) -> str:
        return greedy("".join(f"<{turn['role']}>{turn['content']}" for turn in question["messages"]) + "!")

    evaluate_model(model, [suite], splits=["test"], out=tmp_path / "here")
    with answering() as server:
        server.answer = answer
        evaluate_served(Endpoint(server.url, "tiny"), [suite], splits=["test"], out=tmp_path / "there")

    here, there = samples(tmp_path / "here", "mirror"), samples(tmp_path / "there", "mirror")
    assert [(each["id"], each["turns"], each["score"]) for each in there] == [
        (each["id"], each["turns"], each["score"]) for each in here
    ]


def test_sampled_conversations_are_kept_each_and_are_the_same_again(model: Path, tmp_path: Path) -> None:
    sampling = {"repeats": 3, "temperature": 1.0}
    suite = load_suite(write_suite(tmp_path / "mirror", kind="world", sizes=(2, 4), sampling=sampling))
    for out in ("one", "two"):
        evaluate_model(model, [suite], splits=["test"], out=tmp_path / out)
    one, two = samples(tmp_path / "one", "mirror"), samples(tmp_path / "two", "mirror")
    assert one == two
    for sample in one:
        assert len({json.dumps(answer["turns"]) for answer in sample["answers"]}) > 1
        assert sample["turns"] == sample["answers"][0]["turns"]


class Countdown:
    """Ends after as many answers as the item says."""

    def reset(self, item: dict[str, Any]) -> None:
        """Begin."""
        self.left = item.pop("turns")

    def step(self, answer: str) -> Reply:
        """Say how many are left."""
        self.left -= 1
        return Reply(f"{answer} {self.left}", score=1.0 if self.left == 0 else None)


class _Here:
    """A reference to a class of this module."""

    def load(self) -> Any:
        return Countdown


def test_all_that_go_on_are_asked_at_once_and_no_more_often_than_the_suite_says() -> None:
    from lm_eval.api.instance import Instance

    calls: list[list[str]] = []

    def generate(requests: Sequence[Any]) -> list[str]:
        calls.append([request.args[0] for request in requests])
        return [f"a{len(calls)}" for _ in requests]

    score: Any = None
    reference: Any = _Here()
    view = answering_by(generate, score, score, lambda turns: "|".join(turn["content"] for turn in turns))
    lm = acting(view, World(reference, turns=3))
    prompts = [lm.apply_chat_template([{"role": "user", "content": name}]) for name in "pqr"]
    requests = [
        Instance("generate_until", {"turns": turns}, (prompt, {}), 0)
        for prompt, turns in zip(prompts, (1, 3, 9), strict=True)
    ]

    said: Any = lm.generate_until(requests)

    assert calls == [["p", "q", "r"], ["q|a1|a1 2", "r|a1|a1 8"], ["q|a1|a1 2|a2|a2 1", "r|a1|a1 8|a2|a2 7"]]
    assert [each.score for each in said] == [1.0, 1.0, 0.0]
    assert [request.doc for request in requests] == [{"turns": 1}, {"turns": 3}, {"turns": 9}]


def test_a_conversation_that_outgrows_the_context_is_over(model: Path, tmp_path: Path) -> None:
    folder = write_suite(tmp_path / "mirror", kind="world", sizes=(1, 3))
    world = (folder / "world.py").read_text().replace("{answer[::-1]}=", "{'x' * 90}=")
    (folder / "world.py").write_text(world)
    result = evaluate_model(model, [load_suite(folder)], splits=["test"], out=tmp_path / "out")["mirror", "test"]
    assert set(result.scores.values()) == {0.0}
    assert {len(sample["turns"]) for sample in samples(tmp_path / "out", "mirror")} == {2}


def test_a_conversation_that_outgrows_the_context_of_a_server_is_over(suite: Suite, tmp_path: Path) -> None:
    """And the others go on."""

    def answer(question: dict[str, Any]) -> str | int:
        turns = question["messages"]
        first = str(turns[0]["content"])
        return 400 if len(turns) > 1 and len(first) % 2 else "abc"

    with answering() as server:
        server.answer = answer
        evaluate_served(Endpoint(server.url, "tiny"), [suite], splits=["test"], out=tmp_path)

    kept = samples(tmp_path, "mirror")
    lengths = {len(json.loads(sample["prompt"])[0]["content"]) % 2: len(sample["turns"]) for sample in kept}
    assert lengths == {0: 5, 1: 2}
    assert {sample["score"] for sample in kept if len(sample["turns"]) == 2} == {0.0}


def test_a_prompt_that_outgrows_the_context_of_a_server_stops_the_run(suite: Suite) -> None:
    with answering() as server, pytest.raises(RammergeError, match="has too short a context for a question"):
        server.answer = lambda question: 400 if question["max_tokens"] > 1 else "a"
        evaluate_served(Endpoint(server.url, "tiny"), [suite], splits=["test"])


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"class Mirror": "class Other"}, "names the function 'world.Mirror', which cannot be imported"),
        ({"def reset": "def begin"}, "has no attribute 'reset'"),
        ({"return Reply(f": "return str(f", ", forget=len(self.said) == 2": ""}, "'enon=.', which is no Reply"),
        ({"return Reply(f\"{answer[::-1]}={self.item['id'][-1]}\"": "return Reply(7"}, "which is no Reply with a text"),
        ({"/ 18": "+ 18"}, r"gave an item the acc 2"),
        ({"self.said.append(answer)": "self.said.append(answer); answer + 1"}, "TypeError"),
    ],
)
def test_what_an_environment_does_wrong_is_known_before_any_model_answers(
    tmp_path: Path, change: dict[str, str], sentence: str
) -> None:
    folder = write_suite(tmp_path / "mirror", kind="world", sizes=(1, 1))
    text = (folder / "world.py").read_text()
    for old, new in change.items():
        assert old in text
        text = text.replace(old, new)
    (folder / "world.py").write_text(text)
    with pytest.raises(InputError, match=sentence):
        rehearse([load_suite(folder)], {})


def test_an_environment_that_never_replies_ends_the_check_and_not_the_night(tmp_path: Path) -> None:
    folder = write_suite(tmp_path / "mirror", kind="world", sizes=(1, 1))
    (folder / "world.py").write_text(WORLD.replace("self.said.append(answer)", HANGS))
    with pytest.raises(InputError, match=f"one call of step took more than {patience.CALL_SECONDS:g} s"):
        rehearse([load_suite(folder)], {})


@pytest.mark.parametrize(
    ("kind", "change", "sentence"),
    [
        ("world", {"apply_chat_template": False}, "set apply_chat_template: true"),
        ("world", {"environment": {"class": "Mirror", "turns": 5}}, "environment.class"),
        ("world", {"environment": {"class": "world.Mirror", "turns": 0}}, "environment.turns"),
        ("generate", {"environment": {"class": "w.M", "turns": 1}, "apply_chat_template": True}, "process_results"),
        ("choice", {"environment": {"class": "w.M", "turns": 1}, "apply_chat_template": True}, "generate_until"),
    ],
)
def test_a_suite_that_cannot_be_acted_is_refused(
    tmp_path: Path, kind: str, change: dict[str, Any], sentence: str
) -> None:
    with pytest.raises(InputError, match=sentence):
        load_suite(write_suite(tmp_path / "mirror", kind=kind, sizes=(1, 1), **change))


def test_a_different_environment_makes_a_different_suite(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Wherever its module lies, and however often it is asked for."""
    monkeypatch.syspath_prepend(tmp_path)
    digests: dict[str, set[str]] = defaultdict(set)
    for name, module in (("inside", "world"), ("outside", "elsewhere")):
        environment = {"class": f"{module}.Mirror", "turns": 5}
        folder = write_suite(tmp_path / name, kind="world", sizes=(1, 1), environment=environment)
        file = folder / "world.py" if name == "inside" else (folder / "world.py").rename(tmp_path / "elsewhere.py")
        for _ in range(2):
            digests[name].add(load_suite(folder).digest)
            file.write_text(f"{file.read_text()}\n# changed\n")
    assert [len(each) for each in digests.values()] == [2, 2]


def test_code_of_a_bundled_suite_that_an_environment_uses_counts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(imports, "_BUNDLED", tmp_path / "bundled")
    folder = write_suite(tmp_path / "mirror", kind="world", sizes=(1, 1))
    used = tmp_path / "bundled" / "theirs" / "calls.py"
    used.parent.mkdir(parents=True)
    (folder / "world.py").write_text(f"from evaluation.suites.bundled.theirs.calls import f\n{WORLD}")
    digests = set()
    for content in ("f = 1", "f = 2", "f = 1"):
        used.write_text(content)
        digests.add(load_suite(folder).digest)
    assert len(digests) == 2
