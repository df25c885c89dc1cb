"""Contract: the items of SmolLM2's domains depend on seeds alone, splits share no prompt, and right answers score."""

import os
import subprocess
import sys
from itertools import islice
from pathlib import Path

import pytest

from evaluation.suites import load_suite
from examples.smollm2.domains import DOMAINS, Domain, split_of
from examples.smollm2.make_suites import COUNTS, SUITES, read_docs
from rammerge import load_recipe

ROOT = Path(__file__).resolve().parents[2]

each_domain = pytest.mark.parametrize("domain", DOMAINS.values(), ids=DOMAINS.keys())


def test_the_committed_suites_are_what_the_generator_writes(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "examples.smollm2.make_suites", "--out", str(tmp_path)]
    subprocess.run(command, cwd=ROOT, env={**os.environ, "PYTHONHASHSEED": "4711"}, check=True)
    for file in (f"{name}/{split}.jsonl" for name in DOMAINS for split in COUNTS):
        assert (tmp_path / file).read_bytes() == (SUITES / file).read_bytes()


@each_domain
def test_suites_have_their_size_and_no_prompt_twice(domain: Domain) -> None:
    prompts = []
    for split, count in COUNTS.items():
        docs = read_docs(domain.name, split)
        assert len(docs) == count
        assert {split_of(doc["prompt"]) for doc in docs} == {split}
        prompts += [doc["prompt"] for doc in docs]
    assert len(set(prompts)) == len(prompts)


@each_domain
def test_training_depends_on_its_seed_and_sees_no_held_out_prompt(domain: Domain) -> None:
    first, again, other = (list(islice(domain.stream("train", seed), 40)) for seed in (1, 1, 2))
    assert first == again != other
    assert {split_of(doc["prompt"]) for doc in first} == {"train"}


@each_domain
def test_right_answers_score_and_answers_of_other_items_do_not(domain: Domain) -> None:
    docs = read_docs(domain.name, "validation")
    assert all(domain.score(doc, doc["target"]) == 1.0 for doc in docs)
    answers = {doc["target"] for doc in docs}
    assert all(sum(domain.score(doc, answer) for answer in answers) <= 2 for doc in docs[:20])


@each_domain
def test_the_suite_allows_the_answers_that_training_allowed(domain: Domain) -> None:
    suite = load_suite(SUITES / domain.name)
    assert suite.apply_chat_template
    for split in COUNTS:
        (task,) = suite.tasks[split]
        assert suite.task_files[task].config["generation_kwargs"]["max_gen_toks"] == domain.max_new_tokens


def test_the_recipes_merge_alike_and_differ_in_what_they_write() -> None:
    rounded, exact = (load_recipe(ROOT / "examples" / f"smollm2{kind}.yaml") for kind in ("", "-float32"))
    assert rounded.merges[:-1] == exact.merges
    assert rounded.merges[-1].search is not None
    assert (rounded.output.dtype, exact.output.dtype) == ("bfloat16", "float32")
    assert (rounded.base, rounded.agents) == (exact.base, exact.agents)
    quick = load_recipe(ROOT / "examples" / "smollm2-quick.yaml")
    assert all(merge in rounded.merges or merge.sweep for merge in quick.merges)
    assert not (rounded.registry.promote or exact.registry.promote or quick.registry.promote)
