"""Roll back: the previous champion becomes the champion again."""

from prefect import State, flow, task

from flows.run.artifacts import end_move
from rammerge.system.redaction import without_secrets
from tasks.records import promotion
from tasks.records.history import Reason
from tasks.records.promotion import Promotion
from tasks.runtime.environment import activate
from tasks.runtime.limits import FLOW_SECONDS
from tasks.runtime.retries import TRACKING_RETRIES, retrying

_swap = task(
    name="rollback",
    task_run_name="roll back {name}",
    **retrying(TRACKING_RETRIES),
)(without_secrets(promotion.rollback))


@flow(name="rollback", timeout_seconds=FLOW_SECONDS, flow_run_name="roll back {name}")
def rollback(name: str, because: str = "") -> "Promotion | State[Promotion]":
    """Swap champion and previous of the registered model `name`, as `rammerge rollback` does."""
    activate()
    return end_move(_swap(name, reason=Reason(because=because)))
