"""Contract: there is one champion at a time, only a person undoes a rollback, and nothing damaged serves."""

import contextlib
import json
import shutil
import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from mlflow import MlflowClient

from rammerge.checkpoints.digest import sha256_file
from rammerge.errors import InputError, RammergeError
from tasks.records import promotion, registry
from tasks.records.aliases import TAG_MOVING
from tasks.records.connection import client
from tasks.records.registry import Release
from tests.tasks.records.made import aliases, register

pytestmark = pytest.mark.long


def test_promotion_moves_the_aliases_along(model: Path, place: Path) -> None:
    for number in (1, 2, 3):
        assert register("along", model, f"digest {number}", place).version == number
        assert aliases("along")["challenger"] == number
        assert promotion.promote("along", number).changed
    assert aliases("along") == {"champion": 3, "previous": 2}
    again = promotion.promote("along", 3)
    assert not again.changed and "already" in again.sentence
    assert aliases("along") == {"champion": 3, "previous": 2}


def test_rollback_swaps_and_only_a_person_undoes_it(model: Path, place: Path) -> None:
    for number in (1, 2):
        register("back", model, f"digest {number}", place)
        promotion.promote("back", number)
    assert promotion.rollback("back").champion == 1
    assert aliases("back") == {"champion": 1, "previous": 2}
    stays = promotion.promote("back", 2)
    assert not stays.changed and "rammerge promote back 2" in stays.sentence
    assert aliases("back")["champion"] == 1
    assert promotion.promote("back", 2, by_hand=True).champion == 2
    assert promotion.promote("back", 1).champion == 1, "the version that was never rolled back is free"


def test_what_cannot_be_is_refused(model: Path, place: Path) -> None:
    release = register("cannot", model, "only", place)
    promotion.promote("cannot", 1)
    with pytest.raises(InputError, match="no previous champion"):
        promotion.rollback("cannot")
    with pytest.raises(InputError, match="no version 7; it has 1"):
        promotion.promote("cannot", 7)
    with pytest.raises(InputError, match=r"no registered model is called 'canot' \(did you mean 'cannot'\?\)"):
        registry.releases("canot")
    register("cannot", model, "another", place)
    shutil.rmtree(Path(registry.releases("cannot")[0].path))
    with pytest.raises(InputError, match=r"cannot serve: .* is gone"):
        promotion.promote("cannot", 2)
    assert aliases("cannot")["champion"] == 1 and release.version == 1


def test_a_version_with_a_changed_file_does_not_serve(model: Path, place: Path, tmp_path: Path) -> None:
    merged = tmp_path / "merged"
    shutil.copytree(model, merged)
    files = {path.name: path for path in merged.iterdir()}
    entries = {name: {"size": path.stat().st_size, "sha256": sha256_file(path)} for name, path in files.items()}
    (merged / "rammerge.json").write_text(json.dumps({"files": entries}))
    release = register("damaged", merged, "digest", place)
    config = Path(release.path) / "model" / "config.json"
    intact = config.read_text()
    config.unlink()
    config.write_text(intact + " ")
    with pytest.raises(InputError, match=r"damaged version 1 cannot serve: .*config\.json differs"):
        promotion.promote("damaged", 1)
    assert "champion" not in aliases("damaged")
    config.write_text(intact)
    assert promotion.promote("damaged", 1).changed


class Killed(BaseException):
    """Ends a move at once, as a kill does: nothing in between may catch it."""


def killed_at(monkeypatch: pytest.MonkeyPatch, number: int) -> list[str]:
    """Let the change of the registry with this number, counted from 0, not happen, nor any that follows."""
    changes: list[str] = []

    def counted(change: Callable[..., Any]) -> Callable[..., Any]:
        def call(*arguments: Any, **named: Any) -> Any:
            if len(changes) >= number:
                raise Killed
            changes.append(change.__name__)
            return change(*arguments, **named)

        return call

    for name in dir(MlflowClient):
        if name.startswith(("set_", "delete_", "create_", "update_")):
            monkeypatch.setattr(MlflowClient, name, counted(getattr(MlflowClient, name)))
    return changes


def three_releases(name: str, model: Path, place: Path) -> None:
    """Register three versions; 2 is champion, 1 was it before, and 3 is the challenger."""
    for number in (1, 2, 3):
        register(name, model, f"digest {number}", place)
        if number < 3:
            promotion.promote(name, number)


def rewinding(place: Path) -> Callable[[], None]:
    """Return a function that sets the registry back to what it is now, which is faster than to register anew."""
    kept = sqlite3.connect(":memory:")
    with contextlib.closing(sqlite3.connect(place / "mlflow.db")) as database:
        database.backup(kept)

    def rewind() -> None:
        with contextlib.closing(sqlite3.connect(place / "mlflow.db")) as database:
            kept.backup(database)

    return rewind


@pytest.mark.parametrize("repair", ["promote", "rollback"])
def test_a_kill_between_any_two_changes_of_a_promotion_loses_nobody(
    repair: str, model: Path, place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = f"killed-{repair}"
    three_releases(name, model, place)
    rewind = rewinding(place)
    for number in range(20):
        rewind()
        with monkeypatch.context() as patch:
            changes = killed_at(patch, number)
            with contextlib.suppress(Killed):
                promotion.promote(name, 3)
                break
        if repair == "promote":
            promotion.promote(name, 3)
            assert aliases(name) == {"champion": 3, "previous": 2}
            assert promotion.rollback(name).champion == 2
        else:
            served = aliases(name)["champion"]
            assert served == (2 if not changes else 3)
            assert promotion.rollback(name).champion == (1 if served == 2 else 2)
        assert TAG_MOVING not in client().get_registered_model(name).tags
    assert len(changes) == number >= 4, "every change was the last one once"


def test_a_kill_between_any_two_changes_of_a_rollback_loses_nobody(
    model: Path, place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = "killed-back"
    three_releases(name, model, place)
    rewind = rewinding(place)
    for number in range(20):
        rewind()
        with monkeypatch.context() as patch:
            changes = killed_at(patch, number)
            with contextlib.suppress(Killed):
                promotion.rollback(name)
                break
        again = promotion.promote(name, 1, by_hand=True)
        assert again.changed is (not changes), "what has begun is done"
        found = aliases(name)
        assert (found["champion"], found["previous"]) == (1, 2)
    assert len(changes) == number >= 4


def test_the_version_that_serves_is_not_marked_as_rolled_back(model: Path, place: Path) -> None:
    for number in (1, 2):
        register("marks", model, f"digest {number}", place)
        promotion.promote("marks", number)
    for champion, other in ((1, 2), (2, 1), (1, 2)):
        promotion.rollback("marks")
        tags = {release.version: release.tags for release in registry.releases("marks")}
        assert promotion.TAG_ROLLED_BACK not in tags[champion] and promotion.TAG_ROLLED_BACK in tags[other]


def registered_files(release: Release) -> list[str]:
    root = Path(release.path)
    return sorted(path.relative_to(root).as_posix() for path in root.rglob("*") if path.is_file())


@pytest.mark.parametrize("harm", ["deleted", "changed", "added"])
def test_every_file_of_a_version_is_verified_before_it_serves(
    harm: str, model: Path, place: Path, tmp_path: Path
) -> None:
    release = register(f"files-{harm}", model, "digest", place)
    files = registered_files(release)
    assert {"MLmodel", "model/model.safetensors", "model/tokenizer.json"} <= set(files)
    for name in files:
        file = Path(release.path) / name
        kept = shutil.copyfile(file, tmp_path / "kept")
        harmed = file.with_name(f"{file.name}.added") if harm == "added" else file
        if harm != "added":
            file.unlink()  # rather than written to: the model's own file may be the same
        if harm != "deleted":
            harmed.write_bytes(kept.read_bytes() + b" ")
        with pytest.raises(InputError, match="cannot serve"):
            promotion.promote(release.name, 1)
        harmed.unlink(missing_ok=True)
        if harm != "added":
            shutil.copyfile(kept, file)
    assert promotion.promote(release.name, 1).changed


def test_a_version_of_an_earlier_release_is_said_to_be_unverified(model: Path, place: Path) -> None:
    register("older", model, "digest", place)
    client().delete_model_version_tag("older", "1", registry.TAG_FILES)
    assert promotion.promote("older", 1).sentence.endswith("not verified)")


@pytest.mark.parametrize("when", ["before the first change", "after the last change"])
def test_a_promotion_that_another_machine_overtakes_says_who_serves(
    when: str, model: Path, place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The other machine has a home, and so a lock, of its own; it promotes at the worst moment."""
    name = when.replace(" ", "-")
    three_releases(name, model, place)
    # The tag is set before the first change, and deleted after the last one.
    change = "set_registered_model_tag" if when.startswith("before") else "delete_registered_model_tag"
    original = getattr(MlflowClient, change)

    def meanwhile(mlflow: MlflowClient, *arguments: Any) -> None:
        if when.startswith("after"):
            original(mlflow, *arguments)
        monkeypatch.setattr(MlflowClient, change, original)
        with monkeypatch.context() as patch:
            patch.setattr(promotion, "lock_file", lambda what: place / f"elsewhere-{what}")
            assert promotion.promote(name, 1, by_hand=True).changed
        if when.startswith("before"):
            original(mlflow, *arguments)

    monkeypatch.setattr(MlflowClient, change, meanwhile)
    with pytest.raises(RammergeError, match=r"changed by somebody else at the same time, and version 1 serves now"):
        promotion.promote(name, 3)
    assert aliases(name)["champion"] == 1
    assert TAG_MOVING not in client().get_registered_model(name).tags
    assert promotion.promote(name, 3).changed
