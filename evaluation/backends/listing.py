"""What a server that speaks OpenAI's protocol says of a model before it is asked anything.

httpx is imported by the first call.
"""

from typing import TYPE_CHECKING, Any

from evaluation.backends.served import Endpoint
from rammerge.errors import InputError

if TYPE_CHECKING:
    import httpx

# Some servers make these anew whenever they are asked.
_MOVING = ("created", "permission")
_NO_LIST = (404, 405, 501)


def describe(endpoint: Endpoint, *, seconds: float) -> dict[str, Any]:
    """Return what the server's list of models says of the model; nothing if the list lacks it, or there is no list.

    Raises:
        InputError: the server does not answer within `seconds`, or refuses the key.
    """
    response = _get(endpoint, seconds)
    if response.status_code in (401, 403):
        raise InputError(f"the server at {endpoint.url} refuses the key ({response.status_code}); {endpoint.way_in}")
    if response.status_code in _NO_LIST:
        return {}
    if response.status_code != 200:
        raise InputError(
            f"the server at {endpoint.url} answers with status {response.status_code} when it is asked for its "
            f"models; try again once it is ready"
        )
    try:
        models = [dict(each) for each in response.json()["data"]]
    except (ValueError, KeyError, TypeError):
        return {}
    found = next((each for each in models if each.get("id") == endpoint.model), {})
    return {key: value for key, value in found.items() if key not in _MOVING}


def _get(endpoint: Endpoint, seconds: float) -> "httpx.Response":
    import httpx

    try:
        return httpx.get(f"{endpoint.url.rstrip('/')}/models", headers=endpoint.headers, timeout=seconds)
    except (httpx.HTTPError, httpx.InvalidURL) as error:
        raise InputError(
            f"the server at {endpoint.url} is not there ({type(error).__name__}: {error}); start it, or correct the "
            f"address"
        ) from error
