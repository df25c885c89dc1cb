"""Contract: versions are removed only if they have no alias and are not among the newest, with their files."""

import shutil
from pathlib import Path

from tasks.records import registry
from tasks.records.connection import client
from tasks.records.promotion import promote
from tasks.records.retiring import retire
from tests.tasks.records.made import register


def versions(name: str) -> set[int]:
    return {release.version for release in registry.releases(name)}


def test_old_versions_go_and_those_with_an_alias_stay(model: Path, place: Path) -> None:
    made = [register("old", model, f"content {number}", place) for number in range(6)]
    promote("old", 1)
    promote("old", 2)
    client().create_registered_model("theirs")
    client().create_model_version("theirs", source=made[0].path)
    dry = retire(1, dry_run=True)
    assert versions("old") == {1, 2, 3, 4, 5, 6}
    assert retire(1) == dry and sorted(dry.versions) == [("old", 3), ("old", 4), ("old", 5)]
    assert versions("old") == {1, 2, 6}, "previous, champion, challenger"
    assert versions("theirs") == {1}, "which rammerge did not register"
    assert [Path(release.path).exists() for release in made] == [True, True, False, False, False, True]
    assert dry.freed > 0
    assert retire(0).versions == [] and retire(0).sentence == "removed no registered version"


def test_a_kill_between_files_and_version_is_made_good(model: Path, place: Path) -> None:
    first, second = (register("killed", model, f"content {number}", place) for number in range(2))
    client().delete_registered_model_alias("killed", "challenger")

    shutil.rmtree(first.path)
    assert ("killed", 1) in retire(1).versions
    assert versions("killed") == {second.version}
