"""Contract: any architecture merges from its tensors alone, and transformers loads the result.

The dtype and the weights are the same, companion files are copied byte for byte, and no architecture has code of its
own.
"""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from transformers import AutoConfig

from rammerge.checkpoints.checkpoint import open_checkpoint
from rammerge.engine.options import MergeOptions
from rammerge.errors import InputError
from rammerge.rules import resolve
from tests.engine.models import merge, read
from tests.fixtures.models import KINDS, edit_config, save_agents


@pytest.mark.parametrize("kind", KINDS)
def test_transformers_loads_the_merge(tiny_model: Callable[[str], Path], tmp_path: Path, kind: str) -> None:
    import transformers

    base = tiny_model(kind)
    agents = save_agents(base, tmp_path, {"first": 0.1, "second": 0.5})
    opened = {name: open_checkpoint(path) for name, path in agents.items()}
    report = merge(open_checkpoint(base), opened, resolve("ram"), tmp_path / "out", MergeOptions("bfloat16"))
    stored = read(report.path)
    architecture = getattr(transformers, AutoConfig.from_pretrained(report.path).architectures[0])
    model, loading = architecture.from_pretrained(report.path, output_loading_info=True, dtype="auto")
    assert not loading["missing_keys"], loading
    assert not loading["unexpected_keys"], loading
    assert not loading["mismatched_keys"], loading
    assert model.dtype == torch.bfloat16
    assert all(bool(torch.isfinite(values).all()) for values in stored.values() if values.is_floating_point())
    again = tmp_path / "again"
    model.save_pretrained(again)
    resaved = read(again)
    assert resaved.keys() == stored.keys()
    assert all(torch.equal(resaved[name], stored[name]) for name in stored)


def test_sharded_output_has_the_index_that_loaders_read(tiny_model: Callable[[str], Path], tmp_path: Path) -> None:
    from transformers import AutoModelForCausalLM

    base = tiny_model("llama")
    agents = {name: open_checkpoint(path) for name, path in save_agents(base, tmp_path, {"a": 0.3}).items()}
    report = merge(open_checkpoint(base), agents, resolve("ram"), tmp_path / "out", MergeOptions(shard_size=8_000))
    index = json.loads((report.path / "model.safetensors.index.json").read_text())
    assert len(set(index["weight_map"].values())) > 2
    assert open_checkpoint(report.path).tensors.keys() == index["weight_map"].keys()
    model = AutoModelForCausalLM.from_pretrained(report.path, dtype="auto")
    assert model.dtype == torch.float32
    assert json.loads((report.path / "config.json").read_text())["dtype"] == "float32"


def test_companions_come_from_where_the_recipe_says(tiny_model: Callable[[str], Path], tmp_path: Path) -> None:
    import shutil

    base = Path(shutil.copytree(tiny_model("llama"), tmp_path / "base"))
    agents = save_agents(base, tmp_path, {"first": 0.1, "second": 0.5})
    for model in (base, *agents.values()):
        (model / "chat_template.jinja").write_bytes(f"{model.name}\r\n".encode())
        (model / "optimizer.pt").write_bytes(b"not for the merge")
    opened = {name: open_checkpoint(path) for name, path in agents.items()}
    for source in ("base", "second"):
        out = tmp_path / f"from-{source}"
        merge(open_checkpoint(base), opened, resolve("ram"), out, tokenizer_from=source)
        assert (out / "chat_template.jinja").read_bytes() == f"{source}\r\n".encode()
        assert not (out / "optimizer.pt").exists()
    with pytest.raises(InputError, match=r"no such agent \(did you mean 'second'\?\)"):
        merge(open_checkpoint(base), opened, resolve("ram"), tmp_path / "x", tokenizer_from="secnd")


def test_every_dtype_in_the_config_is_the_written_one(tiny_model: Callable[[str], Path], tmp_path: Path) -> None:
    import shutil

    base = Path(shutil.copytree(tiny_model("llama"), tmp_path / "base"))
    agents = save_agents(base, tmp_path, {"first": 0.1})
    for model in (base, *agents.values()):
        edit_config(model, torch_dtype="bfloat16", text_config={"dtype": "bfloat16", "hidden_size": 1})
    opened = {name: open_checkpoint(path) for name, path in agents.items()}
    report = merge(open_checkpoint(base), opened, resolve("ram"), tmp_path / "out", MergeOptions("float16"))
    config = json.loads((report.path / "config.json").read_text())
    assert (config["dtype"], config["torch_dtype"], config["text_config"]["dtype"]) == ("float16",) * 3
