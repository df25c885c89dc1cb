"""Contract: there is one champion at a time, only a person undoes a rollback, and nothing damaged serves."""

import json
import shutil
from pathlib import Path

import pytest

from rammerge.checkpoints.digest import sha256_file
from rammerge.errors import InputError
from tasks.records import promotion, registry
from tests.tasks.records.made import aliases, register


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
