"""Contract: a shared directory keeps objects whole, goes on with what was cut off, and lets one of many writers win."""

import os
import shutil
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NoReturn

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rammerge.errors import InputError
from rammerge.storage import Place, PlaceError, directory, open_place, try_place
from rammerge.system.home import this_home
from tests.storage.model import ACTIONS, Action, check


@pytest.fixture
def place(tmp_path: Path) -> Place:
    (tmp_path / "shared").mkdir()
    return open_place(str(tmp_path / "shared"))


@settings(max_examples=25)
@given(actions=st.lists(ACTIONS, max_size=12))
def test_it_holds_what_a_dictionary_would(actions: list[Action], tmp_path: Path) -> None:
    shutil.rmtree(tmp_path / "shared", ignore_errors=True)
    check(open_place(str(tmp_path / "shared")), actions, tmp_path / "file")


@pytest.mark.parametrize("left", [b"", b"0123", b"01xx", b"0123456789", b"0123456789abc"])
def test_an_upload_goes_on_where_a_killed_one_ended_if_the_bytes_are_the_same(
    left: bytes, place: Place, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(directory, "_BLOCK", 2)
    (tmp_path / "file").write_bytes(b"0123456789")
    (tmp_path / "shared" / f".name.{this_home()}").write_bytes(left)
    place.put("name", tmp_path / "file")
    assert place.read("name") == b"0123456789"
    assert [stored.name for stored in place.list("")] == ["name"]


def test_a_download_appends_what_is_missing(place: Place, tmp_path: Path) -> None:
    place.create("name", b"0123456789")
    (tmp_path / "here").write_bytes(b"xyz")  # not compared: whoever asks knows the SHA-256 of the whole
    assert place.get("name", tmp_path / "here")
    assert (tmp_path / "here").read_bytes() == b"xyz3456789"


def test_what_others_remove_meanwhile_is_not_listed(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("merge/one/manifest.json", "merge/two/manifest.json"):
        place.create(name, b"{}")
    scan = os.scandir

    def remove_and_scan(path: str | Path) -> Any:
        if str(path).endswith("/two"):
            shutil.rmtree(path)
        return scan(path)

    monkeypatch.setattr(os, "scandir", remove_and_scan)
    assert [stored.name for stored in place.list("merge/")] == ["merge/one/manifest.json"]


def test_a_directory_that_cannot_be_listed_is_an_error(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    """Else pruning would take what is not seen for what nobody wants."""
    place.create("merge/one/manifest.json", b"{}")

    def fail(_: object) -> NoReturn:
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(os, "scandir", fail)
    with pytest.raises(PlaceError, match="cannot be used"):
        list(place.list("merge/"))


def test_of_many_writers_one_wins(place: Place) -> None:
    contents = [bytes([number]) for number in range(8)]
    with ThreadPoolExecutor(8) as pool:
        won = list(pool.map(lambda content: place.create("name", content), contents))
    assert [content for content, has in zip(contents, won, strict=True) if has] == [place.read("name")]


def test_who_is_alone_keeps_others_waiting(place: Place, tmp_path: Path) -> None:
    other, order = open_place(str(tmp_path / "shared")), []

    def follow() -> None:
        with other.alone("merge/k"):
            order.append("second")

    with ThreadPoolExecutor(1) as pool:
        with place.alone("merge/k"), place.alone("merge/other"):
            waiting = pool.submit(follow)
            order.append("first")
        waiting.result()
    assert order == ["first", "second"]


def test_a_place_is_tried_and_left_as_it_was(place: Place, tmp_path: Path) -> None:
    try_place(place.url)
    assert list(place.list("")) == []
    with pytest.raises(InputError, match="lost is not a directory; make it, or check whether it is mounted"):
        try_place(str(tmp_path / "lost"))
    with pytest.raises(
        InputError, match="gs://bucket is not a place to share; give a directory, or s3://BUCKET/PREFIX"
    ):
        try_place("gs://bucket")
    with pytest.raises(InputError, match="s3:///prefix names no bucket"):
        try_place("s3:///prefix")


def test_what_the_disk_refuses_is_a_sentence_about_the_place(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("no directory")
    with pytest.raises(PlaceError, match=r"store .*file cannot be used \(Not a directory\); check the mount"):
        open_place(str(tmp_path / "file")).create("a/b", b"")
