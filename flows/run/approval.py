"""Wait for a person's word before a promotion.

The question and the answer are kept in MLflow (tasks.records.approval), so that the command line can always answer. A
run of a deployment pauses meanwhile, and its page has a form. A run by hand ends, and the question stays.
"""

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from contextvars import copy_context
from uuid import UUID

from prefect import get_client, task
from prefect.flow_runs import pause_flow_run, resume_flow_run
from prefect.input import RunInput
from prefect.logging import get_run_logger
from prefect.runtime import flow_run
from pydantic import Field

from rammerge.system.durations import parse_duration
from rammerge.system.redaction import without_secrets
from tasks.records import approval, pages
from tasks.records.approval import Asked, Question
from tasks.records.history import Reason
from tasks.records.promotion import Promotion
from tasks.records.releasing import Registered
from tasks.runtime.retries import TRACKING_RETRIES, retrying

# How often a paused run looks for an answer. Prefect's own default.
_POLL_SECONDS = 10
# Prefect gives up later than the question, so that the run closes the question, and does not fail.
_GRACE_SECONDS = 600
_SOON_SECONDS = 0.2

# No steps with an entry in the store, because what they do depends on the present champion.
_ask = task(name="ask", task_run_name="ask about {name} version {version}", **retrying(TRACKING_RETRIES))(
    without_secrets(approval.ask)
)
_answer = task(name="answer", task_run_name="answer about {name} version {version}", **retrying(TRACKING_RETRIES))(
    without_secrets(approval.answer)
)


class Answer(RunInput):
    """The form on the page of a paused run."""

    approve: bool = Field(default=False, description="Whether the version may serve.")
    who: str = Field(min_length=1, description="Your name.")
    why: str = Field(min_length=1, description="Your reason; it is kept with the version.")


# A person has answered elsewhere, or nobody in time: the run goes on, and finds that in MLflow.
_ANSWERED = {"approve": False, "who": "nobody", "why": "the question was closed elsewhere"}


def ask(release: Registered, instead_of: int | None, timeout: str, report: str) -> Asked:
    """Ask whether a version may serve, unless that needs no answer.

    Args:
        release: the version.
        instead_of: the champion that the gates compared it with, if there was one.
        timeout: how long the question stays open, as a recipe writes it.
        report: the address of the report.
    """
    until = time.time() + parse_duration(timeout)
    page = pages.flow_run_page(str(flow_run.id))
    question = Question(until=until, instead_of=instead_of, report=report, flow_run=page)
    return _ask(release.name, release.version, question)


def wait(asked: Asked, question: Question) -> Promotion:
    """Pause the run until somebody answers on its page or elsewhere, or the time is over; return what came of it."""
    form = Answer.with_initial_data(
        description=f"May **{asked.name} version {asked.version}** serve? Every gate passed. Read "
        f"[the report]({question.report}) first. No answer until {question.deadline} means no."
    )
    get_run_logger().info("%s; the report: %s", asked.sentence, question.report)
    with _heard(asked):
        timeout = int(question.until - time.time()) + _GRACE_SECONDS
        answer = pause_flow_run(wait_for_input=form, timeout=timeout, poll_interval=_POLL_SECONDS)
    reason = Reason(by=answer.who, because=answer.why)
    return _answer(asked.name, asked.version, approve=answer.approve, reason=reason)


@contextmanager
def _heard(asked: Asked) -> Iterator[None]:
    """Within the context, let the paused run go on once the question is closed: by a command, or because it is late."""
    over = threading.Event()
    # In this context, because it knows Prefect's address.
    arguments = (_listen, asked, UUID(str(flow_run.id)), over)
    thread = threading.Thread(target=copy_context().run, args=arguments, daemon=True, name="rammerge-approval")
    thread.start()
    try:
        yield
    finally:
        over.set()


def _listen(asked: Asked, run: UUID, over: threading.Event) -> None:
    while not over.wait(_SOON_SECONDS):
        with suppress(Exception):  # a server that is away may be back the next time
            if _say(asked, run):
                break
    while not over.wait(_POLL_SECONDS):
        with suppress(Exception):
            if not approval.is_open(asked.name, asked.version):
                resume_flow_run(run, run_input=_ANSWERED)
                return


def _say(asked: Asked, run: UUID) -> bool:
    """Let the state of the paused run lead to the report; return whether it is paused."""
    with get_client(sync_client=True) as client:
        state = client.read_flow_run(run).state
        if state is None or not state.is_paused():
            return False
        report = asked.question.report if asked.question else ""
        client.set_flow_run_state(run, state.model_copy(update={"message": f"{asked.sentence}; {report}"}), force=True)
    return True
