"""Contract: agents that are made up differ from the base a little, are the same on every machine, and can be merged."""

from pathlib import Path

from safetensors.torch import load_file

from examples.smollm2.made_up import AGENTS, make_up
from rammerge.checkpoints.family import Family
from tests.evaluation.made import write_model


def test_made_up_agents_are_the_same_again_and_a_family(tmp_path: Path) -> None:
    base = write_model(tmp_path / "base")
    for name in AGENTS:
        for folder in (tmp_path, tmp_path / "again"):
            folder.mkdir(exist_ok=True)
            make_up(base, folder / name)
    before = load_file(base / "model.safetensors")
    weights = {name: load_file(tmp_path / name / "model.safetensors") for name in AGENTS}
    for name, tensors in weights.items():
        again = load_file(tmp_path / "again" / name / "model.safetensors")
        assert all(tensor.equal(again[key]) for key, tensor in tensors.items())
        changed = sum(int((tensor != before[key]).sum()) for key, tensor in tensors.items())
        assert 0.15 < changed / sum(tensor.numel() for tensor in before.values()) < 0.25
    one, two = weights.values()
    assert any(not tensor.equal(two[key]) for key, tensor in one.items())
    family = Family.open(str(base), {name: str(tmp_path / name) for name in AGENTS})
    assert not family.warnings
