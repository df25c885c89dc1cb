"""Contract: the same content is registered once, whoever asks and however many ask at once, by reference."""

import shutil
import signal
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from tasks.records import registry
from tests.tasks.records.made import register


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


def test_content_whose_files_are_gone_is_registered_anew(model: Path, place: Path) -> None:
    first = register("anew", model, "digest", place)
    shutil.rmtree(first.path)
    second = register("anew", model, "digest", place)
    assert second.version == 2 and (Path(second.path) / "MLmodel").is_file()


def test_what_a_kill_while_registering_left_is_removed_by_the_next(model: Path, place: Path) -> None:
    killed = """if True:
        import os, signal, sys
        from pathlib import Path
        import tasks.records.layout
        tasks.records.layout.list_files = lambda *_: os.kill(os.getpid(), signal.SIGKILL)
        from tests.tasks.records.made import register
        register("half", Path(sys.argv[1]), "digest", Path(sys.argv[2]))
    """
    process = subprocess.run([sys.executable, "-c", killed, model, place])
    assert process.returncode == -signal.SIGKILL
    (scratch,) = place.glob("artifacts/*/artifacts/.model-*")
    release = register("other", model, "digest", place)
    assert not scratch.exists()
    assert sorted(path.name for path in Path(release.path).parent.iterdir()) == ["model"]
