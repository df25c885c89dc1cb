"""Contract: machines with one shared store make an entry once, and get the very bytes that were put there, or none."""

import base64
import json
import os
import signal
import subprocess
import sys
import textwrap
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from hashlib import sha256
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rammerge import store
from rammerge.storage import PlaceError, directory
from rammerge.store import entries, pruning, sharing
from rammerge.store.parcels import DamagedError, Parcel
from tests.fixtures.sharing import LARGE, go_to, never, shared_directory
from tests.fixtures.waiting import no_hanging


@pytest.fixture(autouse=True)
def shared(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    with shared_directory(tmp_path, monkeypatch) as directory:
        yield directory


def write(directory: Path) -> None:
    (directory / "model").mkdir(exist_ok=True)
    (directory / "model" / "weights").write_bytes(LARGE)
    (directory / "report.json").write_text("{}")


def writing(name: str, text: str) -> Callable[[Path], None]:
    def build(directory: Path) -> None:
        (directory / name).write_text(text)

    return build


def test_what_one_machine_made_another_finds(shared: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = store.materialise("merge", "k", write)
    go_to(shared.parent / "two", monkeypatch)
    assert store.find("merge", "k") is None and store.has("merge", "k")
    found = store.materialise("merge", "k", never)
    assert (found.reused, found.digest, found.seconds) == (True, made.digest, made.seconds)
    assert found.path != made.path and (found.path / "model" / "weights").read_bytes() == LARGE
    assert store.bring("merge", "k") == store.find("merge", "k")
    assert not list(entries.root().rglob("*-incoming"))


def test_scratch_and_what_is_true_of_one_machine_stay_there(shared: Path) -> None:
    for kind in ("trial-model", "fetch", "register"):
        store.materialise(kind, "k", write)
    assert list(shared.iterdir()) == []


def test_an_entry_is_one_object_if_it_is_small(shared: Path) -> None:
    store.materialise("gate", "k", writing("decision.json", "{}"))
    store.materialise("merge", "k", write)
    names = {path.name for path in (shared / "gate" / "k").iterdir()}
    assert names == {"manifest.json"}
    assert len(list((shared / "merge" / "k").iterdir())) == 2


def test_what_a_killed_process_had_received_is_not_asked_for_again(
    shared: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = store.materialise("merge", "k", write)
    go_to(shared.parent / "two", monkeypatch)
    incoming = entries.staging_path("merge", "k-incoming")
    (incoming / "model").mkdir(parents=True)
    (incoming / "model" / "weights").write_bytes(LARGE[:1000])
    (incoming / "stray").write_text("of a different output")
    begun: list[int] = []
    get = directory.Directory.get

    def note(place: directory.Directory, name: str, file: Path) -> bool:
        begun.append(file.stat().st_size)
        return get(place, name, file)

    monkeypatch.setattr(directory.Directory, "get", note)
    assert store.materialise("merge", "k", never).digest == made.digest
    assert begun == [1000]
    assert store.find("merge", "k")


def flip(file: Path) -> None:
    content = bytearray(file.read_bytes())
    content[1000] ^= 1
    file.write_bytes(content)


def swap(shared: Path) -> None:
    manifest = shared / "merge" / "k" / "manifest.json"
    described = json.loads(manifest.read_text())
    described["files"]["report.json"]["content"] = base64.b64encode(b"[]").decode()
    manifest.write_text(json.dumps(described))


def weights(shared: Path) -> Path:
    return next(path for path in (shared / "merge" / "k").iterdir() if path.name != "manifest.json")


@pytest.mark.parametrize(
    ("damage", "reason"),
    [
        (lambda shared: flip(weights(shared)), "model/weights does not have the SHA-256"),
        (lambda shared: weights(shared).write_bytes(LARGE[:-1]), "model/weights does not have the SHA-256"),
        (lambda shared: weights(shared).unlink(), "model/weights is missing"),
        (swap, "report.json does not have the SHA-256"),
        (lambda shared: (shared / "merge" / "k" / "manifest.json").write_text("{"), "its manifest cannot be read"),
    ],
    ids=["bit", "cut", "lost", "small file", "manifest"],
)
def test_a_wrong_file_is_refused_and_said_and_made_anew_for_all(
    damage: Callable[[Path], object],
    reason: str,
    shared: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    store.materialise("merge", "k", write)
    damage(shared)
    go_to(shared.parent / "two", monkeypatch)
    assert not store.materialise("merge", "k", write).reused
    assert reason in caplog.text and "is not used, and removed there" in caplog.text
    assert not list(entries.root().rglob("*-incoming"))
    go_to(shared.parent / "three", monkeypatch)
    assert store.materialise("merge", "k", never).reused


@pytest.mark.parametrize("name", ["../../../elsewhere", "/etc/elsewhere", ".manifest", "model/../../elsewhere", ""])
def test_no_name_leads_out_of_an_entry(name: str) -> None:
    described = {"files": {name: {"size": 0, "sha256": "0", "content": ""}}, "seconds": None}
    with pytest.raises(DamagedError, match="would not be a part of it"):
        Parcel.read(json.dumps(described).encode())


@given(files=st.dictionaries(st.sampled_from(["a", "b/c", "b/d.json", "ü"]), st.binary(max_size=9)))
def test_a_parcel_is_read_as_it_was_written(files: dict[str, bytes]) -> None:
    known = {
        name: {"size": len(each), "sha256": sha256(each).hexdigest(), "content": base64.b64encode(each).decode()}
        for name, each in files.items()
    }
    parcel = Parcel.read(json.dumps({"files": known, "seconds": 1.5}).encode())
    assert Parcel.read(parcel.to_json()) == parcel and parcel.is_alike(parcel.to_json())
    assert {item.name: item.content for item in parcel.files} == files


def test_of_two_outputs_of_one_key_the_first_is_everybodys(shared: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(directory.Directory, "alone", lambda *_: nullcontext())  # as in a bucket

    def measure(out: Path) -> None:
        go_to(shared.parent / "two", monkeypatch)  # meanwhile
        store.materialise("suite", "k", writing("seconds", "1"))
        go_to(shared.parent / "one", monkeypatch)
        (out / "seconds").write_text("2")

    mine = store.materialise("suite", "k", measure)
    assert not mine.reused and (mine.path / "seconds").read_text() == "1"
    assert store.find("suite", "k") == store.materialise("suite", "k", never)


def test_a_store_that_is_away_costs_a_warning_and_gets_the_entry_later(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def away(*_: object) -> bool:
        raise PlaceError("the shared store is away")

    with monkeypatch.context() as broken:
        broken.setattr(directory.Directory, "create", away)
        assert not store.materialise("merge", "k", write).reused
        assert caplog.text.count("the shared store is away; going on without it") == 1
        assert not store.is_pending("merge", "k")  # nobody asks it again at once
    monkeypatch.setattr(sharing._Present, "away_until", 0.0)
    assert store.is_pending("merge", "k")
    assert store.materialise("merge", "k", never).reused
    assert not store.is_pending("merge", "k") and store.has("merge", "k")


def test_what_is_not_valid_on_a_machine_is_made_anew_for_all(shared: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store.materialise("merge", "k", writing("old", ""))
    go_to(shared.parent / "two", monkeypatch)
    entry = store.materialise("merge", "k", write, valid=lambda entry: "report.json" in entry.files)
    assert not entry.reused
    go_to(shared.parent / "three", monkeypatch)
    assert store.materialise("merge", "k", never).digest == entry.digest


MAKER = textwrap.dedent(
    """
    import sys
    from rammerge import store
    def build(directory):
        print("building", flush=True)
        sys.stdin.readline()
        (directory / "by").write_text(sys.argv[1])
    entry = store.materialise("merge", "k", build)
    print(entry.reused, (entry.path / "by").read_text(), flush=True)
    """
)


def make(name: str, shared: Path) -> "subprocess.Popen[str]":
    home = {"RAMMERGE_HOME": str(shared.parent / name), sharing.VARIABLE: str(shared)}
    command = [sys.executable, "-c", MAKER, name]
    return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=os.environ | home)


def test_two_homes_with_one_directory_make_an_entry_together(shared: Path) -> None:
    first = make("first", shared)
    with no_hanging():
        assert first.stdout is not None and first.stdout.readline() == "building\n"
        second = make("second", shared)  # waits, or comes too late: it does not build in either case
        assert first.communicate("\n")[0] == "False first\n"
        assert second.communicate("\n")[0] == "True first\n"


def test_a_killed_maker_keeps_nobody_of_another_home_waiting(shared: Path) -> None:
    killed = make("killed", shared)
    with no_hanging():
        assert killed.stdout is not None and killed.stdout.readline() == "building\n"
        killed.send_signal(signal.SIGKILL)
        killed.communicate()
        second = make("second", shared)
        assert second.communicate("\n")[0] == "building\nFalse second\n"


def test_copies_are_dropped_while_others_finish_what_they_made(monkeypatch: pytest.MonkeyPatch) -> None:
    for key in ("one", "other"):
        store.materialise("merge", key, write)
    half = entries.staging_path("merge", "half")
    half.mkdir()
    used = pruning._used

    def finish(path: Path) -> float:
        if path == half:
            half.rmdir()
        return used(path)

    monkeypatch.setattr(pruning, "_used", finish)
    entries.hold.cache_clear()
    assert store.trim(0) > 0 and not half.exists()


def test_copies_of_what_the_shared_store_has_go_first_that_were_used_longest_ago() -> None:
    for number, key in enumerate(["in use", "old", "kept", "new", "alone"]):
        path = store.materialise("merge" if key != "alone" else "unpacked", key, write).path
        os.utime(path / ".manifest", (number, number))
    entries.hold.cache_clear()
    code = "from rammerge import store; assert store.find('merge', 'in use'); print('using', flush=True); input()"
    user = subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    with no_hanging():
        assert user.stdout is not None and user.stdout.readline() == "using\n"
    kept = entries.root() / "merge" / "kept" / "model"
    os.utime(entries.root() / "merge" / "in use" / ".manifest", (0, 0))
    assert store.trim(2 * len(LARGE), keep=[kept / "weights"]) > 2 * len(LARGE)
    assert {path.name for path in entries.root().glob("*/[!.]*")} == {"in use", "kept", "alone"}
    user.communicate("\n")
    assert store.materialise("merge", "old", never).reused  # it comes back
