"""Contract of adapters on a tied base: the merged model computes what the trained model computed.

That holds whichever of embedding and head was trained, and the model stays tied where the two were trained as one.
"""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from rammerge.checkpoints.checkpoint import Checkpoint, open_checkpoint
from rammerge.checkpoints.family import Family
from rammerge.checkpoints.fetch import fetch
from rammerge.engine.options import MergeOptions
from rammerge.errors import InputError
from rammerge.rules import resolve
from tests.engine.models import merge
from tests.fixtures.adapters import logits, train_adapter
from tests.fixtures.models import edit_config, save_agent, save_model

# kind of model -> its linear layer, its embedding and its head. Qwen2 says in config.json that it is tied, and GPT-2
# is tied by the default of its class.
MODELS = {"tied": ("q_proj", "embed_tokens", "lm_head"), "gpt2": ("c_attn", "wte", "lm_head")}

# What is trained besides the linear layer, and whether head and embedding stay one.
CASES: dict[str, tuple[Callable[[str, str], dict[str, Any]], bool]] = {
    "embedding whole": (lambda e, _: {"modules_to_save": [e]}, False),
    "head whole": (lambda _, h: {"modules_to_save": [h]}, False),
    "both whole": (lambda e, h: {"modules_to_save": [e, h]}, False),
    "embedding whole, tied": (lambda e, _: {"modules_to_save": [e], "ensure_weight_tying": True}, True),
    "head whole, tied": (lambda _, h: {"modules_to_save": [h], "ensure_weight_tying": True}, True),
    "both whole, tied": (lambda e, h: {"modules_to_save": [e, h], "ensure_weight_tying": True}, True),
    "copies that are saved": (lambda *_: {"save": {"save_embedding_layers": True}}, True),
    "embedding": (lambda e, _: {"target_modules": [e]}, False),
    "head": (lambda _, h: {"target_modules": [h]}, False),
    "both": (lambda e, h: {"target_modules": [e, h]}, False),
    "embedding, tied": (lambda e, _: {"target_modules": [e], "ensure_weight_tying": True}, True),
    "both, tied": (lambda e, h: {"target_modules": [e, h], "ensure_weight_tying": True}, True),
    "tokens": (lambda e, _: {"trainable_token_indices": {e: [1, 5]}}, True),
    "tokens by default": (lambda *_: {"trainable_token_indices": [1, 5]}, True),
    "tokens, tied": (lambda e, _: {"trainable_token_indices": {e: [1, 5]}, "ensure_weight_tying": True}, True),
    "tokens of both": (lambda e, h: {"trainable_token_indices": {e: [1, 5], h: [1, 5]}}, True),
    "tokens of the head": (lambda _, h: {"trainable_token_indices": {h: [1, 5]}}, False),
}
# PEFT ties what is trained on GPT-2's head only if the head is named.
NOT_TIED_BY_PEFT = {("gpt2", "embedding whole, tied"), ("gpt2", "embedding, tied")}


@pytest.fixture(scope="module")
def bases(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Checkpoint]:
    built: dict[str, Checkpoint] = {}

    def build(kind: str) -> Checkpoint:
        if kind not in built:
            path = tmp_path_factory.mktemp("bases") / kind
            built[kind] = open_checkpoint(save_model(path, kind, dtype=torch.float32))
        return built[kind]

    return build


Bases = Callable[[str], Checkpoint]


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("kind", MODELS)
def test_computes_what_was_trained(bases: Bases, tmp_path: Path, kind: str, case: str) -> None:
    base = bases(kind)
    linear, embedding, head = MODELS[kind]
    options, tied = CASES[case]
    tied = tied and (kind, case) not in NOT_TIED_BY_PEFT
    chosen = options(embedding, head)
    chosen["target_modules"] = [linear, *chosen.get("target_modules", [])]
    trained = train_adapter(base.path, tmp_path / "adapter", **chosen)

    agent = fetch(str(trained.path), base=base)

    torch.testing.assert_close(logits(agent.path), trained.logits, atol=1e-6, rtol=0)
    said = "it changes its embedding and its head differently, so they are stored apart"
    assert (said in agent.notes) is not tied
    assert (len(agent.tensors) == len(base.tensors)) is tied

    # One agent whose whole change is added: the merge is the agent.
    out = tmp_path / "merged"
    report = merge(base, {"tool": agent}, resolve("task_arithmetic", overrides={"scale": 1.0}), out, MergeOptions())
    torch.testing.assert_close(logits(out), trained.logits, atol=1e-6, rtol=0)
    assert any("apart from its embedding, which the base ties" in warning for warning in report.warnings) is not tied


def test_other_agents_stay_what_they_were(bases: Bases, tmp_path: Path) -> None:
    base = bases("tied")
    trained = train_adapter(base.path, tmp_path / "adapter", target_modules=["q_proj"], modules_to_save=["lm_head"])
    adapted = fetch(str(trained.path), base=base)
    whole = open_checkpoint(save_agent(base.path, tmp_path / "whole"))
    found = Family.open(base, {"whole": whole, "adapted": adapted})
    assert list(found.base.tensors) == list(found.members["whole"].tensors) == list(found.members["adapted"].tensors)

    method = resolve("task_arithmetic", overrides={"scale": 1.0})
    merge(base, {"whole": whole}, method, tmp_path / "alone")
    torch.testing.assert_close(logits(tmp_path / "alone"), logits(whole.path))


def test_trained_tokens_that_are_not_the_base_s_are_refused(bases: Bases, tmp_path: Path) -> None:
    base = bases("tied")
    trained = train_adapter(base.path, tmp_path / "adapter", trainable_token_indices={"embed_tokens": [1, 5]})
    file = trained.path / "adapter_config.json"
    for indices, says in (
        ([1, 5000], r"trains row 5000 of model.embed_tokens, and the base has \d+ rows"),
        ([1, 5, 6], "its settings name 3 rows"),
    ):
        file.write_text(json.dumps(json.loads(file.read_text()) | {"trainable_token_indices": indices}))
        with pytest.raises(InputError, match=says):
            fetch(str(trained.path), base=base)


@pytest.mark.filterwarnings("ignore")
def test_an_architecture_that_transformers_does_not_know_is_refused(bases: Bases, tmp_path: Path) -> None:
    base = bases("tied")
    trained = train_adapter(
        base.path, tmp_path / "adapter", target_modules=["q_proj"], modules_to_save=["embed_tokens"]
    )
    own = save_model(tmp_path / "own", "tied", dtype=torch.float32)
    edit_config(own, model_type="own", architectures=["OwnForCausalLM"])
    with pytest.raises(
        InputError, match=r"adapts the embedding or the head, which the base ties, and transformers does"
    ):
        fetch(str(trained.path), base=open_checkpoint(own))
