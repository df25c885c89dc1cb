"""Places that several machines share, a directory or a bucket: objects by name, and nothing of what they mean."""

from rammerge.storage.place import Place, open_bucket, open_place
from rammerge.storage.stored import Stored
from rammerge.storage.trial import try_place
from rammerge.storage.trouble import PlaceError

__all__ = ["Place", "PlaceError", "Stored", "open_bucket", "open_place", "try_place"]
