"""Contract: lm-eval gets from a batch the answers that its own code gives when it asks each prompt alone."""

import json
from itertools import islice
from pathlib import Path

import pytest
from lm_eval.api.instance import Instance
from lm_eval.models.huggingface import HFLM

import examples.zoo
from evaluation.backends.transformers import Loaded, load
from evaluation.runners.views import asked
from evaluation.suites import load_suite

_BASE = Path(examples.zoo.__file__).parent / "checkpoints" / "base"


@pytest.fixture(scope="module")
def loaded() -> Loaded:
    return load(_BASE, dtype="float32", device="cpu")


@pytest.fixture(scope="module")
def prompts() -> list[str]:
    found = []
    for name in ("zoo_code", "zoo_memory", "zoo_tool"):
        with (load_suite(name).path / "test.jsonl").open() as lines:
            found += [json.loads(line)["prompt"] for line in islice(lines, 2)]
    return found


@pytest.mark.parametrize("until", [["\n"], ["1", "e", "\n"], ["(x", "= ", "t "]])
def test_answers_end_as_if_each_prompt_were_alone(loaded: Loaded, prompts: list[str], until: list[str]) -> None:
    settings = {"until": until, "max_gen_toks": 8, "do_sample": False, "temperature": 0.0}
    requests = [Instance("generate_until", {}, (prompt, settings), each) for each, prompt in enumerate(prompts)]
    theirs = HFLM(pretrained=loaded.model, tokenizer=loaded.tokenizer, batch_size=1)
    ours = asked(loaded.model, loaded.tokenizer, seq2seq=False, batch_size=8)
    expected = theirs.generate_until(requests, disable_tqdm=True)
    assert len(set(expected)) > 3
    assert ours.generate_until(requests, disable_tqdm=True) == expected
