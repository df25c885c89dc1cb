"""Contract: a merge in parts has the bytes of a merge in one piece, and each part reads only what its shards need."""

from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from rammerge.checkpoints.family import Family
from rammerge.checkpoints.headers import TensorInfo
from rammerge.checkpoints.layout import TensorSpec, plan_layout
from rammerge.engine.input import Files
from rammerge.engine.options import MergeOptions
from rammerge.engine.passes.measuring import measure_overlap
from rammerge.numerics.dtypes import DTYPES
from rammerge.publishing.counting import count_part, rounds_of
from rammerge.publishing.making import merge_family, merge_part
from rammerge.publishing.staging import add_part, staging_directory
from rammerge.rules import METHODS, resolve
from tests.engine.models import DATA_FREE, sparse_family, weight_bytes, write_family

SHAPES = {f"layer.{index}.weight": (30, 40) for index in range(5)}
OPTIONS = MergeOptions("bfloat16", shard_size=2_600, compile="never", threads=2)
ELEMENT_WISE = [name for name in DATA_FREE if not METHODS[name].matrices]


@pytest.fixture(scope="module")
def family(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Family]:
    base, agents = sparse_family(SHAPES, [0.3, 0.4, 0.2])
    opened, members = write_family(tmp_path_factory.mktemp("family"), base, agents)
    yield Family.open(opened, members)


def merge_in_parts(family: Family, method: str, root: Path, numbers: Sequence[int], out: Path) -> dict[str, bytes]:
    """Make some parts, each in a directory of its own, and then the model."""
    methods = resolve(method)
    merge_part(family, {root / "0": methods}, OPTIONS, (0, 3))
    for number in numbers:
        add_part(staging_directory(root / str(number)), staging_directory(root / "0"))
        merge_part(family, {root / str(number): methods}, OPTIONS, (number, 3))
    for number in (0, *numbers):
        add_part(staging_directory(out), staging_directory(root / str(number)))
    merge_family(family, methods, out, OPTIONS)
    return weight_bytes(out)


@pytest.mark.parametrize("method", ELEMENT_WISE)
def test_parts_make_the_same_bytes(method: str, family: Family, tmp_path: Path) -> None:
    merge_family(family, resolve(method), tmp_path / "whole", OPTIONS)
    found = merge_in_parts(family, method, tmp_path, (3, 1, 2), tmp_path / "out")
    assert found == weight_bytes(tmp_path / "whole")
    assert len(found) > len(SHAPES), "there is a shard for each tensor"


def test_a_part_reads_its_shards_alone_and_the_last_step_none(
    family: Family, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    read: list[str] = []
    fill = Files.read

    def noting(files: Files, info: TensorInfo, start: int, memory: memoryview) -> None:
        read.append(info.name)
        fill(files, info, start, memory)

    monkeypatch.setattr(Files, "read", noting)
    method = resolve("ties")
    merge_part(family, {tmp_path / "0": method}, OPTIONS, (0, 3))
    assert set(read) == set(SHAPES), "thresholds are of the whole model"
    seen: list[set[str]] = []
    for number in (1, 2, 3):
        add_part(staging_directory(tmp_path / str(number)), staging_directory(tmp_path / "0"))
        read.clear()
        merge_part(family, {tmp_path / str(number): method}, OPTIONS, (number, 3))
        seen.append(set(read))
        add_part(staging_directory(tmp_path / "out"), staging_directory(tmp_path / str(number)))
    assert sum(map(len, seen)) == len(set().union(*seen)) == len(SHAPES)
    add_part(staging_directory(tmp_path / "out"), staging_directory(tmp_path / "0"))
    read.clear()
    merge_family(family, method, tmp_path / "out", OPTIONS)
    assert not read


@pytest.mark.parametrize("method", ["ties", "breadcrumbs"])
def test_what_parts_counted_is_not_read_again(
    method: str, family: Family, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    methods, overlap = [resolve(method), resolve("ram")], measure_overlap(family)
    found: list[list[object]] = []
    for _ in range(rounds_of(family, methods, overlap)):
        numbered = [(number, 2) for number in (1, 2)]
        found.append([count_part(family, methods, OPTIONS, each, overlap=overlap, earlier=found) for each in numbered])
    assert len(found) == {"ties": 2, "breadcrumbs": 1}[method]
    merge_part(family, {tmp_path / "whole": methods[0]}, OPTIONS, (0, 3))
    monkeypatch.setattr(Files, "read", lambda *_: pytest.fail("read again"))
    outs = {tmp_path / "it": methods[0], tmp_path / "ram": methods[1]}
    merge_part(family, outs, OPTIONS, (0, 3), overlap=overlap, found=found)
    for name in ("statistics.json", "identity.json"):
        made, expected = (staging_directory(tmp_path / out) / name for out in ("it", "whole"))
        assert made.read_bytes() == expected.read_bytes()


def test_a_part_that_is_missing_is_merged_by_the_last_step(family: Family, tmp_path: Path) -> None:
    merge_family(family, resolve("ram_plus"), tmp_path / "whole", OPTIONS)
    assert merge_in_parts(family, "ram_plus", tmp_path, (1, 3), tmp_path / "out") == weight_bytes(tmp_path / "whole")


def test_parts_of_other_settings_are_not_taken_up(family: Family, tmp_path: Path) -> None:
    merge_part(family, {tmp_path / "1": resolve("ram")}, OPTIONS, (1, 1))
    add_part(staging_directory(tmp_path / "out"), staging_directory(tmp_path / "1"))
    merge_family(family, resolve("average"), tmp_path / "out", OPTIONS)
    merge_family(family, resolve("average"), tmp_path / "whole", OPTIONS)
    assert weight_bytes(tmp_path / "out") == weight_bytes(tmp_path / "whole")


@pytest.mark.parametrize("of", [1, 2, 3, 7, 20])
def test_each_shard_is_in_one_part_and_parts_are_about_equal(of: int) -> None:
    tensors = {f"t{index:02}": TensorSpec(DTYPES["float32"], (100 + 7 * index,)) for index in range(14)}
    layout = plan_layout(tensors, 500)
    parts = [layout.part(number, of) for number in range(of + 1)]
    assert [shard for part in parts for shard in part] == list(layout.shards)
    assert parts[0] == ()
    largest = max(shard.size for shard in layout.shards)
    assert max(sum(shard.size for shard in part) for part in parts) <= layout.size / of + largest
