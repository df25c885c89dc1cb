"""Contract: what a process may take is bounded by the machine and by its container, whose page cache is free."""

import os
from pathlib import Path

import pytest

from rammerge.system import memory
from rammerge.system.memory import free_memory, total_memory

MACHINE = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


@pytest.fixture(params=[("memory.max", "memory.current"), ("memory.limit_in_bytes", "memory.usage_in_bytes")])
def group(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Path, Path]:
    """The files with a container's limit and its use: 700 of 1,000 bytes, of which 200 are cached files."""
    limit, used = request.param
    monkeypatch.setattr(memory, "_GROUPS", ((tmp_path, limit, used),))
    (tmp_path / limit).write_text("1000\n")
    (tmp_path / used).write_text("700\n")
    (tmp_path / "memory.stat").write_text("anon 500\nactive_file 150\ninactive_file 50\n")
    return tmp_path / limit, tmp_path / used


def test_a_container_bounds_what_there_is(group: tuple[Path, Path]) -> None:
    limit, used = group
    assert (total_memory(), free_memory()) == (1000, 500)
    used.write_text("1300\n")
    assert free_memory() == 0
    limit.write_text("max\n")
    assert total_memory() == MACHINE and 500 < free_memory() <= MACHINE
    limit.unlink()
    assert total_memory() == MACHINE and 500 < free_memory() <= MACHINE


def test_a_machine_that_does_not_say_has_all_of_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "_GROUPS", ())
    monkeypatch.setattr(memory, "_MEMINFO", tmp_path / "missing")
    assert free_memory() == MACHINE
