"""Contract: the same content is registered once, whoever asks and however many ask at once.

There is one champion at a time. Only a person undoes a rollback. Nothing is promoted whose files are gone.
"""

import json
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from rammerge.checkpoints.digest import sha256_file
from rammerge.errors import InputError
from tasks.records import registry
from tasks.records.registry import Release


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from tests.evaluation.made import write_model

    return write_model(tmp_path_factory.mktemp("model") / "merged")


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One MLflow database for the module, since making one takes seconds; each test uses names of its own."""
    return tmp_path_factory.mktemp("mlflow")


@pytest.fixture(autouse=True)
def environment(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAMMERGE_HOME", str(place))
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{place / 'mlflow.db'}")


def register(name: str, model: Path, digest: str, place: Path) -> Release:
    mlflow = registry.client()
    if (found := mlflow.get_experiment_by_name("releases")) is None:
        experiment = mlflow.create_experiment("releases", artifact_location=(place / "artifacts").as_uri())
    else:
        experiment = found.experiment_id
    run = mlflow.create_run(experiment, run_name=digest).info.run_id
    return registry.register(name, model, digest=digest, run_id=run, description="", tags={"kind": "test"})


def aliases(name: str) -> dict[str, int]:
    return {alias: release.version for release in registry.releases(name) for alias in release.aliases}


def test_promotion_moves_the_aliases_along(model: Path, place: Path) -> None:
    for number in (1, 2, 3):
        assert register("along", model, f"digest {number}", place).version == number
        assert aliases("along")["challenger"] == number
        assert registry.promote("along", number).changed
    assert aliases("along") == {"champion": 3, "previous": 2}
    again = registry.promote("along", 3)
    assert not again.changed and "already" in again.sentence
    assert aliases("along") == {"champion": 3, "previous": 2}


def test_the_same_content_is_registered_once(model: Path, place: Path) -> None:
    first = register("once", model, "same", place)
    assert register("once", model, "same", place) == first
    assert len(registry.releases("once")) == 1


def test_many_at_once_make_one_version(model: Path, place: Path) -> None:
    register("race", model, "first", place)
    with ThreadPoolExecutor(4) as pool:
        made = list(pool.map(lambda _: register("race", model, "second", place), range(4)))
    assert {release.version for release in made} == {2}
    assert len(registry.releases("race")) == 2


def test_weights_are_links_and_the_files_are_the_models(model: Path, place: Path) -> None:
    release = register("links", model, "linked", place)
    for file in model.iterdir():
        registered = Path(release.path) / "model" / file.name
        assert registered.samefile(file)
    assert not list(Path(release.path).parent.glob(".model-*")), "nothing half-made is left"


def test_rollback_swaps_and_only_a_person_undoes_it(model: Path, place: Path) -> None:
    for number in (1, 2):
        register("back", model, f"digest {number}", place)
        registry.promote("back", number)
    assert registry.rollback("back").champion == 1
    assert aliases("back") == {"champion": 1, "previous": 2}
    stays = registry.promote("back", 2)
    assert not stays.changed and "rammerge promote back 2" in stays.sentence
    assert aliases("back")["champion"] == 1
    assert registry.promote("back", 2, by_hand=True).champion == 2
    assert registry.promote("back", 1).champion == 1, "the version that was never rolled back is free"


def test_what_cannot_be_is_refused(model: Path, place: Path) -> None:
    release = register("cannot", model, "only", place)
    registry.promote("cannot", 1)
    with pytest.raises(InputError, match="no previous champion"):
        registry.rollback("cannot")
    with pytest.raises(InputError, match="no version 7; it has 1"):
        registry.promote("cannot", 7)
    with pytest.raises(InputError, match=r"no registered model is called 'canot' \(did you mean 'cannot'\?\)"):
        registry.releases("canot")
    register("cannot", model, "another", place)
    shutil.rmtree(Path(registry.releases("cannot")[0].path))
    with pytest.raises(InputError, match=r"cannot serve: .* is gone"):
        registry.promote("cannot", 2)
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
        registry.promote("damaged", 1)
    assert "champion" not in aliases("damaged")
    config.write_text(intact)
    assert registry.promote("damaged", 1).changed


def test_content_whose_files_are_gone_is_registered_anew(model: Path, place: Path) -> None:
    first = register("anew", model, "digest", place)
    shutil.rmtree(first.path)
    second = register("anew", model, "digest", place)
    assert second.version == 2 and (Path(second.path) / "MLmodel").is_file()


def test_a_kill_while_the_database_is_made_does_no_harm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    database = tmp_path / "mlflow" / "mlflow.db"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{database}")
    halfway = """if True:
        import sys, alembic.command
        def upgrade(*_):
            print("the first tables are made", flush=True)
            sys.stdin.read()
        alembic.command.upgrade = upgrade
        from tasks.records import registry
        registry.client()
    """
    command = [sys.executable, "-c", halfway]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None and process.stdout.readline() == "the first tables are made\n"
    (made,) = database.parent.glob(f".*/{database.name}")
    assert made.stat().st_size and not database.exists()
    process.kill()
    process.wait()
    assert not database.exists()
    assert registry.client().search_registered_models() == []
    assert [path.name for path in database.parent.iterdir()] == [database.name]


@pytest.mark.parametrize("query", ["", "?timeout=30"])
def test_the_database_is_made_where_its_address_says(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, query: str
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path / 'runs.db'}{query}")
    assert registry.client().search_registered_models() == []
    assert [path.name for path in tmp_path.iterdir()] == ["runs.db"]
