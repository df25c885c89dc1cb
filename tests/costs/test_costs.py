"""Contract of the cost model: what stages read and write is what merges read and write, and resources bound the time.

The calibration measures once and is kept below the home.
"""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from rammerge.checkpoints.family import Family
from rammerge.checkpoints.headers import TensorInfo
from rammerge.costs import calibration
from rammerge.costs.model import FACTORS, Merges, Site, Speeds, stages, total
from rammerge.engine.input import Files
from rammerge.engine.options import MergeOptions
from rammerge.engine.passes.measuring import measure_overlap
from rammerge.publishing.making import merge_family
from rammerge.rules import METHODS, resolve
from tests.engine.models import sparse_family, write_family

SPEEDS = Speeds(cores=4, read=2e9, write=1e9, hashed=2e9, merged=1.5e9, counted=1.5e9)
LARGE = Merges(elements=70 * 10**9, agents=3, methods=["ram"])


@pytest.fixture
def family(tmp_path: Path) -> Iterator[Family]:
    base, agents = sparse_family({"a.weight": (30, 40), "b.weight": (20, 10)}, [0.3, 0.4])
    opened, members = write_family(tmp_path, base, agents)
    yield Family.open(opened, members)


@pytest.mark.parametrize(("method", "statistics"), [("ram", 0), ("ties", 1), ("multi_slerp", 1)])
def test_stages_read_what_a_merge_reads(
    method: str, statistics: int, family: Family, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    read = {"bytes": 0}
    fill = Files.read

    def counting(files: Files, info: TensorInfo, start: int, memory: memoryview) -> None:
        read["bytes"] += len(memory)
        fill(files, info, start, memory)

    monkeypatch.setattr(Files, "read", counting)
    merges = Merges(family.elements, len(family.members), [method], statistics)
    expected = {stage.name: stage for stage in stages(merges, Site(SPEEDS))}
    options = MergeOptions("bfloat16", compile="never")
    measure_overlap(family, options=options)
    assert read["bytes"] == expected["count overlap"].read == merges.inputs
    read["bytes"] = 0
    report = merge_family(family, resolve(method), tmp_path / "out", options)
    assert read["bytes"] == expected["merge"].read + (expected["statistics"].read if statistics else 0)
    assert merges.outputs == expected["merge"].written <= report.nbytes


def test_a_slower_resource_takes_longer_and_is_named() -> None:
    (merge,) = (stage for stage in stages(LARGE, Site(SPEEDS)) if stage.name == "merge")
    assert merge.limit(Site(SPEEDS)) == "disk"
    assert merge.limit(Site(replace(SPEEDS, read=50e9, write=50e9))) == "processors"
    link = Site(SPEEDS, network=1.25e9 / 8)
    assert merge.limit(link) == "network"
    assert merge.seconds(link) > merge.seconds(Site(SPEEDS))
    assert merge.limit(replace(link, storage=1e6)) == "storage"


def test_workers_help_in_parts_until_what_is_done_once_decides() -> None:
    def seconds(workers: int, parts: int, agents: int = 3) -> float:
        site, merges = Site(SPEEDS, workers), replace(LARGE, agents=agents, parts=parts, hashed=True)
        return total(stages(merges, site), site)

    assert seconds(8, 1) > seconds(8, 8)
    assert seconds(1, 1) > 3.5 * seconds(16, 16), "all that reads the inputs is divided"
    assert seconds(256, 256) > 0.9 * seconds(64, 64), "one worker collects the parts"
    assert seconds(1, 1, agents=100) > 30 * seconds(64, 64, agents=100), "inputs are most of the bytes"


def test_every_element_wise_method_has_a_factor() -> None:
    assert set(FACTORS) == {name for name, method in METHODS.items() if not method.matrices}


def test_the_calibration_is_measured_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(calibration, "_ELEMENTS", 1 << 16)
    monkeypatch.setattr(calibration, "_COMPILE", "never")
    measured = calibration.calibrated()
    assert min(measured.read, measured.write, measured.hashed, measured.merged, measured.counted) > 0
    monkeypatch.setattr(calibration, "_measure", lambda _: pytest.fail("measured again"))
    assert calibration.calibrated() == measured
