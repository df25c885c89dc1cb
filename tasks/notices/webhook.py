"""Posting a notice to a webhook, signed as MLflow signs its own."""

import base64
import hashlib
import hmac
import os
import time
from urllib.parse import urlsplit
from uuid import uuid4

import httpx

from rammerge.errors import RammergeError
from tasks.notices.notice import Notice

TIMEOUT_SECONDS = 5.0
ATTEMPTS = 3
_FIRST_DELAY = "2"


def post(url: str, notice: Notice, *, secret: str | None) -> None:
    """Post `notice` as JSON; a server that is busy or does not answer is asked again, three times in all.

    Args:
        url: http or https. Redirections are not followed.
        notice: the body.
        secret: signs the body, if given.

    Raises:
        RammergeError: it was not accepted, or cannot be sent. The message names the host alone, because a path may be a
            secret.
    """
    body, delivery, stamp = notice.model_dump_json().encode(), str(uuid4()), str(int(time.time()))
    headers = {"Content-Type": "application/json", "X-Rammerge-Delivery-Id": delivery, "X-Rammerge-Timestamp": stamp}
    if secret is not None:
        headers["X-Rammerge-Signature"] = sign(secret, delivery, stamp, body)
    delay, problem = float(os.environ.get("RAMMERGE_BACKOFF_SECONDS", _FIRST_DELAY)), ""
    for attempt in range(ATTEMPTS):
        if attempt:
            time.sleep(delay * 2 ** (attempt - 1))
        try:
            status = httpx.post(url, content=body, headers=headers, timeout=TIMEOUT_SECONDS).status_code
        except httpx.HTTPError as error:
            problem = f"does not answer ({type(error).__name__})"
            continue
        except Exception as error:  # the address, or what httpx takes from the environment: proxies and certificates
            problem = f"cannot be asked ({type(error).__name__})"
            break
        if status < 300:
            return
        problem = f"answers with status {status}"
        if status != 429 and status < 500:
            break
    raise RammergeError(f"the webhook at {_host(url)} {problem}; it was not told that {notice.subject}")


def _host(url: str) -> str:
    try:
        return urlsplit(url).hostname or "no host"
    except ValueError:
        return "an address that is none"


def sign(secret: str, delivery: str, stamp: str, body: bytes) -> str:
    """Return `v1,` and the base64 HMAC-SHA256 of delivery id, time stamp and body, joined by dots."""
    signed = f"{delivery}.{stamp}.".encode() + body
    return "v1," + base64.b64encode(hmac.new(secret.encode(), signed, hashlib.sha256).digest()).decode()
