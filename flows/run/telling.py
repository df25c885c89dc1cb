"""Tell those who want to hear what became of a run, or of a version."""

import json
from collections.abc import Iterator
from contextlib import contextmanager

from rammerge.recipe import Happening, Notify, Recipe
from rammerge.system.redaction import redact
from tasks.notices.notice import Notice
from tasks.notices.telling import tell
from tasks.records import pages
from tasks.records.promotion import Promotion
from tasks.records.registry import TAG_NOTIFY, get_release


def tell_of_run(spec: Recipe, event: Happening, sentence: str, *, version: int | None = None, report: str = "") -> None:
    """Tell those whom a recipe names of the present run; what goes wrong is a warning in the run's log."""
    from prefect.logging import get_run_logger
    from prefect.runtime import flow_run

    if not spec.notify:
        return
    notice = Notice(
        event=event,
        recipe=spec.name,
        model=spec.model_name,
        version=version,
        sentence=sentence,
        run=pages.flow_run_page(str(flow_run.id)),
        report=report,
    )
    for problem in tell(spec.notify, notice):
        get_run_logger().warning(problem)


@contextmanager
def failure_told(spec: Recipe) -> Iterator[None]:
    """Tell those whom a recipe names if the context fails."""
    try:
        yield
    except Exception as error:
        tell_of_run(spec, "failed", redact(" ".join(str(error).split())))
        raise


def tell_of_move(moved: Promotion, version: int, event: Happening) -> list[str]:
    """Tell those whom the recipe of a version names what a person did with it; return what went wrong."""
    release = get_release(moved.name, version)
    listeners = [Notify.model_validate(each) for each in json.loads(release.tags.get(TAG_NOTIFY, "[]"))]
    notice = Notice(event=event, model=moved.name, version=version, sentence=moved.sentence)
    return tell(listeners, notice)
