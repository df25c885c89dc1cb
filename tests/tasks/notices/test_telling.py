"""Contract: whoever wants to hear of a happening does, signed, and nothing that goes wrong there fails a run."""

import base64
import hashlib
import hmac
import json
import socket
from collections.abc import Iterator
from typing import Any

import pytest

from rammerge.recipe import Notify
from tasks.notices.notice import Notice
from tasks.notices.telling import tell
from tests.fixtures.hooks import Receiver, receiving

NOTICE = Notice(event="promoted", recipe="zoo", model="zoo", version=3, sentence="zoo version 3 is champion now")


@pytest.fixture
def receiver(monkeypatch: pytest.MonkeyPatch) -> Iterator[Receiver]:
    monkeypatch.setenv("RAMMERGE_BACKOFF_SECONDS", "0.01")
    monkeypatch.setenv("HOOK_SECRET", "shared-secret")
    with receiving() as receiver:
        yield receiver


def test_a_post_is_json_and_its_signature_covers_id_time_and_body(receiver: Receiver) -> None:
    assert tell([Notify(url=receiver.url, secret="HOOK_SECRET")], NOTICE) == []
    ((headers, body),) = receiver.posts
    content = json.loads(body)
    assert content == {
        "schema_version": 1,
        "event": "promoted",
        "recipe": "zoo",
        "model": "zoo",
        "version": 3,
        "sentence": "zoo version 3 is champion now",
        "run": "",
        "report": "",
        "at": content["at"],
    }
    signed = f"{headers['X-Rammerge-Delivery-Id']}.{headers['X-Rammerge-Timestamp']}.".encode() + body
    expected = base64.b64encode(hmac.new(b"shared-secret", signed, hashlib.sha256).digest()).decode()
    assert headers["X-Rammerge-Signature"] == f"v1,{expected}"


def test_only_those_who_listen_for_the_event_are_told(receiver: Receiver) -> None:
    assert tell([Notify(url=receiver.url, events=["failed"])], NOTICE) == [] == receiver.posts
    assert tell([Notify(url=receiver.url)], NOTICE) == []
    assert "X-Rammerge-Signature" not in receiver.posts[0][0]


@pytest.mark.parametrize(
    ("statuses", "posts", "told"), [([503, 429], 3, True), ([500] * 3, 3, False), ([400], 1, False)]
)
def test_a_busy_server_is_asked_again_and_a_refusal_is_final(
    statuses: list[int], posts: int, told: bool, receiver: Receiver
) -> None:
    receiver.statuses[:] = statuses
    problems = tell([Notify(url=receiver.url)], NOTICE)
    assert len(receiver.posts) == posts and (problems == []) == told
    assert all("answers with status" in problem and "a-secret-path" not in problem for problem in problems)


def test_nobody_there_is_a_sentence_and_the_others_are_told(receiver: Receiver) -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        away = f"http://127.0.0.1:{unused.getsockname()[1]}/"
        (problem,) = tell([Notify(url=away), Notify(url=receiver.url)], NOTICE)
    assert problem == "the webhook at 127.0.0.1 does not answer (ConnectError); it was not told that zoo: promoted"
    assert len(receiver.posts) == 1


@pytest.mark.parametrize(
    ("url", "variables"),
    [
        ("http://[::1/", {}),
        ("http://localhost/", {"http_proxy": "nonsense://proxy"}),
        ("https://localhost/", {"SSL_CERT_FILE": "/nowhere/certificates.pem"}),
    ],
)
def test_an_address_or_an_environment_that_cannot_be_is_a_sentence(
    url: str, variables: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("no_proxy", raising=False)
    monkeypatch.delenv("NO_PROXY", raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("HOOK_TOKEN_URL", url)
    (problem,) = tell([Notify(url="$HOOK_TOKEN_URL")], NOTICE)
    assert problem.endswith("; it was not told that zoo: promoted") and "cannot be asked" in problem


def test_an_address_may_be_a_secret_of_the_environment(receiver: Receiver, monkeypatch: pytest.MonkeyPatch) -> None:
    hook = Notify(url="$HOOK_TOKEN_URL")
    assert tell([hook], NOTICE) == ["the environment variable HOOK_TOKEN_URL is not set, so nobody is told; set it"]
    monkeypatch.setenv("HOOK_TOKEN_URL", "file:///etc/passwd")
    assert "holds no http:// or https:// address" in tell([hook], NOTICE)[0]
    monkeypatch.setenv("HOOK_TOKEN_URL", receiver.url)
    assert tell([hook], NOTICE) == [] and len(receiver.posts) == 1


@pytest.mark.usefixtures("prefect_api")
def test_a_block_of_prefects_sends_it() -> None:
    from prefect.blocks.abstract import NotificationBlock

    sent: list[tuple[str, str | None]] = []

    class Remembering(NotificationBlock):
        _block_type_slug = "remembering"

        async def notify(self, body: str, subject: str | None = None) -> None:
            sent.append((body, subject))

    saved: Any = Remembering()
    saved.save("mlops", overwrite=True)
    assert tell([Notify(block="remembering/mlops")], NOTICE) == []
    assert sent == [("zoo version 3 is champion now", "zoo: promoted")]
    (problem,) = tell([Notify(block="remembering/nobody")], NOTICE)
    assert problem.startswith("the Prefect block remembering/nobody could not send 'zoo: promoted'")
