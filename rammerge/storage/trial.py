"""Trying a shared place before a run relies on it."""

import threading
from uuid import uuid4

from rammerge.errors import InputError
from rammerge.storage.place import Place, open_place
from rammerge.storage.trouble import PlaceError

_SECONDS = 12.0
_CONTENT = b"rammerge tries whether this place can be written to; it may be removed\n"


def try_place(url: str) -> None:
    """Write, read and remove a small object in the place `url`; a second write on the same condition has to be refused.

    Raises:
        InputError: something does not work, or there is no answer within 12 seconds.
    """
    found: list[Exception | None] = []
    trying = threading.Thread(target=lambda: found.append(_fault(url)), daemon=True, name="rammerge-try-place")
    trying.start()
    trying.join(_SECONDS)
    if not found:
        raise InputError(
            f"the shared store {url} has not answered within {_SECONDS:.0f} s; check its address, or the mount"
        )
    if found[0] is not None:
        raise InputError(str(found[0])) from found[0]


def _fault(url: str) -> Exception | None:
    try:
        _try(open_place(url, impatient=True))
    except Exception as error:  # which the caller's thread raises
        return error
    return None


def _try(place: Place) -> None:
    place.require()
    name = f".trial/{uuid4().hex}"
    made = place.create(name, _CONTENT)
    try:
        again = place.create(name, _CONTENT + b"\n")
        if not made or again:
            raise PlaceError(
                f"the shared store {place.url} ignores the condition of a write (If-None-Match), and entries are "
                "published by that; use a store that has conditional writes"
            )
        if place.read(name) != _CONTENT:
            raise PlaceError(f"the shared store {place.url} does not give back what was written there; check it")
    finally:
        place.delete(name)
