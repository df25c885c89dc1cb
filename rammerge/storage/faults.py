"""The client of an object store, and a sentence for each thing that goes wrong with it."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import boto3
from botocore import exceptions as known
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError

from rammerge.errors import InputError
from rammerge.storage.trouble import PlaceError

_DENIED = ("403", "AccessDenied", "InvalidAccessKeyId", "SignatureDoesNotMatch", "ExpiredToken", "InvalidToken")
_CREDENTIALS = "check AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY and the bucket's policy"


def client_of(url: str, *, impatient: bool) -> Any:
    """Return a client of S3 for the environment's address and credentials; it asks nothing yet.

    Args:
        url: the place, for an error.
        impatient: whether a fault is to show within seconds, instead of being waited for and tried again.

    Raises:
        InputError: the settings contradict each other.
    """
    config = Config(
        connect_timeout=3 if impatient else 10,
        read_timeout=4 if impatient else 60,
        retries={"mode": "standard", "total_max_attempts": 1 if impatient else 8},
        max_pool_connections=16,
        # Stores other than AWS refuse the checksums that boto3 adds by default; every body goes with its MD5 instead.
        request_checksum_calculation="when_required",
        response_checksum_validation="when_required",
    )
    try:
        return boto3.session.Session().client("s3", config=config, region_name=_region())
    except (BotoCoreError, ValueError) as error:
        raise InputError(f"{url} cannot be asked: {error}; check the AWS_* variables") from error


def _region() -> str | None:
    """Return a region for stores that have none, or None to look where all tools look."""
    given = {"AWS_REGION", "AWS_DEFAULT_REGION", "AWS_PROFILE"} & os.environ.keys()
    return None if given or not _has_endpoint() else "us-east-1"


def _has_endpoint() -> bool:
    return bool({"AWS_ENDPOINT_URL", "AWS_ENDPOINT_URL_S3"} & os.environ.keys())


def code_of(error: Any) -> str:
    """Return the store's word for an error, such as `NoSuchBucket`, or the number that stands for it."""
    return str(error.response.get("Error", {}).get("Code", ""))


@contextmanager
def explained(url: str) -> Iterator[None]:
    """Turn every error of boto3 into PlaceError with a sentence about the place `url`."""
    try:
        yield
    except ClientError as error:
        raise PlaceError(f"the shared store {url} {_answer(error)}") from error
    except BotoCoreError as error:
        raise PlaceError(f"the shared store {url} {_silence(error)}") from error


def _answer(error: Any) -> str:
    code, message = code_of(error), error.response.get("Error", {}).get("Message", "")
    if code in _DENIED:
        return f"denies access ({code}); {_CREDENTIALS}"
    if code in ("NoSuchBucket", "404"):
        return "does not exist: there is no such bucket; make it, or correct its name"
    if code in ("NotImplemented", "501"):
        return "refuses conditional writes (If-None-Match), which entries are published with; use a store that has them"
    return f"answers {code or 'an error'}: {' '.join(str(message).split()) or error}; try again later"


def _silence(error: Exception) -> str:
    if isinstance(error, known.NoCredentialsError | known.PartialCredentialsError | known.CredentialRetrievalError):
        return f"cannot be asked without credentials; set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY ({error})"
    if isinstance(error, known.ReadTimeoutError):
        return "does not answer in time; check AWS_ENDPOINT_URL, and whether the store is overloaded"
    if isinstance(error, known.HTTPClientError | known.EndpointConnectionError):
        return f"cannot be reached; check AWS_ENDPOINT_URL and the network ({' '.join(str(error).split())})"
    return f"cannot be used: {' '.join(str(error).split())}"
