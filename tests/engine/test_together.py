"""Contract: models that are merged together have the bytes that each has alone, and share the reads of the inputs.

This holds for any mixture of methods, compiled or eager, in one group or several, and after a kill.
"""

import random
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from rammerge.checkpoints.family import Family
from rammerge.engine import memory
from rammerge.engine.compiling import cache
from rammerge.engine.compiling.signature import Signature
from rammerge.engine.forecast import forecast_together
from rammerge.engine.options import MergeOptions
from rammerge.errors import InputError, RammergeError
from rammerge.publishing import grouping
from rammerge.publishing.making import merge_family, merge_together
from rammerge.rules import ResolvedMethod, resolve
from rammerge.system.toolchain import compiler
from tests.engine.models import sparse_family, weight_bytes, write_family
from tests.fixtures.kills import in_child, note_disk_calls

SHAPES = {"embed.weight": (700, 64), "layer.weight": (300, 200), "layer.bias": (300,), "scalar": ()}
EXCEPTIONS: list[dict[str, Any]] = [
    {"match": "embed*", "use": "agent1"},
    {"match": "*.bias", "params": {"scope": "tensor"}},
]
METHODS: Mapping[str, ResolvedMethod] = {
    "ram": resolve("ram"),
    "ram_plus": resolve("ram_plus", tensors=EXCEPTIONS),
    "task_arithmetic": resolve("task_arithmetic", weights={"agent0": 0.5}),
    "ties": resolve("ties"),
    "ties-dense": resolve("ties", None, {"density": 0.6}),
    "by-tensor": resolve("ties", None, {"scope": "tensor"}),
    "dare": resolve("dare"),
    "rows": resolve("della"),
    "squares": resolve("sce", None, {"select": 0.4}),
    "span": resolve("awd", None, {"iterations": 3}),
    "matrices": resolve("iso_c"),
}


@pytest.fixture(scope="module")
def family(tmp_path_factory: pytest.TempPathFactory) -> Family:
    return Family.open(*write_family(tmp_path_factory.mktemp("family"), *sparse_family(SHAPES, [0.05, 0.4, 0.6])))


def together(
    family: Family, methods: Mapping[str, ResolvedMethod], root: Path, options: MergeOptions, **settings: Any
) -> dict[str, dict[str, bytes]]:
    root.mkdir(exist_ok=True)
    wanted = {root / name: method for name, method in methods.items()}
    reports = list(merge_together(family, wanted, options, **settings))
    assert [report.path.name for report in reports] == list(methods)
    return {name: weight_bytes(root / name) for name in methods}


def alone(
    family: Family, methods: Mapping[str, ResolvedMethod], root: Path, options: MergeOptions
) -> dict[str, dict[str, bytes]]:
    root.mkdir()
    made = {name: merge_family(family, method, root / name, options).path for name, method in methods.items()}
    return {name: weight_bytes(path) for name, path in made.items()}


@pytest.mark.parametrize("threads", [1, 16])
def test_the_bytes_are_those_of_each_alone(
    family: Family, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, threads: int
) -> None:
    options = MergeOptions("bfloat16", "stochastic", 3, shard_size=60_000, compile="never", threads=threads)
    expected = alone(family, METHODS, tmp_path / "alone", options)
    assert together(family, METHODS, tmp_path / "together", options) == expected
    if threads > 1:
        monkeypatch.setattr(memory, "DEFAULT_BLOCK", memory.MIN_BLOCK)
        monkeypatch.setattr(grouping, "most_outputs", lambda *_: 4)
        assert together(family, METHODS, tmp_path / "groups", options) == expected


@pytest.mark.skipif(compiler() is None, reason="compiles C++")
@pytest.mark.usefixtures("compiled_here")
@pytest.mark.parametrize("eager", [None, "rows", "ram"])
def test_compiled_and_eager_functions_share_a_read(
    family: Family, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, eager: str | None
) -> None:
    methods = {name: METHODS[name] for name in ("ram", "ties", "ties-dense")}
    with_rows = {**methods, "rows": METHODS["rows"]}
    options = MergeOptions("bfloat16", compile="always", threads=2)
    expected = alone(family, with_rows, tmp_path / "alone", MergeOptions("bfloat16", compile="never"))
    if eager is not None:
        _refuse_to_compile(monkeypatch, with_rows[eager])
    assert together(family, with_rows, tmp_path / "together", options) == expected
    if eager is not None:
        return
    before = bytes_read()
    assert together(family, methods, tmp_path / "compiled", options).items() <= expected.items()
    assert bytes_read() - before <= 2.5 * nbytes(family) + weights(expected)


def _refuse_to_compile(monkeypatch: pytest.MonkeyPatch, method: ResolvedMethod) -> None:
    kernel, start = method.bind(["one", "other"]).kernel, cache.start_build

    def refuse(signature: Signature) -> cache.Build:
        if getattr(signature.function, "kernel", None) is kernel:
            raise RammergeError("no compiled form")
        return start(signature)

    monkeypatch.setattr(cache, "start_build", refuse)


@pytest.mark.parametrize(
    "names", [("ram", "ram_plus", "span", "dare"), ("ties", "ties-dense", "by-tensor", "ram_plus", "span")]
)
def test_how_often_the_inputs_are_read(tmp_path: Path, names: tuple[str, ...]) -> None:
    shapes = {"embed.weight": (1000, 400), "layer.bias": (300_000,)}
    family = Family.open(*write_family(tmp_path, *sparse_family(shapes, [0.1, 0.5])))
    assert family.digests
    for root in (tmp_path / "warm", tmp_path / "out"):  # the first imports
        root.mkdir()
        before = bytes_read()
        list(merge_together(family, {root / name: METHODS[name] for name in names}, MergeOptions(compile="never")))
        read = bytes_read() - before
    assert 2 * nbytes(family) <= read <= 2.1 * nbytes(family)


def nbytes(family: Family) -> int:
    """Return the size of the weights of a base and its agents."""
    return sum(file.stat().st_size for model in family.sources.values() for file in model.weight_files)


def weights(made: Mapping[str, Mapping[str, bytes]]) -> int:
    """Return the size of merged models, which a test reads back."""
    return sum(len(content) for files in made.values() for content in files.values())


def bytes_read() -> int:
    """Return how many bytes this process has read so far, from files or the page cache."""
    (line,) = [line for line in Path("/proc/self/io").read_text().splitlines() if line.startswith("rchar")]
    return int(line.split()[1])


def test_groups_are_said(family: Family, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(grouping, "most_outputs", lambda *_: 2)
    methods = {tmp_path / name: METHODS[name] for name in ("ram", "ties", "dare")}
    reports = list(merge_together(family, methods, MergeOptions(compile="never")))
    assert all("for 3 models at once: they were made in 2 groups" in report.warnings[-1] for report in reports)


def test_more_models_take_smaller_blocks_and_not_more_than_the_limit(
    family: Family, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(memory, "resident_bytes", lambda: 300 << 20)
    rule = resolve("ram").bind(family.agents)
    options = MergeOptions(memory=338 << 20, threads=4, compile="never")
    freely, limited = (
        forecast_together(family, [rule] * 9, each).memory for each in (replace(options, memory=None), options)
    )
    assert freely > 338 << 20 >= limited
    with pytest.raises(InputError, match="too little"):
        forecast_together(family, [rule] * 900, options)


def test_too_little_room_for_all_is_refused_before(family: Family, tmp_path: Path) -> None:
    usage = shutil.disk_usage(tmp_path)
    size = sum(file.stat().st_size for file in family.base.weight_files)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(shutil, "disk_usage", lambda _: usage._replace(free=4 * size + (2 << 20)))
        merge_family(family, METHODS["ram"], tmp_path / "one")
        with pytest.raises(InputError, match=r"output .*/c with 2 others needs"):
            list(merge_together(family, {tmp_path / name: METHODS["ram"] for name in ("a", "b", "c")}))


@pytest.mark.parametrize("threads", [1, 16])
def test_a_result_that_overflows_is_named_and_the_others_are_made(tmp_path: Path, threads: int) -> None:
    base, (agent,) = sparse_family({"wide.weight": (300, 700), "late.weight": (40, 50)}, [0.5])
    agent["wide.weight"][200:] += 9000.0  # from a chunk in the middle on
    family = Family.open(*write_family(tmp_path, base, [agent]))
    scales = {"half": 0.5, "tenfold": 10.0, "one": 1.0, "more": 20.0}
    methods = {tmp_path / name: resolve("task_arithmetic", None, {"scale": scale}) for name, scale in scales.items()}
    options = MergeOptions("float16", shard_size=100_000, compile="never", threads=threads, memory=1 << 33)
    made = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(memory, "DEFAULT_BLOCK", memory.MIN_BLOCK)
        with pytest.raises(InputError) as raised:
            for report in merge_together(family, methods, options, names={tmp_path / "tenfold": "variant 'tenfold'"}):
                made.append(report.path.name)
    assert made == ["half", "one"]
    problem = "the merged 'wide.weight' overflows float16; use dtype bfloat16 or float32"
    assert str(raised.value) == f"variant 'tenfold': {problem}; {tmp_path / 'more'}: {problem}"
    expected = merge_family(family, methods[tmp_path / "one"], tmp_path / "alone", options)
    assert weight_bytes(tmp_path / "one") == weight_bytes(expected.path)
    assert not (tmp_path / "tenfold").exists()


def test_kill_9_at_any_moment(family: Family, tmp_path: Path) -> None:
    methods = {name: METHODS[name] for name in ("ram_plus", "ties", "dare")}
    options = MergeOptions("bfloat16", shard_size=60_000, compile="never", threads=2)
    calls: list[None] = []
    with pytest.MonkeyPatch.context() as patch:
        note_disk_calls(patch, lambda: calls.append(None))
        expected = together(family, methods, tmp_path / "counted", options)
    chances, sources = random.Random(0), {name: member.path for name, member in family.members.items()}
    for attempt in range(4):
        root = tmp_path / f"out{attempt}"
        root.mkdir()
        for moment in (chances.randrange(len(calls)), chances.randrange(len(calls)), None):
            in_child(partial(merge_again, family.base.path, sources, tuple(methods), root, options), moment)
        assert {name: weight_bytes(root / name) for name in methods} == expected


def merge_again(
    base: Path, agents: Mapping[str, Path], names: Sequence[str], root: Path, options: MergeOptions
) -> None:
    together(Family.open(base, agents), {name: METHODS[name] for name in names}, root, options, force=True)
