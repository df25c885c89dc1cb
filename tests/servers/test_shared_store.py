"""Contract: a bucket is a shared store: whole or absent, resumed, checked on arrival, and each fault is a sentence.

The store is SeaweedFS on loopback. What networks do to it, a proxy before it does.
"""

import os
import re
import signal
import socket
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from uuid import uuid4

import boto3
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rammerge import store
from rammerge.errors import InputError
from rammerge.storage import Place, open_place, try_place
from rammerge.store import entries, sharing
from tasks.records import promotion
from tests.evaluation.made import write_model
from tests.fixtures import forked
from tests.fixtures.pipeline import World
from tests.fixtures.sharing import go_to, never
from tests.fixtures.waiting import no_hanging, wait_until
from tests.servers.faulty import Proxy, Request, faulty
from tests.servers.seaweed import ObjectStore, object_store
from tests.storage.model import ACTIONS, Action, check
from tests.tasks.records.made import aliases, register

pytestmark = pytest.mark.servers
BUCKET = "shared-by-tests"
PART = 5 << 20  # the least that S3 takes
LARGE = os.urandom(3 * PART + 77)


@pytest.fixture(scope="module")
def bucket(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ObjectStore]:
    with object_store(tmp_path_factory.mktemp("seaweed")) as found, pytest.MonkeyPatch.context() as patch:
        for name, value in found.environment.items():
            patch.setenv(name, value)
        boto3.client("s3", region_name="us-east-1").create_bucket(Bucket=BUCKET)
        yield found


@pytest.fixture
def place(bucket: ObjectStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Place]:
    """An empty shared store of this process, whose home is `one`."""
    for name, value in bucket.environment.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr("rammerge.storage.multipart.PART", PART)
    monkeypatch.setattr("rammerge.storage.bucket.PART", PART)
    go_to(tmp_path / "one", monkeypatch)
    sharing.opened.cache_clear()
    found = open_place(f"s3://{BUCKET}/{uuid4().hex}")
    store.share(found.url)
    yield found
    store.share(None)


def write(directory: Path) -> None:
    (directory / "weights").write_bytes(LARGE)
    (directory / "report.json").write_text("{}")


@settings(max_examples=8)
@given(actions=st.lists(ACTIONS, max_size=8))
def test_it_holds_what_a_dictionary_would(actions: list[Action], place: Place, tmp_path: Path) -> None:
    check(open_place(f"{place.url}/{uuid4().hex}"), actions, tmp_path / "file")


def test_what_one_machine_made_another_finds(place: Place, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = store.materialise("merge", "k", write)
    go_to(tmp_path / "two", monkeypatch)
    found = store.materialise("merge", "k", never)
    assert found.digest == made.digest and (found.path / "weights").read_bytes() == LARGE
    assert len(list(place.list("merge/k/"))) == 2


def test_a_flipped_bit_is_refused_and_said_and_made_anew(
    place: Place, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    store.materialise("merge", "k", write)
    weights = next(each for each in place.list("merge/k/") if each.size == len(LARGE))
    flipped = bytearray(LARGE)
    flipped[PART] ^= 1
    (tmp_path / "flipped").write_bytes(flipped)
    place.put(weights.name, tmp_path / "flipped")
    go_to(tmp_path / "two", monkeypatch)
    assert not store.materialise("merge", "k", write).reused
    assert "its file weights does not have the SHA-256" in caplog.text
    go_to(tmp_path / "three", monkeypatch)
    assert store.materialise("merge", "k", never).reused


UPLOAD = textwrap.dedent(
    """
    import sys
    from pathlib import Path
    from rammerge.storage import bucket, multipart, open_place
    multipart.PART = bucket.PART = int(sys.argv[3])
    open_place(sys.argv[1]).put("merge/k/large", Path(sys.argv[2]))
    """
)


def parts(requests: list[Request]) -> list[Request]:
    return [request for request in requests if request.method == "PUT" and "partNumber=" in request.path]


def test_an_upload_that_was_killed_goes_on(place: Place, bucket: ObjectStore, tmp_path: Path) -> None:
    (tmp_path / "large").write_bytes(LARGE)
    command = [sys.executable, "-c", UPLOAD, place.url, str(tmp_path / "large"), str(PART)]

    def let_two_through(request: Request) -> str | None:
        return "hang" if "partNumber=" in request.path and len(parts(proxy.passed)) >= 2 else None

    with faulty(bucket.endpoint, let_two_through) as proxy, no_hanging():
        killed = subprocess.Popen(command, env=os.environ | {"AWS_ENDPOINT_URL": proxy.url})
        wait_until(lambda: len(parts(proxy.done)) >= 2, "two parts")
        killed.send_signal(signal.SIGKILL)
        killed.wait()
    assert place.size("merge/k/large") is None
    with faulty(bucket.endpoint) as proxy:
        subprocess.run(command, env=os.environ | {"AWS_ENDPOINT_URL": proxy.url}, check=True)
        assert 0 < len(parts(proxy.passed)) <= 3  # of four
    (tmp_path / "back").touch()
    assert place.get("merge/k/large", tmp_path / "back") and (tmp_path / "back").read_bytes() == LARGE


def through(proxy: Proxy, place: Place, monkeypatch: pytest.MonkeyPatch) -> Place:
    monkeypatch.setenv("AWS_ENDPOINT_URL", proxy.url)
    return open_place(place.url)


def test_errors_of_the_server_are_tried_again(
    place: Place, bucket: ObjectStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    refused: list[str] = []

    def busy(request: Request) -> int | None:
        if refused.count(request.method) < 3:
            refused.append(request.method)
            return 500 if len(refused) % 2 else 503
        return None

    (tmp_path / "large").write_bytes(LARGE)
    with faulty(bucket.endpoint, busy) as proxy:
        shaky = through(proxy, place, monkeypatch)
        shaky.put("large", tmp_path / "large")
        assert shaky.create("small", b"content") and not shaky.create("small", b"other")
        assert shaky.get("large", tmp_path / "back") and shaky.read("small") == b"content"
    assert (tmp_path / "back").read_bytes() == LARGE
    assert {"GET", "PUT", "HEAD", "POST"} >= set(refused) >= {"GET", "PUT"}


def test_an_answer_that_is_cut_off_is_asked_for_from_there(
    place: Place, bucket: ObjectStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "large").write_bytes(LARGE)
    place.put("large", tmp_path / "large")
    cuts: list[str] = []

    def cut(request: Request) -> str | None:
        if request.method == "GET" and "range" in request.headers and len(cuts) < 3:
            cuts.append(request.headers["range"])
            return "cut"
        return None

    with faulty(bucket.endpoint, cut) as proxy:
        assert through(proxy, place, monkeypatch).get("large", tmp_path / "back")
    assert (tmp_path / "back").read_bytes() == LARGE
    assert cuts[0] == "bytes=0-" and len(set(cuts)) == 3


FAULTS: dict[str, tuple[Callable[[Request], int | str | None], str]] = {
    "hanging": (lambda _: "hang", "does not answer in time; check AWS_ENDPOINT_URL"),
    "refuses conditions": (
        lambda request: 501 if "if-none-match" in request.headers else None,
        "refuses conditional writes",
    ),
    "ignores conditions": (lambda _: "unconditional", "ignores the condition of a write"),
    "ill": (lambda request: 500 if request.method == "PUT" else None, "answers 500"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_each_fault_of_a_store_is_a_sentence_before_the_run(
    fault: str, place: Place, bucket: ObjectStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    behaviour, sentence = FAULTS[fault]
    with faulty(bucket.endpoint, behaviour) as proxy:
        monkeypatch.setenv("AWS_ENDPOINT_URL", proxy.url)
        with pytest.raises(InputError, match=f"the shared store {place.url} {sentence}"):
            try_place(place.url)


def test_each_fault_of_an_address_is_a_sentence(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    try_place(place.url)
    with pytest.raises(InputError, match="s3://not-made-yet does not exist: there is no such bucket"):
        try_place("s3://not-made-yet")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "wrong")
    with pytest.raises(InputError, match=r"denies access \(403\); check AWS_ACCESS_KEY_ID"):
        try_place(place.url)
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))  # nothing listens there
        monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{closed.getsockname()[1]}")
        with pytest.raises(InputError, match="cannot be reached; check AWS_ENDPOINT_URL and the network"):
            try_place(place.url)


def test_versions_in_a_bucket_are_promoted_and_rolled_back_to_after_all_their_files_were_read(
    place: Place, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path / 'mlflow.db'}")
    model = write_model(tmp_path / "model")
    versions = [register("tiny", model, f"digest {number}", place.url) for number in (1, 2, 3)]
    assert all(version.path.startswith(f"{place.url}/artifacts/") for version in versions)
    for number in (1, 2):
        assert promotion.promote("tiny", number).sentence.startswith(f"tiny version {number} is champion now")
    assert promotion.rollback("tiny").champion == 1
    (tmp_path / "other").write_bytes(b"\0" * (model / "model.safetensors").stat().st_size)
    open_place(versions[2].path).put("model/model.safetensors", tmp_path / "other")
    with pytest.raises(InputError, match=r"version 3 cannot serve: .*/model/model.safetensors differs from what was"):
        promotion.promote("tiny", 3, by_hand=True)
    open_place(versions[1].path).delete("model/config.json")
    with pytest.raises(InputError, match=r"version 2 cannot serve: .*/model/config.json is missing"):
        promotion.promote("tiny", 2, by_hand=True)
    assert aliases("tiny")["champion"] == 1


def test_a_bucket_is_pruned_and_what_is_put_there_again_is_whole(
    place: Place, bucket: ObjectStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("rammerge.store.withdrawing._GRACE", 0.0)

    def prune() -> store.Withdrawn:
        time.sleep(1.1)  # a bucket's times may be whole seconds
        return store.prune_shared(place.url, unused_days=0)

    store.materialise("merge", "old", write)
    store.materialise("merge", "kept", write)
    store.note_uses([entries.root() / "merge" / "kept" / "weights"])
    client = boto3.client("s3", endpoint_url=bucket.endpoint, region_name="us-east-1")
    prefix = place.url.removeprefix(f"s3://{BUCKET}/")
    for name in ("merge/old/cut-off", "mlflow/cut-off"):
        client.create_multipart_upload(Bucket=BUCKET, Key=f"{prefix}/{name}")
    assert prune().entries == {"merge": 1}
    assert not store.has("merge", "old") and len(list(place.list("merge/old/"))) == 2
    left = client.list_multipart_uploads(Bucket=BUCKET, Prefix=prefix)["Uploads"]
    assert [each["Key"] for each in left] == [f"{prefix}/mlflow/cut-off"], "what is MLflow's stays"
    assert prune().freed > len(LARGE) and not list(place.list("merge/old/"))
    go_to(tmp_path / "two", monkeypatch)
    assert store.materialise("merge", "kept", never).reused
    store.materialise("merge", "old", write)
    go_to(tmp_path / "three", monkeypatch)
    assert store.materialise("merge", "old", never).reused


def run(world: World, home: Path, bucket: ObjectStore, *words: str) -> str:
    """Run a command as on a machine with that home, and return what it prints."""
    world.home = home
    return forked.finish(world.environment() | bucket.environment, *words)


def test_a_second_machine_finds_everything_done(place: Place, bucket: ObjectStore, tmp_path: Path) -> None:
    world = World(tmp_path / "world")
    world.write(store={"shared": place.url, "cache": "1KB"}, merges=["ram"])
    checked = run(world, tmp_path / "one", bucket, "check", str(world.recipe))
    assert f"shared store: {place.url} answers" in checked
    first = steps(run(world, tmp_path / "one", bucket, "run", str(world.recipe)))
    second = steps(run(world, tmp_path / "two", bucket, "run", str(world.recipe)))
    here = {name for name in second if name.startswith(("fetch", "record", "register", "promote"))}
    assert {name for name, how in second.items() if how != "cached"} == here
    assert second.keys() == first.keys() and len(here) == 6 < len(second)


def steps(printed: str) -> dict[str, str]:
    """Return how each step ended, as the command prints it."""
    found = re.findall(r"^ *\d+/\d+  (.{40}) (done|cached|failed|skipped)", printed, re.MULTILINE)
    return {name.strip(): how for name, how in found}
