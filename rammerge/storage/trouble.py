"""What can go wrong with a shared place."""

from rammerge.errors import RammergeError


class PlaceError(RammergeError):
    """A shared place did not do what it was asked. The sentence says which place, why, and what to do."""
