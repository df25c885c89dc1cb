"""Log lines as JSON, one object a line, for collectors. Each says which run, step and model it is about."""

import json
import logging
import os
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from rammerge.errors import InputError

# What happens in a run. Without a wish nobody hears it: the command has a display, and Prefect a log.
EVENTS = logging.getLogger("rammerge.runs")
EVENTS.setLevel(logging.CRITICAL)  # rather than disabled, which Prefect's setting up of logging undoes

_WISH = "RAMMERGE_LOG"
_ABOUT = ("run", "recipe", "step", "model")


def log_as_wished() -> None:
    """Do as `RAMMERGE_LOG` says: `json` writes to stderr, `json:FILE` appends to a file. Without it nothing changes.

    Prefect sets up logging anew when it is imported, so every entry point calls this.

    Raises:
        InputError: the variable says something else, or the file cannot be.
    """
    wish = os.environ.get(_WISH, "")
    if not wish:
        return
    form, _, file = wish.partition(":")
    if form != "json" or (file and not Path(file).absolute().parent.is_dir()):
        raise InputError(f"{_WISH}={wish} is neither `json` nor `json:FILE` with a directory that exists; correct it")
    root = logging.getLogger()
    if not any(isinstance(handler.formatter, JsonLines) for handler in root.handlers):
        handler = logging.FileHandler(file, delay=True, encoding="utf-8") if file else logging.StreamHandler()
        handler.setFormatter(JsonLines())
        # On stderr the lines replace Prefect's; a file is written beside them.
        root.handlers = [handler, *(root.handlers if file else ())]
    for logger in (logging.getLogger("rammerge"), EVENTS):
        logger.setLevel(logging.INFO)


class JsonLines(logging.Formatter):
    """A record as one JSON object: time (UTC), level, logger, message, run, recipe, step, model, an error's traceback.

    What is in `about` of a record's extra fields goes before what Prefect writes into it, and that before what Prefect
    knows of the thread.
    """

    def format(self, record: logging.LogRecord) -> str:
        """Return the line."""
        content: dict[str, Any] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
            **dict.fromkeys(_ABOUT),
            **_present(),
            **_named(record),
            **getattr(record, "about", {}),
        }
        if record.exc_info:
            content["error"] = record.exc_text or self.formatException(record.exc_info)
        return json.dumps(content, ensure_ascii=False)


def _named(record: logging.LogRecord) -> dict[str, str]:
    """Return which run, step and model a record of Prefect's own names."""
    names = {"run": "flow_run_id", "recipe": "flow_run_name", "step": "task_name"}
    found = {key: str(value) for key, name in names.items() if (value := getattr(record, name, None))}
    step, _, model = str(getattr(record, "task_run_name", "")).partition(" ")
    return found | ({"model": model} if model and step == found.get("step") else {})


def _present() -> dict[str, str]:
    """Return which run, step and model the present thread works for, as Prefect knows it."""
    if "prefect" not in sys.modules:
        return {}
    from prefect.context import FlowRunContext, TaskRunContext

    found: dict[str, str] = {}
    flow, task = FlowRunContext.get(), TaskRunContext.get()
    if flow is not None and flow.flow_run is not None:
        found |= {"run": str(flow.flow_run.id), "recipe": flow.flow_run.name}
    if task is not None:
        found |= {"run": str(task.task_run.flow_run_id), "step": task.task.name}
        if isinstance(model := task.parameters.get("name"), str):
            found["model"] = model
    return found
