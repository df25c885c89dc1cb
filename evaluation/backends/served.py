"""Models behind a server that speaks OpenAI's protocol: what it is asked, when it is asked again, what is an answer.

httpx is imported by the first question.
"""

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, TypeVar

from rammerge.errors import InputError, RammergeError

if TYPE_CHECKING:
    import httpx

Kind = Literal["chat/completions", "completions"]
T = TypeVar("T")

# A server that is starting, busy, restarting, or behind a proxy that gave up.
_LATER = (408, 409, 425, 429, 500, 502, 503, 504)
# What servers answer to a question that does not fit, with a sentence about their context.
_TOO_LONG = (400, 413, 422)
_FIRST_WAIT, _LONGEST_WAIT = 0.5, 30.0
_KEY = "OPENAI_API_KEY"


@dataclass(frozen=True)
class Endpoint:
    """A model on a server, and how it is asked.

    Attributes:
        url: the address of the protocol, which usually ends in `/v1`.
        model: the server's name for the model.
        concurrency: questions at a time.
        retries: how often a question is asked again if it got no answer.
        timeout: seconds that a whole answer may take.
        key: the environment variable that holds its key; empty if none is to be sent.
    """

    url: str
    model: str
    concurrency: int = 8
    retries: int = 5
    timeout: float = 300.0
    key: str = _KEY

    @property
    def headers(self) -> dict[str, str]:
        """What is sent with every question: the key, if there is one."""
        key = os.environ.get(self.key)
        return {"Authorization": f"Bearer {key}"} if key else {}

    @property
    def way_in(self) -> str:
        """What to do if the server refuses the key, or that there is none."""
        return f"set {self.key} to one that it accepts" if self.key else "name the variable that holds one by `key`"


class TooLongError(RammergeError):
    """The server's context is too short for questions.

    Attributes:
        answers: those to the other questions, in the order of all; None for questions that are too long.
    """

    def __init__(self, message: str, answers: Sequence[Any] = ()) -> None:
        """Say why; who asked adds the answers."""
        super().__init__(message)
        self.answers = answers


class _NoAnswerError(Exception):
    """The server gave no answer; asking again may help. `wait` is how many seconds it asks for."""

    def __init__(self, reason: str, wait: float | None = None) -> None:
        super().__init__(reason)
        self.wait = wait


class Served:
    """A model on a server."""

    def __init__(self, endpoint: Endpoint) -> None:
        """Ask nothing yet.

        Raises:
            InputError: the address or a number is not valid.
        """
        if not endpoint.url.startswith(("http://", "https://")):
            raise InputError(f"the server's address '{endpoint.url}' must begin with http:// or https://")
        if endpoint.concurrency < 1 or endpoint.retries < 0 or endpoint.timeout <= 0:
            raise InputError("a server needs a concurrency of at least 1, retries of at least 0, and a timeout above 0")
        self.endpoint = endpoint
        self._where = f"the model '{endpoint.model}' at {endpoint.url}"

    def generate(self, kind: Kind, questions: Sequence[Mapping[str, Any]]) -> list[str]:
        """Return the answer to each question, in their order; questions are the protocol's JSON, without the model.

        Raises:
            InputError: the server is not there, refuses the key, or does not know the model.
            RammergeError: a question got no answer, however often it was asked; a TooLongError if it does not fit into
                the server's context, when all others are answered.
        """
        return self._answers(kind, questions, _text)

    def score(self, questions: Sequence[tuple[str, str]]) -> list[tuple[float, bool]]:
        """Return the log-likelihood of each continuation after its context, and whether each token is the likeliest.

        The server is asked to repeat the text with the logarithm of each token's probability. A token counts if it has
        a part in the continuation.

        Raises:
            InputError: as `generate`; also a server that does not give these numbers.
            RammergeError: as `generate`.
        """
        asked = [
            {"prompt": context + continuation, "max_tokens": 1, "temperature": 0.0, "logprobs": 1, "echo": True}
            for context, continuation in questions
        ]
        choices = self._answers("completions", asked, dict)
        return [
            self._likelihood(choice, len(context), len(context) + len(continuation))
            for choice, (context, continuation) in zip(choices, questions, strict=True)
        ]

    def _likelihood(self, choice: Mapping[str, Any], start: int, end: int) -> tuple[float, bool]:
        try:
            tokens = choice["logprobs"]
            offsets = [*tokens["text_offset"], end]
            within = [i for i in range(len(offsets) - 1) if offsets[i] < end and offsets[i + 1] > start]
            logs = [float(tokens["token_logprobs"][i]) for i in within]
            likeliest = [max(tokens["top_logprobs"][i].values()) for i in within]
        except (KeyError, IndexError, TypeError, ValueError, AttributeError) as error:
            raise InputError(
                f"{self._where} does not give the probabilities of a prompt's tokens (echo and logprobs of "
                f"/completions), which multiple choice needs; use suites that generate text, or a different server"
            ) from error
        return sum(logs), all(log >= best for log, best in zip(logs, likeliest, strict=True))

    def _answers(
        self, kind: Kind, questions: Sequence[Mapping[str, Any]], read: Callable[[Mapping[str, Any]], T]
    ) -> list[T]:
        """Return what `read` finds in the choice that answers each question; _NoAnswerError there asks again."""
        from anyio.from_thread import start_blocking_portal

        # A loop in a thread of its own: the caller may have one that runs, as notebooks do.
        with start_blocking_portal() as portal:
            return portal.call(self._ask_all, kind, questions, read)

    async def _ask_all(
        self, kind: Kind, questions: Sequence[Mapping[str, Any]], read: Callable[[Mapping[str, Any]], T]
    ) -> list[T]:
        import asyncio

        import httpx

        room = asyncio.Semaphore(self.endpoint.concurrency)
        async with httpx.AsyncClient(
            base_url=f"{self.endpoint.url.rstrip('/')}/",
            headers=self.endpoint.headers,
            timeout=None,  # the whole answer has one, below
            limits=httpx.Limits(max_connections=self.endpoint.concurrency),
        ) as client:

            async def ask(question: Mapping[str, Any]) -> T | TooLongError:
                async with room:
                    try:
                        return await self._ask(client, kind, {"model": self.endpoint.model, **question}, read)
                    except TooLongError as error:
                        return error

            try:
                async with asyncio.TaskGroup() as group:
                    tasks = [group.create_task(ask(question)) for question in questions]
            except* (InputError, RammergeError) as failed:
                raise failed.exceptions[0] from None
        return _all_answered([task.result() for task in tasks])

    async def _ask(
        self,
        client: "httpx.AsyncClient",
        kind: Kind,
        body: Mapping[str, Any],
        read: Callable[[Mapping[str, Any]], T],
    ) -> T:
        import asyncio

        reason = ""
        for attempt in range(self.endpoint.retries + 1):
            try:
                async with asyncio.timeout(self.endpoint.timeout):
                    choice = await self._ask_once(client, kind, body)
                return read(choice)
            except TimeoutError:
                reason, wait = f"no answer within {self.endpoint.timeout:g} s", None
            except _NoAnswerError as error:
                reason, wait = str(error), error.wait
            if attempt < self.endpoint.retries:
                await asyncio.sleep(min(_LONGEST_WAIT, wait if wait is not None else _FIRST_WAIT * 2**attempt))
        times = self.endpoint.retries + 1
        raise RammergeError(
            f"{self._where} did not answer, asked {times} time{'s' if times > 1 else ''}: {reason}; look at the "
            f"server, or raise --retries or --timeout"
        )

    async def _ask_once(self, client: "httpx.AsyncClient", kind: Kind, body: Mapping[str, Any]) -> Mapping[str, Any]:
        import httpx

        try:
            response = await client.post(kind, json=body)
        except httpx.InvalidURL as error:
            raise InputError(f"the server's address '{self.endpoint.url}' is not valid: {error}") from error
        except httpx.HTTPError as error:
            raise _NoAnswerError(f"{type(error).__name__} {error}".strip()) from error
        if response.status_code in _LATER:
            raise _NoAnswerError(f"status {response.status_code}", _wait_asked_for(response.headers.get("retry-after")))
        self._refuse(kind, response)
        try:
            choices = response.json()["choices"]
            return dict(choices[0])
        except (ValueError, KeyError, IndexError, TypeError) as error:
            raise _NoAnswerError(f"its answer has no choice: {response.text[:80]!r}") from error

    def _refuse(self, kind: Kind, response: "httpx.Response") -> None:
        status = response.status_code
        said = " ".join(response.text.split())[:200]
        if status in (401, 403):
            raise InputError(f"{self._where} refuses the key ({status}); {self.endpoint.way_in}")
        if status == 404:
            raise InputError(
                f"{self._where} is not there: /{kind} answers with status 404 ({said!r}); correct the address, which "
                f"usually ends in /v1, or the model's name"
            )
        if status in _TOO_LONG and "context" in said.lower():
            raise TooLongError(
                f"{self._where} has too short a context for a question: {said!r}; shorten the suite's prompts"
            )
        if status != 200:
            raise RammergeError(f"{self._where} refuses a question with status {status}: {said!r}")


def _all_answered(answers: Sequence[T | TooLongError]) -> list[T]:
    refused = next((answer for answer in answers if isinstance(answer, TooLongError)), None)
    if refused is not None:
        raise TooLongError(str(refused), [None if isinstance(answer, TooLongError) else answer for answer in answers])
    return [answer for answer in answers if not isinstance(answer, TooLongError)]


def _text(choice: Mapping[str, Any]) -> str:
    """Return the text of a choice. A model that only thought, or said nothing, said the empty text."""
    message = choice.get("message", choice)
    text = message.get("content" if "message" in choice else "text") if isinstance(message, Mapping) else None
    if text is None and choice.get("finish_reason") in ("stop", "length"):
        return ""
    if not isinstance(text, str):
        raise _NoAnswerError(f"its answer has no text: {str(dict(choice))[:80]!r}")
    return text


def _wait_asked_for(header: str | None) -> float | None:
    try:
        return max(0.0, float(header)) if header is not None else None
    except ValueError:  # a date
        return None
