"""Contract: lm-eval gets from a batch the answers that its own code gives when it asks each prompt alone."""

import json
from itertools import islice
from pathlib import Path
from typing import Any

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


def requests(prompts: list[str], until: list[str], longest: int) -> list[Instance]:
    settings = {"until": until, "max_gen_toks": longest, "do_sample": False, "temperature": 0.0}
    return [Instance("generate_until", {}, (prompt, settings), each) for each, prompt in enumerate(prompts)]


@pytest.mark.parametrize(
    ("until", "longest"),
    [(["\n"], 8), (["1", "e", "\n"], 8), (["(x", "= ", "t "], 8), (["\n"], 110)],  # the last cuts prompts
)
def test_answers_end_as_if_each_prompt_were_alone(
    loaded: Loaded, prompts: list[str], until: list[str], longest: int
) -> None:
    asking = requests(prompts, until, longest)
    theirs = HFLM(pretrained=loaded.model, tokenizer=loaded.tokenizer, batch_size=1)
    ours = asked(loaded.model, loaded.tokenizer, seq2seq=False, batch_size=4)
    expected = theirs.generate_until(asking, disable_tqdm=True)
    assert len(set(expected)) > 3
    assert ours.generate_until(asking, disable_tqdm=True) == expected


def test_a_prompt_is_encoded_once(loaded: Loaded, prompts: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    ours = asked(loaded.model, loaded.tokenizer, seq2seq=False, batch_size=4)
    encoded, encode = [], type(loaded.tokenizer)._encode_plus

    def counting(self: Any, text: Any, **settings: Any) -> Any:
        encoded.append(text)
        return encode(self, text, **settings)

    monkeypatch.setattr(type(loaded.tokenizer), "_encode_plus", counting)
    ours.generate_until(requests(prompts, ["\n"], 1), disable_tqdm=True)
    assert sorted(each for each in encoded if each in prompts) == sorted(prompts)
    assert not any(isinstance(each, list) for each in encoded)
