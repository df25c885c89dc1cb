"""Contract: statistics that were measured in parts of the model are, byte for byte, those of one process.

That holds for any number of parts, also for more parts than tensors, and a part reads its own tensors alone.
"""

import json
from collections.abc import Iterator

import pytest
import torch

from rammerge.checkpoints.family import Family
from rammerge.checkpoints.headers import TensorInfo
from rammerge.engine.input import Files
from rammerge.engine.options import MergeOptions
from rammerge.engine.passes.measuring import measure_missing, measure_overlap, overlap_of, overlap_passes, passes_of
from rammerge.engine.passes.parts import join_parts, measure_part, rounds, share
from rammerge.engine.passes.statistics import Statistics
from rammerge.engine.session import Session
from rammerge.rules import METHODS, resolve
from tests.engine.models import DATA_FREE, sparse_family, write_family

# Several tensors of unequal size, one element, and none.
SHAPES = {"embed.weight": (90, 40), "a.weight": (30, 40), "a.bias": (30,), "b.weight": (25, 40), "c": (), "d": (0, 4)}
OPTIONS = MergeOptions(compile="never", threads=2)
MORE = {"sce": {"select": 0.3}}
WITH_STATISTICS = [
    name
    for name in DATA_FREE
    if not METHODS[name].matrices and resolve(name, None, MORE.get(name)).bind(["x", "y", "z"]).passes
]


@pytest.fixture(scope="module")
def family(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Family]:
    base, agents = sparse_family(SHAPES, [0.3, 0.4, 0.2, 0.2])
    base["steps"] = torch.tensor([3])
    for agent in agents:
        agent["steps"] = base["steps"]
    agents[1]["a.weight"] = agents[1]["a.weight"].float() * 1.001
    written, members = write_family(tmp_path_factory.mktemp("family"), base, agents)
    yield Family.open(written, members, groups={"mean": ["agent2", "agent3"]})


@pytest.mark.parametrize("of", [1, 2, 3, 5, 9])
def test_an_overlap_in_parts_is_that_of_one_process(family: Family, of: int) -> None:
    passes, none = overlap_passes(), Statistics()
    parts = [measure_part(family, passes, none, share(family, number, of), OPTIONS) for number in range(1, of + 1)]
    joined = overlap_of(passes, join_parts(passes, none, [json.loads(json.dumps(parts))]))
    assert json.dumps(joined.to_json()) == json.dumps(measure_overlap(family, options=OPTIONS).to_json())


@pytest.mark.parametrize("method", WITH_STATISTICS)
@pytest.mark.parametrize("weights", [{}, {"agent0": 0.5}], ids=["alike", "weighted"])
def test_statistics_in_parts_are_those_of_one_process(family: Family, method: str, weights: dict[str, float]) -> None:
    rule = resolve(method, None, MORE.get(method), weights=weights).bind_to(family)
    passes, none = passes_of([rule]), Statistics()
    found: list[list[object]] = []
    for _ in range(rounds(passes, none)):
        known = join_parts(passes, none, found)
        parts = [measure_part(family, passes, known, share(family, number, 3), OPTIONS) for number in (1, 2, 3)]
        found.append(json.loads(json.dumps(parts)))
    with Session(family, OPTIONS) as session:
        expected = measure_missing(session, passes, none)
    with Session(family, OPTIONS, tensors=()) as session:  # which reads nothing
        joined = measure_missing(session, passes, join_parts(passes, none, found))
    assert json.dumps(joined.to_json(passes)) == json.dumps(expected.to_json(passes))


def test_counts_of_one_round_are_not_taken_for_those_of_another(family: Family) -> None:
    passes, none = resolve("ties").bind_to(family).passes, Statistics()
    coarse = [measure_part(family, passes, none, family.floats, OPTIONS)]
    with pytest.raises(ValueError, match="are not those from"):
        join_parts(passes, none, [coarse, coarse])


def test_parts_read_each_tensor_once_and_only_their_own(family: Family, monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[str] = []
    fill = Files.read

    def noting(files: Files, info: TensorInfo, start: int, memory: memoryview) -> None:
        read.append(info.name)
        fill(files, info, start, memory)

    monkeypatch.setattr(Files, "read", noting)
    shares = [share(family, number, 3) for number in (1, 2, 3)]
    assert [name for names in shares for name in names] == list(family.floats)
    for names in shares:
        read.clear()
        measure_part(family, overlap_passes(), Statistics(), names, OPTIONS)
        assert set(read) == {name for name in names if family.base.tensors[name].numel}
        assert len(read) == len(set(read)) * (1 + len(family.members))
