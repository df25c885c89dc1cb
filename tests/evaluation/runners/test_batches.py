"""Contract: a batch is as large as memory allows, and on a processor the same in every run.

What it takes follows from the longest prompt and answer of a suite, and from the model.
"""

import json
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM

from evaluation.runners import batches
from evaluation.runners.batches import Widest, ask_batch, find_widest, largest_that_fits, power_of_two, row_bytes
from evaluation.runners.local import LocalModel
from evaluation.suites import Suite, load_suite
from tests.evaluation.made import write_model, write_suite

GIB = 2**30


@pytest.fixture(scope="module")
def model_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_model(tmp_path_factory.mktemp("model"))


@pytest.fixture(scope="module")
def model(model_dir: Path) -> LocalModel:
    return LocalModel(model_dir, dtype="float32", batch_size=1, device="cpu")


@pytest.fixture(scope="module")
def suites(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Suite]:
    folder = tmp_path_factory.mktemp("suites")
    kinds = {"words": "generate", "choice": "choice"}
    return {name: load_suite(write_suite(folder / name, kind=kind)) for name, kind in kinds.items()}


def longest_prompt(suite: Suite) -> int:
    lines = [line for split in ("validation", "test") for line in (suite.path / f"{split}.jsonl").open()]
    return max(len(json.loads(line)["prompt"]) for line in lines)  # a token is a character


def test_the_widest_row_is_the_longest_prompt_and_the_longest_answer(
    model: LocalModel, suites: dict[str, Suite]
) -> None:
    generated = find_widest(model._lm, suites["words"], None)
    assert generated == Widest(longest_prompt(suites["words"]) + 6, scored=False)
    chosen = find_widest(model._lm, suites["choice"], None)
    assert chosen.scored and chosen.tokens >= longest_prompt(suites["choice"]) + len("def")
    assert find_widest(model._lm, suites["words"], 1).tokens < generated.tokens, "with a limit other items do not count"


def test_a_row_takes_at_least_its_cache(model_dir: Path) -> None:
    model = AutoModelForCausalLM.from_pretrained(model_dir, dtype=torch.float32)
    tokens = 50
    with torch.inference_mode():
        cache = model(torch.ones((1, tokens), dtype=torch.long), use_cache=True).past_key_values
    held = sum(each.nbytes for layer in cache.layers for each in (layer.keys, layer.values))
    written = row_bytes(model.config, Widest(tokens, scored=False), 4, model.config.vocab_size)
    scored = row_bytes(model.config, Widest(tokens, scored=True), 4, model.config.vocab_size)
    assert held < written < scored
    assert row_bytes(model.config, Widest(2 * tokens, scored=False), 4, model.config.vocab_size) > 1.9 * written


def test_on_a_processor_only_the_machine_and_the_model_decide(
    model: LocalModel, suites: dict[str, Suite], monkeypatch: pytest.MonkeyPatch
) -> None:
    chosen = {}
    for memory in (1024 * GIB, GIB, 2**24, 1):
        monkeypatch.setattr(batches, "total_memory", lambda memory=memory: memory)
        found = {model.choose_batch(suites["words"], None) for _ in range(2)}
        assert len(found) == 1
        chosen[memory] = found.pop()
    assert chosen[1024 * GIB] == 128 and chosen[1] == 1
    assert chosen[GIB] >= chosen[2**24] >= 1
    assert 1 < chosen[2**24] < 128


def test_batches_shrink_until_they_fit_and_grow_until_they_do_not() -> None:
    for room in (1, 2, 5, 16, 100, 1000):
        for start in (1, 4, 64, 512):
            tried: list[int] = []

            def fits(rows: int, room: int = room, tried: list[int] = tried) -> bool:
                tried.append(rows)
                return rows <= room

            assert largest_that_fits(fits, start, 512) == power_of_two(room, 512)
            assert len(tried) <= 11
    assert largest_that_fits(lambda _: False, 64, 512) == 1


@pytest.mark.parametrize("scored", [False, True])
def test_a_batch_is_asked_as_lm_eval_asks_it(scored: bool, model: LocalModel) -> None:
    read: list[int] = []
    with model._lm.model.get_input_embeddings().register_forward_pre_hook(
        lambda _, given: read.append(given[0].numel())
    ):
        ask_batch(model._lm, 3, Widest(20, scored))
    assert read == [3 * 19]


def test_a_gpu_without_the_memory_gets_a_smaller_batch(
    model: LocalModel, suites: dict[str, Suite], monkeypatch: pytest.MonkeyPatch
) -> None:
    """With a GPU made up: asking more than 10 rows runs out of its memory, and 8 fill too much of it."""
    reserved = 0

    def ask(_: object, rows: int, __: object) -> None:
        nonlocal reserved
        if rows > 10:
            raise torch.OutOfMemoryError
        reserved = rows * 12

    monkeypatch.setattr(batches, "ask_batch", ask)
    monkeypatch.setattr(type(model._lm), "device", torch.device("cuda"))
    for name, answer in {
        "reset_peak_memory_stats": None, "empty_cache": None, "mem_get_info": (GIB, 100), "max_memory_reserved": 0
    }.items():  # fmt: skip
        monkeypatch.setattr(torch.cuda, name, lambda *_, answer=answer: answer)
    monkeypatch.setattr(torch.cuda, "max_memory_reserved", lambda _: reserved)
    assert model.choose_batch(suites["words"], None) == 4


def test_a_new_batch_size_is_said_in_the_results(model: LocalModel) -> None:
    model.resize(7)
    assert model._lm.batch_size == 7 and model.conditions["batch_size"] == 7
    model.resize(1)
