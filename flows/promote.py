"""Promote a registered version: it becomes the champion, and the present champion becomes the previous one."""

from prefect import State, flow, task

from flows.run.artifacts import end_move
from rammerge.system.redaction import without_secrets
from tasks.records import promotion
from tasks.records.history import Reason
from tasks.records.promotion import Promotion
from tasks.runtime.environment import activate
from tasks.runtime.limits import FLOW_SECONDS
from tasks.runtime.retries import TRACKING_RETRIES, retrying

_move = task(
    name="promote",
    task_run_name="promote {name} version {version}",
    **retrying(TRACKING_RETRIES),
)(without_secrets(promotion.promote))


@flow(name="promote", timeout_seconds=FLOW_SECONDS, flow_run_name="promote {name} version {version}")
def promote(name: str, version: int, because: str = "") -> "Promotion | State[Promotion]":
    """Make `version` of the registered model `name` the champion, as `rammerge promote` does."""
    activate()
    return end_move(_move(name, version, reason=Reason(because=because), by_hand=True))
