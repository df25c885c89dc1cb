"""Contract: pruning a shared store takes what no home needs, and nothing that another machine brings or puts there.

tests/servers/test_shared_store.py has the same of a bucket.
"""

import os
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from flows.cli.program import main
from rammerge import store
from rammerge.errors import InputError
from rammerge.storage import open_place
from rammerge.storage.directory import Directory
from rammerge.store import entries
from rammerge.store.carrying import receive
from tests.fixtures.sharing import LARGE, go_to, never, shared_directory

DAY = 86_400


@pytest.fixture(autouse=True)
def shared(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    with shared_directory(tmp_path, monkeypatch) as directory:
        yield directory


def write(directory: Path) -> None:
    (directory / "weights").write_bytes(LARGE)


def write_small(directory: Path) -> None:
    (directory / "report.json").write_text("{}")


def put(key: str, *, days: float = 0.0, kind: str = "merge", small: bool = False) -> Path:
    """Put an entry into the shared store some days ago; return its directory there."""
    made = store.materialise(kind, key, write_small if small else write).path
    there = Path(str(store.shared_url())) / kind / key
    age(days, *there.iterdir(), made / ".manifest")
    return there


def age(days: float, *files: Path) -> None:
    at = time.time() - days * DAY
    for file in files:
        os.utime(file, (at, at))


def found(shared: Path) -> set[str]:
    """Return the keys of the entries that other machines find."""
    return {file.parent.name for file in shared.glob("*/*/manifest.json")}


def prune(**given: Any) -> store.Withdrawn:
    url = str(store.shared_url())
    return store.prune_shared(url, **{"unused_days": 30, **given})


def test_what_was_not_used_for_long_goes_and_a_dry_run_says_so(shared: Path) -> None:
    put("old", days=31)
    put("small", days=31, kind="gate", small=True)
    put("new", days=29)
    dry = prune(dry_run=True)
    assert found(shared) == {"old", "small", "new"}
    assert prune() == dry
    assert found(shared) == {"new"} and dry.entries == {"gate": 1, "merge": 1}
    assert dry.later == len(LARGE) and dry.kept > len(LARGE)
    assert (
        "removed 2 shared entries, and " in dry.sentence
        and "more go when it is pruned in a day or later" in dry.sentence
    )


def test_files_go_a_day_after_their_manifest_and_a_download_that_goes_on_is_finished(
    shared: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    there = put("old", days=31)
    go_to(shared.parent / "two", monkeypatch)
    get = Directory.get

    def meanwhile(place: Directory, name: str, file: Path) -> bool:
        prune()
        prune()
        return get(place, name, file)

    monkeypatch.setattr(Directory, "get", meanwhile)
    assert receive("merge", "old") is not None
    monkeypatch.setattr(Directory, "get", get)
    assert found(shared) == set() and len(list(there.iterdir())) == 2
    age(1.1, *there.iterdir())
    assert prune().freed > len(LARGE) and not there.exists()


def test_an_entry_that_is_put_there_again_is_whole_and_stays(shared: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    there = put("old", days=31)
    prune()
    age(1.1, *there.iterdir())
    go_to(shared.parent / "two", monkeypatch)
    store.materialise("merge", "old", write)
    prune()
    go_to(shared.parent / "three", monkeypatch)
    assert store.materialise("merge", "old", never).reused


def test_a_file_that_pruning_takes_before_it_is_named_is_put_there_once_more(
    shared: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    there = put("old", days=31)
    prune()
    age(1.1, *there.iterdir())
    go_to(shared.parent / "two", monkeypatch)
    create = Directory.create

    def late(place: Directory, name: str, content: bytes) -> bool:
        if name == "merge/old/manifest.json":
            prune()
        return create(place, name, content)

    monkeypatch.setattr(Directory, "create", late)
    store.materialise("merge", "old", write)
    go_to(shared.parent / "three", monkeypatch)
    assert store.materialise("merge", "old", never).reused


def test_an_upload_that_goes_on_and_what_is_younger_than_a_day_stay(shared: Path) -> None:
    uploading = put("uploading")
    (uploading / "manifest.json").unlink()
    put("new", days=0.5)
    assert prune(unused_days=0, size=0).freed == 0
    assert found(shared) == {"new"} and len(list(uploading.iterdir())) == 1
    age(2, *uploading.iterdir())
    assert prune(unused_days=0).freed == len(LARGE) and not uploading.exists()


def test_the_longest_unused_go_until_the_rest_fits(shared: Path) -> None:
    for number, key in enumerate(["newest", "newer", "older", "oldest"]):
        put(key, days=number + 2)
    pruned = prune(unused_days=None, size=2 * len(LARGE) + 4000)
    assert found(shared) == {"newest", "newer"} and pruned.entries == {"merge": 2}


def test_what_a_home_used_of_late_and_what_its_last_runs_lead_to_stays(
    shared: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for key in ("used", "kept", "other"):
        put(key, days=40)
    go_to(shared.parent / "two", monkeypatch)
    store.materialise("merge", "used", never)
    store.note_uses()
    store.trim(0)  # it still counts as used by this home
    store.note_uses()
    go_to(shared.parent / "one", monkeypatch)
    store.note_uses([entries.root() / "merge" / "kept" / "weights", Path("/elsewhere")])
    prune()
    assert found(shared) == {"used", "kept"}
    age(400, *(shared / ".uses").iterdir())  # both homes have not run for more than a year
    prune()
    assert found(shared) == set() and not list((shared / ".uses").glob("*"))


def test_what_killed_processes_and_second_writers_left_goes_and_what_others_keep_there_stays(shared: Path) -> None:
    there = put("new", days=2)
    theirs = shared / "mlflow" / "artifacts" / "1" / "model"
    left = [there / "0123", shared / ".trial" / "x", shared / "hub" / ".sha.writer", shared / ".locks" / "merge" / "k"]
    for file in (*left, theirs):
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(LARGE)
        age(40, file)
    held = shared / ".locks" / "merge" / "held"
    with open_place(str(shared)).alone("merge/held"):
        age(40, held)
        prune()
        assert held.exists()
    assert not any(file.exists() for file in left) and theirs.exists()
    assert store.find("merge", "new") and receive("merge", "new")


def test_a_download_from_a_hub_goes_as_a_whole(shared: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(LARGE)
    store.offer_file("a" * 64, tmp_path / "file")
    age(31, shared / "hub" / ("a" * 64))
    assert prune().freed == len(LARGE) and not store.bring_file("a" * 64, tmp_path / "again")


def test_a_damaged_manifest_costs_no_file() -> None:
    there = put("new", days=2)
    (there / "manifest.json").write_text("{")
    age(2, there / "manifest.json")
    assert prune().freed == 0 and len(list(there.iterdir())) == 2


def test_a_place_that_is_not_there_is_said(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="lost is not a directory; make it, or check whether it is mounted"):
        store.prune_shared(str(tmp_path / "lost"), unused_days=30)


def test_the_command_prunes_one_place_or_the_other(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    put("old", days=31)

    def say(*words: str) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["rammerge", "prune", "--shared", str(store.shared_url()), *words])
        with pytest.raises(SystemExit) as exit_:
            main()
        return (int(exit_.value.code or 0), *capsys.readouterr())

    assert say("--dry-run")[1].startswith("dry run: would have removed 1 shared entry, and ")
    assert say("--size", "much")[0] == 2
    assert "leave them out with a shared store" in say("--versions", "3")[2]
    assert say()[1].startswith("removed 1 shared entry, and ")
    assert store.find("merge", "old") and not store.has("merge", "old")
