"""What functions tell."""

from typing import Any

Told = dict[str, Any]
