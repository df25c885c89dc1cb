"""Contract: the zoo's data depend only on seeds, the splits share no prompt, and the demonstrator errs as described."""

import os
import subprocess
import sys
from itertools import islice
from pathlib import Path

import pytest

from examples.zoo.domains import DOMAINS, Domain, split_of
from examples.zoo.make_suites import COUNTS, SUITES
from examples.zoo.measure import read_docs
from examples.zoo.tokenizer import STOP, build_tokenizer

ROOT = Path(__file__).resolve().parents[2]
MOST_PROMPT_TOKENS, MOST_ANSWER_TOKENS = 50, 16

each_domain = pytest.mark.parametrize("domain", DOMAINS.values(), ids=DOMAINS.keys())


def written(suites: Path) -> dict[str, bytes]:
    paths = [Path(f"zoo_{name}") / f"{split}.jsonl" for name in DOMAINS for split in COUNTS]
    return {str(path): (suites / path).read_bytes() for path in paths}


@pytest.mark.parametrize("hash_seed", ["0", "4711"])
def test_the_committed_suites_are_what_the_generator_writes(tmp_path: Path, hash_seed: str) -> None:
    command = [sys.executable, "-m", "examples.zoo.make_suites", "--out", str(tmp_path)]
    subprocess.run(command, cwd=ROOT, env={**os.environ, "PYTHONHASHSEED": hash_seed}, check=True)
    assert written(tmp_path) == written(SUITES)


@each_domain
def test_suites_have_their_size_and_no_prompt_twice(domain: Domain) -> None:
    prompts = []
    for split, count in COUNTS.items():
        docs = read_docs(domain.name, split)
        assert [doc["id"] for doc in docs] == [f"{domain.name}-{split}-{i:04d}" for i in range(count)]
        assert {split_of(doc["prompt"]) for doc in docs} == {split}
        prompts += [doc["prompt"] for doc in docs]
    assert len(set(prompts)) == len(prompts)


@each_domain
def test_training_never_sees_a_held_out_prompt(domain: Domain) -> None:
    documents = islice(domain.documents("train", seed=1, turns=domain.turns), 500)
    for items in documents:
        assert {split_of(item.prompt) for item in items} == {"train"}
        assert len({item.context for item in items}) == 1


@each_domain
def test_a_stream_depends_on_its_seed_alone(domain: Domain) -> None:
    first, again, other = (list(islice(domain.stream("train", seed), 50)) for seed in (1, 1, 2))
    assert first == again
    assert not {item.prompt for item in first} & {item.prompt for item in other}


@each_domain
def test_targets_are_right_and_the_wrong_rule_is_mostly_wrong(domain: Domain) -> None:
    items = list(islice(domain.stream("train", seed=5), 1000))
    assert all(domain.score(item.doc, item.target) == 1.0 for item in items)
    slips_right = sum(domain.score(item.doc, item.slip) for item in items) / len(items)
    assert 0.05 <= slips_right <= 0.45


@each_domain
def test_texts_survive_the_tokenizer_and_are_short(domain: Domain) -> None:
    tokenizer = build_tokenizer()
    for item in islice(domain.stream("train", seed=6), 300):
        prompt = tokenizer(item.prompt).input_ids
        answers = [tokenizer(answer + STOP).input_ids for answer in (item.target, item.slip)]
        assert tokenizer.decode(prompt) == item.prompt
        assert tokenizer.unk_token_id not in prompt
        assert len(prompt) <= MOST_PROMPT_TOKENS
        assert max(map(len, answers)) <= min(domain.max_new_tokens, MOST_ANSWER_TOKENS)
        assert [answer.count(answers[0][-1]) for answer in answers] == [1, 1]  # only the stop token stops


def test_any_printable_ascii_survives_the_tokenizer() -> None:
    text = "".join(map(chr, range(32, 127))) + "\nget_weather( city=paris,notes: pet=cat"
    tokenizer = build_tokenizer()
    assert tokenizer.decode(tokenizer(text).input_ids) == text
