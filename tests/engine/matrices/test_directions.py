"""Contract: agents of low rank are told where a method suffers from them, whatever dtype stored them, and after a kill.

So are adapters, whose rank is known before weights are read.
"""

import math
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from rammerge.checkpoints.family import Family
from rammerge.engine.matrices.directions import few_directions, few_in_most
from rammerge.engine.matrices.updates import UpdateFile
from rammerge.engine.options import MergeOptions
from rammerge.publishing.making import merge_family
from rammerge.publishing.manifest import Manifest
from rammerge.rules import METHODS, resolve
from rammerge.rules.low_rank import about_directions, declared_directions
from rammerge.system.atomic import write_json
from tests.engine.models import Models, merge, write, write_family

SHAPES = {"wide.q_proj": (40, 90), "tall.q_proj": (90, 40), "bias": (40,)}
# iso_c sees only the agents' sum, and esm needs prompts, which no model of these shapes reads.
SUFFERING = [name for name, method in METHODS.items() if method.low_rank and name not in ("iso_c", "esm")]


def drawn(shape: tuple[int, ...], rank: int | None, seed: int) -> torch.Tensor:
    """Return a change of about 0.01, of some rank if it is a matrix."""
    generator = torch.Generator().manual_seed(seed)
    if rank is None or len(shape) == 1:
        return 0.01 * torch.randn(shape, generator=generator)
    left, right = (torch.randn(part, generator=generator) for part in ((shape[0], rank), (rank, shape[1])))
    return 0.01 / math.sqrt(rank) * left @ right


def family(directory: Path, ranks: dict[str, int | None], dtype: torch.dtype) -> Models:
    base = {name: torch.randn(shape, generator=torch.Generator().manual_seed(0)) for name, shape in SHAPES.items()}
    base = {name: (0.02 * values).to(dtype) for name, values in base.items()}
    agents = [
        {name: (base[name].float() + drawn(shape, rank, 10 * at + 1)).to(dtype) for name, shape in SHAPES.items()}
        for at, rank in enumerate(ranks.values())
    ]
    return write_family(directory, base, agents)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("rank", [1, 3, 19, None])
def test_the_rank_is_seen_through_the_rounding_of_stored_weights(rank: int | None, dtype: torch.dtype) -> None:
    base = 0.02 * torch.randn(300, 500, generator=torch.Generator().manual_seed(0))
    agent = (base.to(dtype).float() + drawn((300, 500), rank, 1)).to(dtype)
    change = (agent.double() - base.to(dtype).double()).double()
    assert few_directions(change @ change.T, 300) == rank


def test_few_directions_count_where_most_changed_matrices_have_them() -> None:
    assert few_directions(torch.zeros(5, 5, dtype=torch.float64), 5) == 0
    assert few_in_most([(2, 0, None), (4, 0, 3), (9, None, None)]) == [4, None, None]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("method", SUFFERING)
def test_a_merge_names_the_agents_and_what_to_do(tmp_path: Path, method: str, dtype: torch.dtype) -> None:
    models = family(tmp_path, {"agent0": 2, "agent1": None}, dtype)
    one = merge(*models, resolve(method), tmp_path / "out", MergeOptions(compile="never"))
    notes = Manifest.read(one.path).notes
    (note,) = [note for note in notes if "directions by" in note]
    assert note.startswith("most matrices were changed in few directions by 'agent0' (rank 2): ")
    assert "task_arithmetic" in note


def test_the_sum_is_told_where_a_method_sees_nothing_else(tmp_path: Path) -> None:
    models = family(tmp_path, {"agent0": 2, "agent1": 3}, torch.bfloat16)
    report = merge(*models, resolve("iso_c"), tmp_path / "out", MergeOptions(compile="never"))
    assert any("by 'agent0', 'agent1' together (rank 5): its strength is spread" in note for note in report.warnings)


def test_a_method_that_ranks_do_no_harm_says_nothing(tmp_path: Path) -> None:
    models = family(tmp_path, {"agent0": 2, "agent1": 2}, torch.float32)
    then = resolve("task_arithmetic", then=[{"svc": {"alpha": 0.1}}])
    for at, settled in enumerate((then, resolve("wudi_adam", None, {"steps": 2}), resolve("average"))):
        report = merge(*models, settled, tmp_path / str(at), MergeOptions(compile="never"))
        assert not any("directions by" in warning for warning in report.warnings)


def test_what_was_found_survives_an_interruption(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    models, options = family(tmp_path, {"agent0": 2, "agent1": None}, torch.float32), MergeOptions(compile="never")
    expected = merge(*models, resolve("tsv_m"), tmp_path / "expected", options)

    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("rammerge.publishing.stages.publish", interrupted)
        with pytest.raises(KeyboardInterrupt):
            merge(*models, resolve("tsv_m"), tmp_path / "out", options)
    monkeypatch.setattr(UpdateFile, "finish", interrupted)  # nothing is solved again
    assert merge(*models, resolve("tsv_m"), tmp_path / "out", options).manifest.notes == expected.manifest.notes


def test_an_adapter_tells_its_rank_before_weights_are_read(tmp_path: Path) -> None:
    layer = "model.layers.0.self_attn.q_proj"
    base = write(tmp_path / "base", {f"{layer}.weight": drawn((40, 90), None, 0)})
    for rank in (2, 30):
        parts = {"lora_A": torch.ones(rank, 90), "lora_B": drawn((40, rank), None, 1)}
        (tmp_path / str(rank)).mkdir()
        settings = {"peft_type": "LORA", "r": rank, "lora_alpha": 8, "target_modules": ["q_proj"]}
        write_json(tmp_path / str(rank) / "adapter_config.json", settings)
        named = {f"base_model.model.{layer}.{part}.weight": values for part, values in parts.items()}
        save_file(named, tmp_path / str(rank) / "adapter_model.safetensors")
    low, high = (Family.open(base, {"tool": tmp_path / rank}) for rank in ("2", "30"))
    assert (declared_directions(low), declared_directions(high)) == ([2], [None])
    report = merge_family(low, resolve("tsv_m"), tmp_path / "out", MergeOptions(compile="never"))
    assert any("by 'tool' (rank 2)" in warning for warning in report.warnings)
    (said,) = about_directions(resolve("tsv_m").bind(["tool"]), declared_directions(low))
    assert "by 'tool' (rank 2): the other directions" in said
    assert about_directions(resolve("iso_c").bind(["tool", "other"]), [2, None]) == []
    assert about_directions(resolve("ties").bind(["tool"]), declared_directions(low)) == []
