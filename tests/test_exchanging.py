"""Contract: an entry of the store can take another form of the same output; one of both is whole at any moment.

No form is taken away under those who use it.
"""

import itertools
import threading
from pathlib import Path

import pytest

from rammerge import store
from rammerge.errors import RammergeError
from rammerge.store import entries
from tests.fixtures.kills import in_child


@pytest.fixture(autouse=True)
def own_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAMMERGE_HOME", str(tmp_path))


def make() -> store.Entry:
    return store.materialise("merge", "key", lambda directory: write(directory, "large"))


def write(directory: Path, name: str) -> None:
    (directory / name).write_text(name)


def shrink() -> None:
    store.exchange("merge", "key", lambda _, directory: write(directory, "small"), wait=False)


def present() -> set[str]:
    found = store.find("merge", "key")
    assert found is not None, "neither form is whole"
    return set(found.files)


def test_the_other_form_takes_the_place_and_keeps_how_long_the_output_took() -> None:
    before = make()
    shrink()
    after = store.find("merge", "key")
    assert after is not None and (set(after.files), after.seconds) == ({"small"}, before.seconds)
    assert not list((entries.root() / "merge" / ".staging").iterdir())


def test_a_kill_at_any_moment_leaves_one_form() -> None:
    for moment in itertools.count(step=2):
        store.drop("merge", "key")
        make()
        finished = in_child(shrink, moment)
        assert present() in ({"large"}, {"small"})
        shrink()
        assert present() == {"small"}
        if finished:
            return


def test_what_is_used_stays_and_whoever_waits_comes_after() -> None:
    make()
    with store.using("merge", "key"), store.using("merge", "key"):
        with pytest.raises(BlockingIOError):
            shrink()
        assert not store.drop_unused("merge", "key")
        waiting = threading.Thread(
            target=store.exchange,
            args=("merge", "key", lambda _, directory: write(directory, "small")),
            kwargs={"wait": True},
        )
        waiting.start()
        assert present() == {"large"}
    waiting.join()
    assert present() == {"small"}
    assert store.drop_unused("merge", "key") and store.find("merge", "key") is None


def test_a_form_that_fails_or_is_not_wanted_changes_nothing() -> None:
    make()
    store.exchange("merge", "key", lambda *_: None, wait=False)
    with pytest.raises(FileNotFoundError):
        store.exchange("merge", "key", lambda _, directory: write(directory / "nowhere", "small"), wait=False)
    assert present() == {"large"}
    store.drop("merge", "key")
    with pytest.raises(RammergeError, match="is gone; run again"):
        shrink()
