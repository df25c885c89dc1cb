"""Telling everyone who wants to hear of a happening. What goes wrong here never fails a run."""

import asyncio
import inspect
import os
from collections.abc import Awaitable, Iterator, Sequence
from typing import Any

from rammerge.errors import RammergeError
from rammerge.recipe import Notify
from rammerge.system.redaction import redact
from tasks.notices.notice import Notice
from tasks.notices.webhook import post


def tell(listeners: Sequence[Notify], notice: Notice) -> list[str]:
    """Send `notice` to those who listen for its event; return what went wrong, one sentence each."""
    return [redact(problem) for each in listeners if notice.event in each.events for problem in _send(each, notice)]


def _send(listener: Notify, notice: Notice) -> Iterator[str]:
    try:
        if listener.block:
            _notify(listener.block, notice)
        else:
            secret = _variable(listener.secret) if listener.secret else None
            post(_address(listener.url or ""), notice, secret=secret)
    except RammergeError as error:
        yield str(error)


def _address(url: str) -> str:
    address = _variable(url[1:]) if url.startswith("$") else url
    if not address.startswith(("http://", "https://")):
        raise RammergeError(f"the variable {url[1:]} holds no http:// or https:// address; correct it")
    return address


def _variable(name: str) -> str:
    if not (value := os.environ.get(name)):
        raise RammergeError(f"the environment variable {name} is not set, so nobody is told; set it")
    return value


async def _finish(sending: Awaitable[None]) -> None:
    await sending


def _notify(block: str, notice: Notice) -> None:
    """Have a notification block of Prefect's send the notice."""
    from prefect.blocks.abstract import NotificationBlock
    from prefect.blocks.core import Block

    try:
        # Loading it makes Prefect know the blocks that come with it.
        loaded = Block.load(block)
        if not isinstance(loaded, NotificationBlock):
            raise RammergeError(f"the Prefect block {block} sends no notifications; name one that does")
        with loaded.raise_on_failure():
            # Prefect's own blocks are done when this returns; its base class says that others have to be awaited.
            sending: Any = loaded.notify(notice.text, notice.subject)
            if inspect.isawaitable(sending):
                asyncio.run(_finish(sending))
    except RammergeError:
        raise
    except Exception as error:  # whatever a service's client raises
        raise RammergeError(f"the Prefect block {block} could not send '{notice.subject}' ({error})") from error
