"""Contract of safetensors that each rank wrote for itself: the parts fill whole tensors, or are refused."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import save_file

from rammerge.checkpoints.checkpoint import Checkpoint
from rammerge.checkpoints.fetch import fetch
from rammerge.checkpoints.forms.rank_shards import read_rank_shards
from rammerge.errors import InputError
from tests.fixtures.states import State, equal, refused, weights


def save_ranks(directory: Path, state: State, ranks: int) -> list[Path]:
    """Write `state` cut by rows as torch's HuggingFaceStorageWriter does on several ranks (format of torch 2.13)."""
    directory.mkdir()
    files = []
    for rank in range(ranks):
        parts: State = {}
        places: dict[str, Any] = {}
        for name, tensor in state.items():
            rows = -(-tensor.shape[0] // ranks)
            part = tensor[rank * rows : (rank + 1) * rows]
            if len(part):
                parts[name] = part.clone()
                places[name] = {"saved_offsets": [rank * rows, *([0] * (tensor.dim() - 1))]}
        file = directory / f"shard-{rank + 1:05}-model-00001-of-00001.safetensors"
        save_file(parts, file, metadata={"DCP_SHARDING_INFO": json.dumps(places), "DCP_VERSION": "1.0", "format": "pt"})
        files.append(file)
    return files


@pytest.mark.parametrize("ranks", [1, 2, 3, 7])
def test_parts_of_ranks_are_put_together(agent: Path, base: Checkpoint, tmp_path: Path, ranks: int) -> None:
    state = weights(agent)
    save_ranks(tmp_path / "source", state, ranks)
    assert equal(weights(fetch(str(tmp_path / "source"), base=base)), state)


def test_parts_that_do_not_fill_a_tensor_are_refused(agent: Path, base: Checkpoint, tmp_path: Path) -> None:
    files = save_ranks(tmp_path / "source", weights(agent), 3)
    files[1].unlink()
    refused(tmp_path / "source", "that do not add up to a tensor .*; copy the files of all ranks, or join", base=base)


@given(
    place=st.none() | st.integers() | st.lists(st.integers() | st.text(max_size=2), max_size=3) | st.text(max_size=4)
)
@settings(max_examples=60)
def test_any_place_is_refused_or_right(tmp_path: Path, place: Any) -> None:
    file = tmp_path / "shard-00001-model-00001-of-00001.safetensors"
    info = json.dumps({"a": {"saved_offsets": place}})
    save_file({"a": torch.ones(2, 2)}, file, metadata={"DCP_SHARDING_INFO": info})
    try:
        tensors = read_rank_shards([file])
    except InputError as refusal:
        assert "\n" not in str(refusal)
        return
    assert torch.equal(tensors["a"].read(), torch.ones(2, 2))
