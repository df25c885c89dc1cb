"""A model on a server answers every question in its place, or the run stops with a sentence: no answer is made up.

What may pass (a busy server, a dropped connection, garbage from a proxy) is asked again; what cannot is said at once.
"""

from collections.abc import Iterator
from typing import Any

import pytest

from evaluation.backends import served
from evaluation.backends.served import Endpoint, Served
from rammerge.errors import InputError, RammergeError
from tests.fixtures.answering import Answering, answering
from tests.fixtures.waiting import wait_until

NOWHERE = "http://127.0.0.1:1/v1"


@pytest.fixture(autouse=True)
def no_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(served, "_FIRST_WAIT", 0.01)


@pytest.fixture
def server() -> Iterator[Answering]:
    with answering() as there:
        yield there


def model(server: Answering, concurrency: int = 8, retries: int = 5, timeout: float = 30.0) -> Served:
    return Served(Endpoint(server.url, "tiny", concurrency, retries, timeout))


def questions(count: int) -> list[dict[str, str]]:
    return [{"prompt": f"question {number}"} for number in range(count)]


def test_answers_come_in_the_order_of_the_questions_and_never_more_are_asked_at_once(server: Answering) -> None:
    asked = questions(40)

    def answer(question: dict[str, Any]) -> str:
        wait_until(lambda: server.most >= 3, "three questions at once")
        return str(question["prompt"])

    server.answer = answer
    answers = model(server, concurrency=3).generate("completions", asked)

    assert answers == [each["prompt"] for each in asked]
    assert server.most == 3


@pytest.mark.parametrize("fault", ["drop", "garbage", "empty", "null", "slow", 408, 429, 500, 502, 503, 504])
def test_what_may_pass_is_asked_again(server: Answering, fault: int | str) -> None:
    server.faults = [fault, fault]

    answers = model(server, concurrency=1, timeout=1.0 if fault == "slow" else 30.0).generate(
        "completions", questions(2)
    )

    assert answers == ["question 0", "question 1"]
    assert len(server.asked) == 4


@pytest.mark.parametrize(
    ("fault", "reason"),
    [
        ("drop", "RemoteProtocolError|ReadError"),
        ("garbage", "no choice: '<html>gateway</html>'"),
        ("empty", "no choice"),
        ("null", "no text"),
        ("slow", "no answer within 0.2 s"),
        (503, "status 503"),
    ],
)
def test_no_answer_is_made_up_for_a_question_that_never_got_one(
    server: Answering, fault: int | str, reason: str
) -> None:
    server.faults = [fault] * 100

    with pytest.raises(RammergeError, match=rf"'tiny' at http.* did not answer, asked 2 times: .*({reason})"):
        model(server, retries=1, timeout=0.2 if fault == "slow" else 30.0).generate("completions", questions(5))


@pytest.mark.parametrize(
    ("status", "error", "sentence"),
    [
        (401, InputError, "refuses the key .401.; set OPENAI_API_KEY"),
        (403, InputError, "refuses the key .403."),
        (404, InputError, "is not there: /completions answers with status 404"),
        (400, RammergeError, "refuses a question with status 400: .*no"),
    ],
)
def test_what_cannot_pass_is_said_at_once(
    server: Answering, status: int, error: type[Exception], sentence: str
) -> None:
    server.faults = [status]

    with pytest.raises(error, match=sentence):
        model(server, concurrency=1).generate("completions", questions(1))

    assert len(server.asked) == 1


def test_a_server_that_is_not_there_is_said() -> None:
    gone = Endpoint("http://127.0.0.1:9/v1", "tiny", retries=0)

    with pytest.raises(RammergeError, match="asked 1 time: ConnectError"):
        Served(gone).generate("completions", questions(1))


@pytest.mark.parametrize(
    "wrong",
    [
        Endpoint("localhost:8000/v1", "tiny"),
        Endpoint(NOWHERE, "tiny", concurrency=0),
        Endpoint(NOWHERE, "tiny", retries=-1),
        Endpoint(NOWHERE, "tiny", timeout=0.0),
    ],
)
def test_an_endpoint_that_cannot_be_meant_is_refused(wrong: Endpoint) -> None:
    with pytest.raises(InputError):
        Served(wrong)


def test_the_key_is_sent_and_never_shown(server: Answering, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "sk-hidden")
    server.faults = [401]

    with pytest.raises(InputError) as error:
        model(server).generate("completions", questions(1))

    assert server.asked[0][1]["Authorization"] == "Bearer sk-hidden"
    assert "sk-hidden" not in str(error.value)


def test_likelihoods_count_every_token_that_lies_in_the_continuation_even_in_part() -> None:
    choice = {
        "logprobs": {
            "text_offset": [0, 2, 5, 7],
            "token_logprobs": [None, -1.0, -2.0, -4.0],
            "top_logprobs": [None, {"b": -1.0}, {"c": -0.5, "d": -2.0}, {"e": -4.0}],
        }
    }
    there = Served(Endpoint(NOWHERE, "tiny"))

    assert there._likelihood(choice, 2, 5) == (-1.0, True)
    assert there._likelihood(choice, 4, 7) == (-3.0, False)  # the token at 2 reaches into the continuation
    assert there._likelihood(choice, 5, 7) == (-2.0, False)  # and what the server added counts for nothing


def test_a_server_that_gives_no_likelihoods_is_named(server: Answering) -> None:
    with pytest.raises(InputError, match="does not give the probabilities of a prompt's tokens"):
        model(server).score([("1 + 1 =", " 2")])
