"""Contract: what makes models speak differently is compared, and the report says whose settings the merge takes.

Every file with such settings is tried, in every place where releases of transformers keep it.
"""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import rammerge
from rammerge.checkpoints.checkpoint import open_checkpoint
from rammerge.checkpoints.companions import compare_companions, with_token_ids
from rammerge.errors import InputError
from tests.fixtures.models import edit_config, save_agent

TinyModel = Callable[[str], Path]

TOKENS = ["a", "b", "</s>", "<|im_end|>", "<pad>"]


@pytest.fixture
def base(tiny_model: TinyModel, tmp_path: Path) -> Path:
    model = shutil.copytree(tiny_model("llama"), tmp_path / "base")
    added = [{"id": number, "content": token} for number, token in enumerate(TOKENS) if token.startswith("<")]
    put(model, "tokenizer.json", model={"vocab": {"a": 0, "b": 1}}, added_tokens=added)
    put(model, "generation_config.json", eos_token_id=2, temperature=0.7)
    put(model, "tokenizer_config.json", eos_token="</s>", chat_template="{{ messages }}")
    return edit_config(model, eos_token_id=2, pad_token_id=4)


@pytest.fixture
def agents(base: Path, tmp_path: Path) -> dict[str, Path]:
    return {name: save_agent(base, tmp_path / name, seed=seed) for seed, name in enumerate(("tool", "code"), 1)}


def put(path: Path, name: str, /, **content: Any) -> None:
    (path / name).write_text(json.dumps(content))


def warnings(base: Path, agents: dict[str, Path], chosen: str = "base") -> tuple[str, ...]:
    opened = {name: open_checkpoint(path) for name, path in {"base": base, **agents}.items()}
    return tuple(compare_companions(opened, chosen))


def ends_otherwise(model: Path) -> None:
    put(model, "generation_config.json", eos_token_id=[3, 2], temperature=0.7)


def ends_otherwise_by_config(model: Path) -> None:
    (model / "generation_config.json").unlink()
    edit_config(model, eos_token_id=3)


def template_in_jinja(model: Path) -> None:
    (model / "chat_template.jinja").write_text("{{ other }}")


def template_in_tokenizer(model: Path) -> None:
    put(model, "tokenizer_config.json", eos_token="</s>", chat_template="{{ other }}")


def named_templates_in_tokenizer(model: Path) -> None:
    templates = [{"name": "default", "template": "{{ messages }}"}, {"name": "tool_use", "template": "{{ tools }}"}]
    put(model, "tokenizer_config.json", eos_token="</s>", chat_template=templates)


def further_template(model: Path) -> None:
    (model / "chat_template.jinja").write_text("{{ messages }}")
    (model / "additional_chat_templates").mkdir()
    (model / "additional_chat_templates" / "tool.jinja").write_text("{{ tools }}")


def special_in_tokenizer(model: Path) -> None:
    put(model, "tokenizer_config.json", eos_token={"content": "<|im_end|>"}, chat_template="{{ messages }}")


def special_in_map(model: Path) -> None:
    put(model, "special_tokens_map.json", pad_token="<pad>")


def generates_otherwise(model: Path) -> None:
    put(model, "generation_config.json", eos_token_id=2, temperature=1.0, top_p=0.9)


ENDING, SPECIAL = "ends its turns with a different token", "has different special tokens"
DIFFERENCES: dict[Callable[[Path], None], str] = {
    ends_otherwise: rf"{ENDING} \('</s>' \(id 2\), '<\|im_end\|>' \(id 3\) instead of '</s>'",
    ends_otherwise_by_config: rf"{ENDING} \('<\|im_end\|>' \(id 3\) instead of '</s>' \(id 2\)",
    template_in_jinja: "has a different chat template",
    template_in_tokenizer: "has a different chat template",
    named_templates_in_tokenizer: "has a different chat template",
    further_template: "has a different chat template",
    special_in_tokenizer: rf"{SPECIAL} \(eos_token <\|im_end\|> instead of eos_token </s>\)",
    special_in_map: rf"{SPECIAL} \(eos_token </s>, pad_token <pad> instead of eos_token </s>\)",
    generates_otherwise: r"different settings of generation \(temperature 1.0, top_p 0.9 instead of temperature 0.7\)",
}


def test_models_that_speak_alike_are_no_matter(base: Path, agents: dict[str, Path]) -> None:
    assert warnings(base, agents) == ()
    put(agents["tool"], "generation_config.json", eos_token_id=[2], temperature=0.7, transformers_version="9")
    assert warnings(base, agents) == ()
    for name in ("generation_config.json", "tokenizer_config.json"):
        (agents["tool"] / name).unlink()
    assert warnings(base, agents) == ()


@pytest.mark.parametrize("change", DIFFERENCES, ids=lambda change: change.__name__)
def test_every_difference_is_said(base: Path, agents: dict[str, Path], change: Callable[[Path], None]) -> None:
    change(agents["tool"])
    (said,) = warnings(base, agents)
    with pytest.raises(
        InputError, match=f"^agent 'tool' .*{DIFFERENCES[change]}.* than the base: the merged model takes"
    ):
        raise InputError(said)
    assert said.endswith("takes those of the base; to take the agent's, set output.tokenizer (or --tokenizer) to tool")


def test_the_choice_is_what_is_compared_with(base: Path, agents: dict[str, Path]) -> None:
    for agent in agents.values():
        ends_otherwise(agent)
    assert len(warnings(base, agents)) == 2
    assert warnings(base, agents, "tool") == ()
    template_in_jinja(agents["code"])
    (said,) = warnings(base, agents, "tool")
    assert "agent 'code' has a different chat template than agent 'tool': the merged model takes those of agent" in said


def test_the_merged_configuration_agrees_with_the_tokenizer(
    base: Path, agents: dict[str, Path], tmp_path: Path
) -> None:
    edit_config(agents["tool"], eos_token_id=3)
    for chosen, expected in (("base", 2), ("tool", 3)):
        out = tmp_path / f"merged-{chosen}"
        rammerge.merge(base=base, agents=agents, method="average", out=out, tokenizer=chosen)
        config = json.loads((out / "config.json").read_text())
        assert (config["eos_token_id"], config["pad_token_id"]) == (expected, 4)


def test_token_ids_of_composite_models() -> None:
    config = {"eos_token_id": 1, "text_config": {"eos_token_id": 1, "pad_token_id": 0}, "vision_config": {"a": 1}}
    found = with_token_ids(config, {"text_config": {"eos_token_id": 2}, "bos_token_id": 5})
    expected = {"eos_token_id": 1, "bos_token_id": 5, "text_config": {"eos_token_id": 2, "pad_token_id": 0}}
    assert found == {**expected, "vision_config": {"a": 1}}


def test_a_tokenizer_with_ids_beyond_the_rows_is_refused(base: Path, agents: dict[str, Path]) -> None:
    added = [{"id": 96, "content": "<new>"}]
    put(agents["tool"], "tokenizer.json", model={"vocab": {"a": 0, "b": 1}}, added_tokens=added)
    says = r"agent 'tool' has the token '<new>' with id 96, and the merged model has the base's 96 rows; set output"
    with pytest.raises(InputError, match=says):
        warnings(base, agents, "tool")


def test_an_unknown_choice_is_refused(base: Path, agents: dict[str, Path]) -> None:
    with pytest.raises(InputError, match=r"tokenizer from 'tol': no such agent \(did you mean 'tool'\?\)"):
        warnings(base, agents, "tol")
