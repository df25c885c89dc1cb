"""Contract: a patch is a source like any other. Merging and measuring it gives the bytes and numbers of its agent."""

from collections.abc import Mapping
from pathlib import Path

import pytest
import torch

import rammerge
from rammerge.checkpoints.checkpoint import open_checkpoint
from rammerge.checkpoints.digest import digest_checkpoint
from rammerge.checkpoints.family import Family
from rammerge.checkpoints.patched.blocks import BLOCK
from rammerge.engine.options import Compile, MergeOptions
from rammerge.errors import InputError
from rammerge.patches.keeping import unpacked
from rammerge.publishing.making import merge_family
from rammerge.rules import resolve
from tests.engine.models import sparse_family, write, write_family

# A tensor of more than one block, whose rows are no part of one; and engine blocks that are no part of either.
SHAPES = {"large.weight": (3, BLOCK // 2 + 5), "layer.weight": (200, 100), "norm.weight": (100,)}
Named = Mapping[str, str | Path]


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Named, Named]:
    """Return a base, its agents, and patches of two of them beside the third."""
    root = tmp_path_factory.mktemp("models")
    base, agents = write_family(root, *sparse_family(SHAPES, [0.05, 0.5, 0.2]))
    whole = {name: agent.path for name, agent in agents.items()}
    for name in ("agent0", "agent2"):
        rammerge.pack(base, agents[name], root / f"{name}.patch")
    packed = {name: path.with_name(f"{name}.patch") if name != "agent1" else path for name, path in whole.items()}
    return base.path, whole, packed


def weights(directory: Path) -> dict[str, bytes]:
    """Return the content of the weight files. The card and the record name the sources, which differ."""
    return {file.name: file.read_bytes() for file in directory.glob("*.safetensors")}


@pytest.mark.usefixtures("compiled_here")
@pytest.mark.parametrize(
    ("method", "parameters", "compiled"),
    [
        ("ram", {}, "always"),
        ("ram_plus", {}, "never"),
        ("ties", {}, "never"),
        ("ties", {"scope": "tensor"}, "never"),
        ("della", {}, "never"),
    ],
    ids=["once", "twice", "three times", "by tensor", "by rows"],
)
def test_the_merge_has_the_same_bytes(
    models: tuple[Path, Named, Named], tmp_path: Path, method: str, parameters: dict[str, str], compiled: Compile
) -> None:
    base, whole, packed = models
    options = MergeOptions("bfloat16", shard_size=150_000, compile=compiled, threads=2)
    chosen = resolve(method, None, parameters)
    made = []
    for name, agents in (("whole", whole), ("packed", packed)):
        report = merge_family(Family.open(base, agents), chosen, tmp_path / name, options)
        digests = {name: source.digest for name, source in report.manifest.sources.items()}
        made.append((weights(report.path), digests, report.manifest.survival))
    assert made[0] == made[1]


def test_overlap_has_the_same_numbers(models: tuple[Path, Named, Named]) -> None:
    base, whole, packed = models
    found = [rammerge.measure_overlap(base, agents).to_json() for agents in (whole, packed)]
    assert found[0] == found[1]


def test_little_memory_is_enough(models: tuple[Path, Named, Named], tmp_path: Path) -> None:
    """The plan counts what decoding takes: the blocks are smaller than those of a patch, and the bytes the same."""
    base, whole, packed = models
    expected = merge_family(Family.open(base, whole), resolve("ram"), tmp_path / "whole", MergeOptions("bfloat16"))
    family = Family.open(base, packed)
    with pytest.raises(InputError, match=r"is too little: this merge needs (\d+)MiB") as refused:
        merge_family(family, resolve("ram"), tmp_path / "out", MergeOptions("bfloat16", memory=1 << 20))
    enough = int(str(refused.value).rpartition(" ")[2].removesuffix("MiB")) << 20
    options = MergeOptions("bfloat16", memory=enough + (8 << 20), threads=1)
    found = merge_family(family, resolve("ram"), tmp_path / "out", options)
    assert weights(found.path) == weights(expected.path)


def test_a_run_keeps_what_it_unpacks(models: tuple[Path, Named, Named]) -> None:
    """Models are evaluated from their files, and the second time they are there."""
    base, whole, packed = models
    opened = rammerge.open_checkpoint(base)
    for _ in range(2):
        agent = unpacked(rammerge.open_checkpoint(packed["agent0"], base=opened), opened)
        assert agent.originals is None
        assert agent.source == str(packed["agent0"])
        assert digest_checkpoint(agent) == digest_checkpoint(rammerge.open_checkpoint(whole["agent0"]))


def test_the_other_base_is_refused(models: tuple[Path, Named, Named]) -> None:
    _, whole, packed = models
    with pytest.raises(InputError, match=r"was packed against a base with the digest \w+ and .*agent1 has \w+; give"):
        Family.open(whole["agent1"], {"one": packed["agent0"]})


def test_without_its_base_it_is_no_model(models: tuple[Path, Named, Named]) -> None:
    with pytest.raises(InputError, match=r"is a patch, which only its base makes a model; use it as an agent"):
        rammerge.open_checkpoint(models[2]["agent0"])


def test_an_agent_that_would_be_converted_has_to_be_unpacked(tmp_path: Path) -> None:
    """Its float32 masters would be rounded to the base's dtype."""
    base = write(tmp_path / "base", {"weight": torch.ones(8, dtype=torch.bfloat16)})
    agent = write(tmp_path / "agent", {"weight": torch.full((8,), 1.1)})
    rammerge.pack(base, agent, tmp_path / "patch")
    with pytest.raises(InputError, match=r"layout or dtypes are not the base's; unpack it with `rammerge unpack`"):
        Family.open(base, {"agent": tmp_path / "patch"})
    rammerge.unpack(base, tmp_path / "patch", tmp_path / "out")
    assert Family.open(base, {"agent": tmp_path / "out"}).members["agent"].tensors["weight"].dtype.name == "bfloat16"


def test_a_patch_that_changes_during_a_run_is_noticed(models: tuple[Path, Named, Named], tmp_path: Path) -> None:
    base, whole, _ = models
    rammerge.pack(base, whole["agent0"], tmp_path / "patch")
    family = Family.open(base, {"agent": tmp_path / "patch"})
    rammerge.pack(base, whole["agent1"], tmp_path / "patch", force=True)
    with pytest.raises(rammerge.RammergeError, match="changed after it was opened"):
        family.check_unchanged()
    assert open_checkpoint(base).originals is None
