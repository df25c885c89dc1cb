"""The notes of `long_memory` in parts of 2,000 tokens, about."""

from collections.abc import Mapping
from typing import Any

from evaluation.suites.bundled.long_memory_chunked.reading import with_prompts
from evaluation.suites.format import Split
from evaluation.suites.making import memory


def items(_files: Mapping[str, bytes]) -> Mapping[Split, list[dict[str, Any]]]:
    """Return the items by split."""
    return with_prompts(memory.items_in_parts([4_000, 16_000], {"validation": 16, "test": 32}, 2_000))
