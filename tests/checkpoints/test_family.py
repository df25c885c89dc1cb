"""Contract: the preflight refuses what cannot be merged before any work.

One sentence names the agent, the tensor and the fix. Mergeable agents come back with exactly the base's names and
shapes.
"""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from rammerge.checkpoints.checkpoint import open_checkpoint
from rammerge.checkpoints.family import Family
from rammerge.errors import InputError
from tests.fixtures.models import KINDS, edit_config, edit_tensors, save_agent, save_agents, save_model

TinyModel = Callable[[str], Path]
HEAD, EMBEDDING = "lm_head.weight", "model.embed_tokens.weight"


def check(base: Path, *agents: Path, **options: Any) -> Family:
    return Family.open(open_checkpoint(base), {agent.name: open_checkpoint(agent) for agent in agents}, **options)


@pytest.fixture
def base(tiny_model: TinyModel) -> Path:
    return tiny_model("llama")


@pytest.fixture
def agent(base: Path, tmp_path: Path) -> Path:
    return save_agent(base, tmp_path / "code")


def refused(base: Path, *agents: Path, says: str, **options: Any) -> None:
    with pytest.raises(InputError, match=says) as refusal:
        check(base, *agents, **options)
    assert "\n" not in str(refusal.value)
    assert refusal.value.exit_code == 2


@pytest.mark.parametrize("kind", KINDS)
def test_agents_of_any_architecture_pass(tiny_model: TinyModel, tmp_path: Path, kind: str) -> None:
    base = tiny_model(kind)
    agents = save_agents(base, tmp_path, {"tool": 0.1, "code": 0.3})
    found = check(base, *agents.values())
    assert list(found.agents) == ["tool", "code"]
    assert found.warnings == ()
    assert all(agent.tensors.keys() == open_checkpoint(base).tensors.keys() for agent in found.members.values())


def test_agents_of_other_shards_pass(agent: Path, tmp_path: Path) -> None:
    assert check(save_model(tmp_path / "sharded", max_shard_size="6KB"), agent).warnings == ()


def test_no_agent_is_refused(base: Path) -> None:
    refused(base, says="no agent")


def test_another_architecture_is_refused(base: Path, agent: Path, tiny_model: TinyModel) -> None:
    refused(base, agent, tiny_model("qwen2"), says="agent 'qwen2' has a different architecture.*qwen2.*llama")
    edit_config(agent, architectures=["LlamaForSequenceClassification"])
    refused(base, agent, says="agent 'code'.*LlamaForSequenceClassification")


def test_missing_and_extra_tensors_are_refused(base: Path, agent: Path, tmp_path: Path) -> None:
    more = shutil.copytree(agent, tmp_path / "more")
    edit_tensors(agent, lambda tensors: tensors.pop("model.norm.weight"))
    refused(base, agent, says=r"agent 'code' lacks model\.norm\.weight; ")
    edit_tensors(
        more, lambda tensors: tensors.update({"value_head.bias": torch.ones(1), "value_head.b": torch.ones(1)})
    )
    refused(base, more, says=r"agent 'more' has value_head\.b and 1 more tensors, which the base lacks")


def test_another_shape_is_refused(base: Path, agent: Path) -> None:
    edit_tensors(agent, lambda tensors: tensors.update({"model.norm.weight": torch.ones(8).bfloat16()}))
    refused(base, agent, says=r"agent 'code' has model\.norm\.weight of shape \[8\] and the base of \[16\]")


def test_integer_tensors_must_agree(base: Path, agent: Path, tmp_path: Path) -> None:
    with_ids = shutil.copytree(base, tmp_path / "base")
    edit_tensors(with_ids, lambda tensors: tensors.update(position_ids=torch.arange(4)))
    edit_tensors(agent, lambda tensors: tensors.update(position_ids=torch.arange(4)))
    assert check(with_ids, agent).warnings == ()
    edit_tensors(agent, lambda tensors: tensors.update(position_ids=torch.arange(4).flip(0)))
    refused(with_ids, agent, says="agent 'code' differs from the base in position_ids, which is int64")
    edit_tensors(agent, lambda tensors: tensors.update(position_ids=torch.arange(4).float()))
    refused(with_ids, agent, says="stores position_ids as float32 and the base as int64")


def test_an_agent_without_a_change_is_refused(base: Path, agent: Path, tmp_path: Path) -> None:
    refused(base, agent, base, says="agent 'llama' has the same weights as the base")
    resharded = save_model(tmp_path / "resharded", max_shard_size="6KB")
    edit_config(resharded, note="other bytes around the same weights")
    refused(base, resharded, says="agent 'resharded' has the same weights as the base")


def test_the_same_agent_twice_is_refused(base: Path, agent: Path, tmp_path: Path) -> None:
    again = shutil.copytree(agent, tmp_path / "again")
    refused(base, agent, again, says="agents 'code' and 'again' have the same weights")
    edit_tensors(again, lambda tensors: tensors["model.norm.weight"].__setitem__(-1, 9.0))
    check(base, agent, again)


@pytest.mark.parametrize(
    ("tensor", "dtype"),
    [("model.norm.weight", torch.float8_e4m3fn), ("model.layers.0.self_attn.q_proj.qweight", torch.int32),
     ("model.layers.0.mlp.up_proj.weight", torch.uint8), ("x.weight_packed", torch.int32)],
)  # fmt: skip
def test_quantized_weights_are_refused(base: Path, agent: Path, tensor: str, dtype: torch.dtype) -> None:
    edit_tensors(agent, lambda tensors: tensors.update({tensor: torch.ones(2, 2).to(dtype)}))
    refused(base, agent, says=f"agent 'code' is quantized \\({tensor} is .*merge the bfloat16")
    refused(agent, base, says="the base is quantized")


def test_a_quantization_config_is_refused(base: Path, agent: Path) -> None:
    edit_config(agent, quantization_config={"quant_method": "gptq"})
    refused(base, agent, says="agent 'code' is quantized \\(gptq\\)")


def test_mixed_dtypes_are_said(base: Path, tmp_path: Path) -> None:
    full = save_agent(save_model(tmp_path / "model", dtype=torch.float32), tmp_path / "full")
    (warning,) = check(base, full).warnings
    assert "agent 'full' stores 21 tensors as float32 and the base as bfloat16" in warning


def test_other_settings_for_the_same_weights_are_said(base: Path, agent: Path) -> None:
    edit_config(agent, rms_norm_eps=1e-3, num_attention_heads=4, max_position_embeddings=9)
    (warning,) = check(base, agent).warnings
    assert "agent 'code' was trained with num_attention_heads 4 instead of 2, rms_norm_eps 0.001 instead of" in warning


def grow(model: Path, rows: int, *, config: int | None = None) -> Path:
    def append(tensors: dict[str, torch.Tensor]) -> None:
        for name in {HEAD, EMBEDDING} & tensors.keys():
            extra = torch.full((max(rows, 0), tensors[name].shape[1]), 0.5, dtype=tensors[name].dtype)
            tensors[name] = torch.cat([tensors[name], extra])[: tensors[name].shape[0] + rows].contiguous()

    return edit_config(edit_tensors(model, append), vocab_size=96 + rows if config is None else config)


def test_an_appended_vocabulary_merges_on_the_common_rows_when_asked(base: Path, agent: Path) -> None:
    small = open_checkpoint(agent).tensors
    grow(agent, 3)
    refused(
        base, agent, says=r"agent 'code' has a larger vocabulary: .* has 99 rows and the base's 96.*--resize common"
    )

    found = check(base, agent, resize="common")

    (warning,) = found.warnings
    assert "agent 'code' appended 3 rows" in warning
    assert "base's tokenizer" in warning
    view = found.members["code"].tensors
    wanted = open_checkpoint(base).tensors
    assert {name: info.shape for name, info in view.items()} == {name: info.shape for name, info in wanted.items()}
    content = (agent / "model.safetensors").read_bytes()
    grown_back = edit_tensors(agent, lambda tensors: tensors.update({HEAD: tensors[HEAD][:96].clone()}))
    assert small[HEAD].nbytes == view[HEAD].nbytes
    stored = (grown_back / "model.safetensors").read_bytes()
    clipped = open_checkpoint(grown_back).tensors[HEAD]
    assert (
        content[view[HEAD].offset : view[HEAD].offset + view[HEAD].nbytes]
        == stored[clipped.offset : clipped.offset + clipped.nbytes]
    )


def test_only_a_grown_vocabulary_is_cut(base: Path, agent: Path, tmp_path: Path) -> None:
    smaller = grow(shutil.copytree(agent, tmp_path / "small"), -3)
    refused(base, smaller, resize="common", says="agent 'small' has a smaller vocabulary")
    unsaid = grow(shutil.copytree(agent, tmp_path / "unsaid"), 3, config=96)
    refused(base, unsaid, resize="common", says="of shape \\[99, 16\\] and the base of \\[96, 16\\]")


def test_a_redundant_head_is_left_out(tiny_model: TinyModel, tmp_path: Path) -> None:
    base = tiny_model("tied")
    agent = save_agent(base, tmp_path / "code")
    edit_tensors(agent, lambda tensors: tensors.update({HEAD: tensors[EMBEDDING].clone()}))
    for tied in (True, False, None):
        found = check(base, edit_config(agent, tie_word_embeddings=tied))
        assert found.members["code"].tensors.keys() == open_checkpoint(base).tensors.keys()
        assert found.members["code"].tied == {HEAD: EMBEDDING}


def test_an_agent_without_the_head_of_an_untied_base_is_refused(tiny_model: TinyModel, tmp_path: Path) -> None:
    base = tiny_model("tied")
    agent = save_agent(base, tmp_path / "code")
    edit_tensors(agent, lambda tensors: tensors.update({HEAD: -tensors[EMBEDDING]}))
    edit_config(agent, tie_word_embeddings=False)
    refused(agent, base, says="agent 'tied' ties its output head .* the base does not \\(lm_head.weight\\)")


def test_a_head_that_an_agent_keeps_apart_is_kept_apart_in_all(tiny_model: TinyModel, tmp_path: Path) -> None:
    base = tiny_model("tied")
    tied, apart = save_agent(base, tmp_path / "tied"), save_agent(base, tmp_path / "apart", seed=2)
    edit_tensors(apart, lambda tensors: tensors.update({HEAD: -tensors[EMBEDDING]}))
    edit_config(apart, tie_word_embeddings=False)

    found = check(base, tied, apart)

    (warning,) = found.warnings
    assert "agent 'apart' keeps its head (lm_head.weight) apart from its embedding, which the base ties" in warning
    assert found.base.config["tie_word_embeddings"] is False
    for view in (found.base, found.members["tied"]):
        head, embedding = view.tensors[HEAD], view.tensors[EMBEDDING]
        assert (head.name, embedding.name) == (HEAD, EMBEDDING)
        assert (head.file, head.offset, head.shape) == (embedding.file, embedding.offset, embedding.shape)
    assert found.members["apart"].tensors[HEAD].offset != found.members["apart"].tensors[EMBEDDING].offset
    assert check(base, tied).base == open_checkpoint(base)


@pytest.mark.parametrize(
    "name",
    ["model.layers.0.self_attn.rotary_emb.inv_freq", "transformer.h.0.attn.bias", "transformer.h.0.attn.masked_bias",
     "model.embeddings.position_ids", "rotary_emb.cos_cached", "rotary_emb.original_inv_freq", "token_type_ids"],
)  # fmt: skip
def test_computed_buffers_on_one_side_do_not_count(base: Path, agent: Path, tmp_path: Path, name: str) -> None:
    """Some releases and trainers store what a model computes from its configuration."""
    with_buffer = shutil.copytree(base, tmp_path / "base")
    both = save_agent(with_buffer, tmp_path / "both")
    buffer = torch.ones(1, 1, 4, 4)
    for model in (with_buffer, both):
        edit_tensors(model, lambda tensors: tensors.update({name: buffer}))
    assert name not in check(base, both).members["both"].tensors
    lent = check(with_buffer, agent)
    assert lent.members["code"].tensors[name] == lent.base.tensors[name]
    assert lent.members["code"].tensors.keys() == lent.base.tensors.keys()


def test_parameters_that_are_called_like_buffers_count(base: Path, agent: Path) -> None:
    edit_tensors(agent, lambda tensors: tensors.update({"model.layers.0.attn.bias": torch.ones(4)}))
    refused(base, agent, says=r"agent 'code' has model\.layers\.0\.attn\.bias, which the base lacks")


def test_weights_that_were_not_gathered_are_named(base: Path, agent: Path) -> None:
    edit_tensors(agent, lambda tensors: tensors.update({"model.norm.weight": torch.ones(0).bfloat16()}))
    refused(base, agent, says=r"agent 'code' has model\.norm\.weight of shape \[0\].*ZeRO-3.*zero_to_fp32\.py")


def test_a_head_of_another_part_is_not_taken_for_the_output_head(base: Path, agent: Path) -> None:
    edit_config(agent, tie_word_embeddings=True)
    edit_tensors(agent, lambda tensors: tensors.update({"vision_tower.head.layernorm.weight": torch.ones(2)}))
    refused(base, agent, says=r"agent 'code' has vision_tower\.head\.layernorm\.weight, which the base lacks")


def test_it_is_said_why_nothing_changed(base: Path, tmp_path: Path) -> None:
    start = shutil.copytree(base, tmp_path / "start")
    (start / "trainer_state.json").write_text('{"global_step": 0}')
    refused(base, start, says="same weights as the base: it was saved before the first step, by its trainer_state.json")
    named = shutil.copytree(base, tmp_path / "checkpoint-0")
    refused(base, named, says="same weights as the base: it was saved before the first step, by its name")
    beside = shutil.copytree(base, tmp_path / "beside")
    (beside / "lora").mkdir()
    (beside / "lora" / "adapter_model.safetensors").touch()
    (beside / "checkpoint-40").mkdir()
    refused(
        base, beside, says="same weights as the base, but checkpoint-40, lora in .* may contain the trained weights"
    )


def write_tokenizer(model: Path, tokens: list[str], special: dict[int, str], *, unigram: bool = False) -> None:
    vocabulary: Any = [[token, -1.0] for token in tokens] if unigram else {t: i for i, t in enumerate(tokens)}
    added = [{"id": token_id, "content": token} for token_id, token in special.items()]
    (model / "tokenizer.json").write_text(json.dumps({"model": {"vocab": vocabulary}, "added_tokens": added}))


@pytest.mark.parametrize("unigram", [False, True])
def test_tokenizers_must_agree_on_ordinary_tokens(base: Path, agent: Path, tmp_path: Path, unigram: bool) -> None:
    base = shutil.copytree(base, tmp_path / "base")
    write_tokenizer(base, ["a", "b", "c"], {3: "<s>", 4: "<r0>"}, unigram=unigram)
    write_tokenizer(agent, ["a", "b", "c"], {3: "<s>", 4: "<tool>", 5: "<new>"}, unigram=unigram)
    renamed, added = check(base, agent).warnings
    assert "agent 'code' renamed 1 special tokens (id 4: '<r0>' became '<tool>')" in renamed
    assert "agent 'code' added 1 tokens ('<new>' first)" in added
    write_tokenizer(agent, ["a", "c", "b"], {3: "<s>", 4: "<r0>"}, unigram=unigram)
    refused(base, agent, says="agent 'code' has a different vocabulary: .* id 1 to 'c' and the base's to 'b'")


@pytest.mark.parametrize("content", ["{}", '{"model": 3, "added_tokens": {}}', '{"model": {"vocab": [3, []]}}'])
def test_a_tokenizer_of_another_form_is_no_obstacle(base: Path, agent: Path, tmp_path: Path, content: str) -> None:
    base = shutil.copytree(base, tmp_path / "base")
    (base / "tokenizer.json").write_text(content)
    write_tokenizer(agent, [], {})
    assert check(base, agent).warnings == ()
