"""Contract: only what served is pushed to a hub: private, tagged with its version, whole, resumed after a failure."""

import threading
from collections.abc import Iterator
from http.server import ThreadingHTTPServer
from pathlib import Path

import pytest
from huggingface_hub import _commit_api, constants

from rammerge.errors import InputError, RammergeError
from tasks.records import promotion
from tasks.records.pushing import push
from tasks.records.registry import get_release
from tests.fixtures.hub_writing import Handler, Uploads
from tests.tasks.records.made import register

REPO = "org/merged"


@pytest.fixture
def uploads(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Uploads]:
    uploads = Uploads(tmp_path / "hub", token="hf_writes_here")

    class Here(Handler):
        pass

    Here.uploads = uploads
    server = ThreadingHTTPServer(("127.0.0.1", 0), Here)
    Here.url = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    monkeypatch.setattr(constants, "ENDPOINT", Here.url)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(_commit_api, "is_xet_available", lambda: False)  # this hub takes uploads by LFS only
    monkeypatch.setenv("HF_TOKEN", uploads.token)
    try:
        yield uploads
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def pushed_files(name: str, version: int) -> dict[str, bytes]:
    root = Path(get_release(name, version).path) / "model"
    return {path.relative_to(root).as_posix(): path.read_bytes() for path in root.rglob("*") if path.is_file()}


def test_the_champion_is_pushed_private_and_tagged(model: Path, place: Path, uploads: Uploads) -> None:
    register("pushed", model, "one", place)
    with pytest.raises(InputError, match="has no champion to push"):
        push("pushed", None, REPO)
    with pytest.raises(InputError, match="was never promoted"):
        push("pushed", 1, REPO)
    promotion.promote("pushed", 1)
    (uploads.root / REPO).mkdir(parents=True)
    (uploads.root / REPO / "model-00001-of-00009.safetensors").write_bytes(b"of an earlier version")
    assert push("pushed", None, REPO).sentence == "pushed version 1 is at org/merged@v1"
    assert uploads.visibility == {REPO: "private"} and uploads.commits == ["pushed version 1"]
    assert uploads.files(REPO) == pushed_files("pushed", 1)
    assert list(uploads.tags) == [f"{REPO}@v1"]
    assert push("pushed", 1, REPO).sentence.endswith("already") and len(uploads.commits) == 1


def test_a_push_that_failed_goes_on_where_it_was(model: Path, place: Path, uploads: Uploads) -> None:
    register("again", model, "one", place)
    promotion.promote("again", 1)
    uploads.broken = 1
    with pytest.raises(RammergeError):
        push("again", 1, REPO)
    assert uploads.commits == [] and "rammerge.pushed" not in get_release("again", 1).tags
    push("again", 1, REPO)
    received = list(uploads.received)
    push("again", 1, "org/other")
    assert uploads.received == received, "what the hub has is not uploaded again"
    assert uploads.files("org/other") == pushed_files("again", 1)


def test_a_token_that_may_not_write_is_one_sentence(
    model: Path, place: Path, uploads: Uploads, monkeypatch: pytest.MonkeyPatch
) -> None:
    register("secret", model, "one", place)
    promotion.promote("secret", 1)
    monkeypatch.setenv("HF_TOKEN", f"not {uploads.token}")
    with pytest.raises(InputError, match=r"does not let this user write to org/merged \(403\); set HF_TOKEN"):
        push("secret", 1, REPO)
