"""Contract: pruning removes only what can be made again, the longest unused first, and nothing that a process uses."""

import os
import subprocess
import sys
import time
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from prefect import Flow

import flows
from rammerge import store
from rammerge.errors import RammergeError
from rammerge.store import InUseError, entries

DAY = 86_400


@pytest.fixture(autouse=True)
def own_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("RAMMERGE_HOME", str(tmp_path))
    return tmp_path


def make(key: str, size: int = 100, *, kind: str = "merge", unused_days: float = 0.0) -> Path:
    """Make an entry that this process no longer uses, last used some days ago."""
    path = store.materialise(kind, key, lambda directory: write(directory, size)).path
    at = time.time() - unused_days * DAY
    os.utime(path / ".manifest", (at, at))
    entries.hold.cache_clear()
    return path


def write(directory: Path, size: int) -> None:
    (directory / "weights").write_bytes(bytes(size))


def left() -> set[str]:
    return {path.name for path in entries.root().glob("*/[!.]*")}


def test_what_was_not_used_for_long_goes_and_the_rest_stays() -> None:
    make("old", unused_days=31)
    make("new", unused_days=29)
    make("suite", kind="suite", unused_days=40)
    dry = store.prune(unused_days=30, dry_run=True)
    assert left() == {"old", "new", "suite"}
    assert store.prune(unused_days=30) == dry
    assert left() == {"new"}
    assert dry.entries == {"merge": 1, "suite": 1}
    assert dry.freed["merge"] >= 100


def test_use_keeps_an_entry() -> None:
    make("old", unused_days=31)
    assert store.find("merge", "old")
    entries.hold.cache_clear()
    store.prune(unused_days=30)
    assert left() == {"old"}


def test_a_removed_entry_is_made_again() -> None:
    make("old", unused_days=31)
    before = store.generation("merge", "old", valid=True)
    store.prune(unused_days=30)
    assert store.find("merge", "old") is None
    assert store.generation("merge", "old", valid=False) != before
    make("old")
    assert left() == {"old"}


@given(sizes=st.lists(st.integers(1, 5000), min_size=1, max_size=6), budget=st.integers(1, 12_000))
def test_the_longest_unused_go_until_the_rest_fits(sizes: list[int], budget: int) -> None:
    store.prune(unused_days=0)
    paths = [make(f"k{number}", size, unused_days=number + 1) for number, size in enumerate(sizes)]
    whole = {path.name: sum(file.stat().st_size for file in path.iterdir()) for path in paths}
    pruned = store.prune(unused_days=None, size=budget)
    assert pruned.kept == sum(whole[name] for name in left()) <= max(budget, 0)
    newest = [path.name for path in paths if path.exists()]
    assert newest == [path.name for path in paths[: len(newest)]]
    if len(newest) < len(paths):
        assert pruned.kept + whole[paths[len(newest)].name] > budget


def test_what_a_registered_version_shares_frees_nothing_and_is_not_lost(tmp_path: Path) -> None:
    shared = make("shared", 5000, unused_days=2)
    os.link(shared / "weights", tmp_path / "registered")
    make("alone", 5000, unused_days=1)
    assert store.prune(unused_days=None, size=6000).kept < 6000  # shared bytes do not count
    assert left() == {"shared", "alone"}
    store.prune(unused_days=0)
    assert (tmp_path / "registered").read_bytes() == bytes(5000)


def test_what_killed_processes_left_goes_too() -> None:
    make("new")
    stale = entries.root() / "merge" / ".staging" / "half"
    trash = entries.root() / "merge" / ".removed-old-123"
    for directory in (stale, trash):
        directory.mkdir(parents=True)
        write(directory, 10)
    for path in (stale, stale / "weights"):
        os.utime(path, (time.time() - 31 * DAY,) * 2)
    store.prune(unused_days=30)
    assert not stale.exists() and not trash.exists() and left() == {"new"}


def test_nothing_is_pruned_under_a_process_that_uses_the_store(own_home: Path) -> None:
    make("old", unused_days=31)
    code = "from rammerge import store; assert store.find('merge', 'old'); print('using', flush=True); input()"
    user = subprocess.Popen(
        [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=os.environ
    )
    assert user.stdout is not None and user.stdout.readline() == "using\n"
    with pytest.raises(RammergeError, match=f"a process is using the store {own_home}/store; prune when it has ended"):
        store.prune(unused_days=0)
    assert left() == {"old"}
    user.kill()
    user.communicate()
    store.prune(unused_days=0)
    assert left() == set()


def test_what_the_last_run_of_a_recipe_leads_to_stays(own_home: Path) -> None:
    from flows.run.outcome import Outcome

    model, report = make("model", unused_days=40), make("report", kind="report", unused_days=40)
    make("other", unused_days=40)
    Outcome(
        recipe="nightly",
        recipe_digest="d",
        leaderboard_file=None,
        decision_file=None,
        report=report / "weights",
        selected="ram",
        passed=True,
        refusals=[],
        model=model / "model",
        registered=("nightly", 1),
        champion="",
        run_id="r",
        warnings=[],
    ).keep()
    assert command("--size", "1B").returncode == 0
    assert left() == {"model", "report"}
    (own_home / "runs" / "nightly.json").unlink()
    assert command().returncode == 0
    assert left() == set()


def test_a_home_without_a_store_has_nothing_to_prune() -> None:
    assert store.prune(unused_days=0).kept == 0
    assert not entries.root().exists()


def command(*arguments: str) -> "subprocess.CompletedProcess[str]":
    words = [sys.executable, "-m", "rammerge", "prune", *arguments]
    return subprocess.run(words, capture_output=True, text=True, check=False, env=os.environ)


def test_the_command_says_what_goes() -> None:
    make("old", 2000, unused_days=31)
    dry = command("--dry-run")
    assert dry.returncode == 0 and "dry run: would have removed 1 entry of 2." in dry.stdout
    assert left() == {"old"}
    assert command("--unused-days", "60").stdout.startswith("removed 0 entries of 0 bytes")
    assert command().stdout.splitlines()[0].split()[:2] == ["merge", "1"]
    assert left() == set()
    wrong = command("--size", "much")
    assert wrong.returncode == 2 and "--size much: a size is a number with a unit" in wrong.stderr


def test_lock_files_of_entries_that_are_gone_go_with_them() -> None:
    for key, days in (("old", 31), ("new", 1)):
        make(key, unused_days=days)
        store.generation("merge", key, valid=False)
        entries.hold.cache_clear()
    store.prune(unused_days=30)
    assert {file.name for file in (entries.root() / "merge" / ".locks").iterdir()} == {"new", "new.generation"}


def test_records_of_every_flow_are_removed() -> None:
    from tasks.records.flow_runs import FLOWS

    modules = (import_module(f"flows.{file.stem}") for file in Path(flows.__path__[0]).glob("[a-z]*.py"))
    assert {each.name for module in modules for each in vars(module).values() if isinstance(each, Flow)} == set(FLOWS)


@pytest.mark.usefixtures("prefect_api")
def test_the_flow_prunes_and_skips_what_is_in_use(tmp_path: Path) -> None:
    from flows.prune import prune

    make("old", unused_days=31)
    make("new")
    state: Any = prune(return_state=True)
    assert state.is_completed() and "removed 1 entry" in state.message
    assert left() == {"new"}
    assert store.find("merge", "new")  # this process uses the store from here on
    state = prune(unused_days=0, return_state=True)
    assert (state.name, left()) == ("Skipped", {"new"})
    entries.hold.cache_clear()
    state = prune(unused_days=0, dry_run=True, return_state=True)
    assert "dry run: would have removed 1 " in state.message
    assert left() == {"new"}
    error: Any = prune(size="much", return_state=True)
    assert error.is_failed() and "a size is a number with a unit" in error.message
    (tmp_path / "shared").mkdir()
    state = prune(shared=str(tmp_path / "shared"), return_state=True)
    assert state.message == "removed 0 shared entries, and 0 bytes; 0 bytes are kept"
    error = prune(shared=str(tmp_path / "shared"), versions=1, return_state=True)
    assert error.is_failed() and "versions and records are of this machine" in error.message


def test_a_dry_run_that_skips_the_store_says_of_nothing_that_it_was_removed(monkeypatch: pytest.MonkeyPatch) -> None:
    from flows import prune as module
    from flows.run import pruning

    def in_use(*, say: Callable[[str], None], **_: Any) -> None:
        say("removed 3 records")
        raise InUseError("a run uses the store")

    monkeypatch.setattr(module, "activate", lambda: None)
    monkeypatch.setattr(pruning, "prune", in_use)
    state: Any = module.prune.fn(records=1, dry_run=True)
    assert state.message == "dry run: would have removed 3 records; a run uses the store"


@pytest.mark.usefixtures("prefect_api")
def test_only_a_store_in_use_is_skipped(monkeypatch: pytest.MonkeyPatch) -> None:
    from flows.prune import prune

    def broken(**_: Any) -> None:
        raise RammergeError("the disk does not answer")

    monkeypatch.setattr(store, "prune", broken)
    state: Any = prune(return_state=True)
    assert state.is_failed() and "the disk does not answer" in state.message
