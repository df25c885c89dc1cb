"""Contract: a checkpoint of any architecture opens by its headers alone, sharded or not.

An index that contradicts the files is an InputError and never leads out of the directory. Tied tensors appear once.
"""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file

from rammerge.checkpoints.checkpoint import open_checkpoint
from rammerge.checkpoints.stored import INDEX
from rammerge.errors import InputError
from tests.fixtures.models import KINDS, edit_config, edit_tensors, save_model
from tests.fixtures.waiting import no_hanging

TinyModel = Callable[[str], Path]


@pytest.fixture(scope="session")
def sharded(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_model(tmp_path_factory.mktemp("sharded") / "model", max_shard_size="6KB")


@pytest.mark.parametrize("kind", KINDS)
def test_any_architecture_opens(tiny_model: TinyModel, kind: str) -> None:
    path = tiny_model(kind)
    checkpoint = open_checkpoint(path)
    stored = load_file(path / "model.safetensors")
    assert list(checkpoint.tensors) == sorted(stored)
    assert checkpoint.tied == {}
    assert checkpoint.source == str(path)
    assert checkpoint.weight_files == (path / "model.safetensors",)
    assert path / "config.json" in checkpoint.sidecars
    for name, info in checkpoint.tensors.items():
        assert (info.dtype.torch_dtype, info.shape) == (stored[name].dtype, tuple(stored[name].shape))


def test_shards_are_one_checkpoint(sharded: Path, tiny_model: TinyModel) -> None:
    checkpoint = open_checkpoint(sharded, source="org/name", revision="f" * 40)
    whole = open_checkpoint(tiny_model("llama"))
    assert len(checkpoint.weight_files) > 2
    assert [(name, info.shape) for name, info in checkpoint.tensors.items()] == [
        (name, info.shape) for name, info in whole.tensors.items()
    ]
    assert (checkpoint.source, checkpoint.revision) == ("org/name", "f" * 40)


def test_the_hub_cache_layout_opens(sharded: Path, tmp_path: Path) -> None:
    """snapshots/<sha>/<name> are links to ../../blobs/<hash>."""
    blobs, snapshot = tmp_path / "blobs", tmp_path / "snapshots" / "sha"
    snapshot.mkdir(parents=True)
    shutil.copytree(sharded, blobs)
    for file in blobs.iterdir():
        (snapshot / file.name).symlink_to(Path("..") / ".." / "blobs" / file.name)
    assert open_checkpoint(snapshot).tensors.keys() == open_checkpoint(sharded).tensors.keys()


def test_what_travels_with_the_weights(tiny_model: TinyModel, tmp_path: Path) -> None:
    model = shutil.copytree(tiny_model("llama"), tmp_path / "model")
    kept = [
        "chat_template.jinja",
        "modeling_own.py",
        "tokenizer.json",
        "additional_chat_templates/tool.jinja",
        "LICENSE",
    ]
    dropped = [
        "README.md",
        "optimizer.pt",
        "training_args.bin",
        ".gitattributes",
        "rammerge.json",
        "old.safetensors.tmp",
    ]
    for name in kept + dropped:
        (model / name).parent.mkdir(exist_ok=True)
        (model / name).write_text("x")
    found = {str(file.relative_to(model)) for file in open_checkpoint(model).sidecars}
    assert found == {*kept, "config.json", "generation_config.json"}


def edit_index(model: Path, change: Callable[[dict[str, Any]], None]) -> None:
    index = json.loads((model / INDEX).read_text())
    change(index["weight_map"])
    (model / INDEX).write_text(json.dumps(index))


NORM = "model.norm.weight"


@pytest.mark.parametrize(
    "shard",
    ["../model.safetensors", "/etc/passwd", "a/b.safetensors", "..", "", "a\\b.safetensors", "a\0.safetensors", 3, None,
     "\ud800.safetensors", "x" * 5000 + ".safetensors", "config.json"],
)  # fmt: skip
def test_an_index_may_not_lead_away(sharded: Path, tmp_path: Path, shard: Any) -> None:
    save_file({NORM: torch.ones(1)}, tmp_path / "model.safetensors")
    model = shutil.copytree(sharded, tmp_path / "model")
    edit_index(model, lambda weight_map: weight_map.update({NORM: shard}))
    with pytest.raises(InputError, match="shard") as refusal:
        open_checkpoint(model)
    str(refusal.value).encode()


def test_an_index_must_agree_with_its_shards(sharded: Path, tmp_path: Path) -> None:
    def refused(name: str, change: Callable[[dict[str, Any]], None], says: str) -> None:
        model = shutil.copytree(sharded, tmp_path / name)
        edit_index(model, change)
        with pytest.raises(InputError, match=says):
            open_checkpoint(model)

    refused("missing", lambda weights: weights.update({NORM: "none.safetensors"}), "none.safetensors.*missing")
    refused("absent", lambda weights: weights.update({"ghost": weights[NORM]}), "ghost.*no shard has it")
    other = "model.embed_tokens.weight"
    refused("wrong", lambda weights: weights.update({NORM: weights[other]}), f"{NORM}.*it is in")
    refused("empty", lambda weights: weights.clear(), "weight_map")
    model = shutil.copytree(sharded, tmp_path / "twice")
    save_file({NORM: torch.ones(16)}, model / "stale.safetensors")
    edit_index(model, lambda weights: weights.update({"ghost": "stale.safetensors"}))
    with pytest.raises(InputError, match=r"model\.norm\.weight' in .* and in"):
        open_checkpoint(model)


def test_a_tensor_that_the_index_forgot_is_kept(sharded: Path, tmp_path: Path) -> None:
    model = shutil.copytree(sharded, tmp_path / "model")
    edit_index(model, lambda weights: weights.pop(NORM))
    assert NORM in open_checkpoint(model).tensors


@given(
    content=st.binary(max_size=60)
    | st.recursive(
        st.none() | st.integers() | st.text(max_size=8) | st.just("model.safetensors") | st.just("../x.safetensors"),
        lambda inner: (
            st.lists(inner, max_size=3)
            | st.dictionaries(st.text(max_size=4) | st.just("weight_map"), inner, max_size=3)
        ),
        max_leaves=8,
    ).map(lambda value: json.dumps(value).encode())
)
@settings(max_examples=200)
def test_any_index_is_refused_or_valid(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "config.json").write_text("{}")
    (tmp_path / INDEX).write_bytes(content)
    with pytest.raises(InputError) as refusal:  # no shard is there, so nothing can be valid
        open_checkpoint(tmp_path)
    assert "\n" not in str(refusal.value)


def test_what_is_no_checkpoint_is_refused(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "file").write_text("x")
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    bare = tmp_path / "bare"
    bare.mkdir()
    (bare / "config.json").write_text("{}")
    array = tmp_path / "array"
    array.mkdir()
    (array / "config.json").write_text("[]")
    piped = tmp_path / "piped"
    piped.mkdir()
    os.mkfifo(piped / "config.json")
    none = tmp_path / "none"
    none.mkdir()
    (none / "config.json").write_text("{}")
    save_file({}, none / "model.safetensors")
    for name, says in {
        "missing": "does not exist",
        "empty": r"no config\.json",
        "file": "is a file",
        "loop": "loop",
        "bare": "no safetensors weights",
        "array": "instead of an object",
        "piped": "fifo",
        "none": "no tensors",
        "file/below": "does not exist",
        "x" * 300: "too long",
        "nul\0": "cannot be read",
    }.items():
        with no_hanging(), pytest.raises(InputError, match=says):
            open_checkpoint(tmp_path / name)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become a user without permission")
def test_a_directory_without_permission_is_refused(tiny_model: TinyModel, tmp_path: Path) -> None:
    model = shutil.copytree(tiny_model("llama"), tmp_path / "model")
    probe = (
        "import os, sys; from pathlib import Path\n"
        "from rammerge.checkpoints.checkpoint import open_checkpoint; from rammerge.errors import InputError\n"
        "os.setuid(65534)\n"
        "for path in sys.argv[1:]:\n"
        "    try: open_checkpoint(Path(path)); print('opened')\n"
        "    except InputError as error: print(error)\n"
    )
    for directory in [*tmp_path.parents[:2], tmp_path]:
        directory.chmod(0o755)
    locked = shutil.copytree(model, tmp_path / "locked")
    locked.chmod(0o000)
    (model / "model.safetensors").chmod(0o000)
    said = subprocess.run(
        [sys.executable, "-c", probe, locked, model], capture_output=True, text=True, check=True
    ).stdout.splitlines()
    assert len(said) == 2
    assert all("may not be read by this user" in line for line in said)


def test_a_head_stored_beside_its_embedding_counts_once(tiny_model: TinyModel, tmp_path: Path) -> None:
    head, embedding = "lm_head.weight", "model.embed_tokens.weight"
    model = shutil.copytree(tiny_model("tied"), tmp_path / "model")
    edit_tensors(model, lambda tensors: tensors.update({head: tensors[embedding].clone()}))

    checkpoint = open_checkpoint(model)
    assert checkpoint.tied == {head: embedding}
    assert head not in checkpoint.tensors

    untied = open_checkpoint(edit_config(model, tie_word_embeddings=False))
    assert untied.tied == {}
    assert head in untied.tensors

    nested = edit_config(model, tie_word_embeddings=None, vocab_size=None)
    edit_config(nested, text_config={"tie_word_embeddings": True, "vocab_size": 96})
    assert open_checkpoint(nested).tied == {head: embedding}


def test_a_head_that_differs_from_its_embedding_is_kept(tiny_model: TinyModel, tmp_path: Path) -> None:
    """As transformers does: it warns and does not tie them."""
    model = shutil.copytree(tiny_model("tied"), tmp_path / "model")
    edit_tensors(model, lambda tensors: tensors.update({"lm_head.weight": -tensors["model.embed_tokens.weight"]}))
    checkpoint = open_checkpoint(model)
    assert checkpoint.tied == {}
    assert "lm_head.weight" in checkpoint.tensors


def test_equal_matrices_of_another_kind_are_not_taken_for_tied(tiny_model: TinyModel, tmp_path: Path) -> None:
    """Upcycled experts repeat each other; only embeddings and heads are ever tied."""
    model = shutil.copytree(tiny_model("tied"), tmp_path / "model")
    twins = {f"model.layers.{n}.experts.w1.weight": torch.ones(96, 16, dtype=torch.bfloat16) for n in range(2)}
    edit_tensors(model, lambda tensors: tensors.update(twins))
    assert open_checkpoint(model).tied == {}


def test_opening_needs_no_model_library() -> None:
    probe = (
        "import sys, rammerge.checkpoints.fetch, rammerge.checkpoints.family\n"
        "heavy = ('torch', 'transformers', 'peft', 'prefect', 'mlflow', 'lm_eval')\n"
        "print([name for name in heavy if name in sys.modules])"
    )
    said = subprocess.run([sys.executable, "-c", probe], capture_output=True, text=True, check=True).stdout
    assert said.strip() == "[]"
