"""Removing the records of runs that ended long ago, in MLflow and in Prefect, and giving their room back."""

from collections.abc import Collection, Iterator

from rich.filesize import decimal

from flows.run.outcome import Outcome
from rammerge import store
from rammerge.system.home import home
from rammerge.system.sqlite import shrink
from tasks.records.events import forget_events
from tasks.records.flow_runs import forget_runs, old_results
from tasks.records.forgetting import forget


def forget_records(days: float, *, retired: Collection[tuple[str, int]] = (), dry_run: bool) -> Iterator[str]:
    """Remove the records of runs that ended more than some days ago; yield what came of it. Prefect's API answers.

    What a registered version that is not `retired` leads to stays, and so does the last run of each recipe.
    """
    last = {outcome.run_id for outcome in Outcome.all_last()}
    forgotten = forget(days, keep=last, retired=retired, dry_run=dry_run)
    yield forgotten.sentence
    yield forget_runs(days, keep=forgotten.linked, dry_run=dry_run).sentence


def give_room_back(days: float, *, dry_run: bool) -> Iterator[str]:
    """Remove results and events that Prefect kept, and shrink the home's databases, as far as nobody uses them.

    Raises:
        InUseError: a process uses the store.
    """
    with store.alone():
        results = list(old_results(days))
        size = sum(file.stat().st_size for file in results)
        yield f"removed {len(results)} results of steps that Prefect kept, {decimal(size)}"
        events = forget_events(home() / "prefect" / "prefect.db", days, dry_run=dry_run)
        yield f"removed {events} events of runs that Prefect kept"
        if not dry_run:
            for file in results:
                file.unlink(missing_ok=True)
            freed = sum(shrink(home() / name) for name in ("mlflow/mlflow.db", "prefect/prefect.db"))
            yield f"shrank databases by {decimal(freed)}"
