"""transformers' classes of models. The import takes seconds, so it is made where one is needed."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any


def model_class(config: Mapping[str, Any]) -> Any:
    """Return transformers' class of the model that a config.json names, or None if transformers has no such class."""
    import transformers

    names = config.get("architectures")
    kind = getattr(transformers, str(names[0]), None) if isinstance(names, list) and names else None
    return kind if isinstance(kind, type) and issubclass(kind, transformers.PreTrainedModel) else None


@contextmanager
def quiet() -> Iterator[None]:
    """Keep transformers from showing warnings and progress while the context lasts."""
    from transformers.utils import logging

    verbosity, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(verbosity)
        if bars:
            logging.enable_progress_bar()
