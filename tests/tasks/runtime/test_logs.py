"""Contract: `RAMMERGE_LOG` makes every log line one JSON object without secrets; `OTEL_...` needs what sends traces.

Without the variables nothing changes.
"""

import logging
from pathlib import Path
from types import SimpleNamespace

import pytest
from opentelemetry import trace
from prefect.context import FlowRunContext, TaskRunContext

from rammerge.errors import InputError
from rammerge.system.redaction import redact_log_records
from tasks.runtime import tracing
from tasks.runtime.logs import EVENTS, log_as_wished
from tasks.runtime.tracing import trace_as_wished
from tests.fixtures.telling import telling


def test_a_line_says_what_where_and_of_which_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_TOKEN", "secret-of-the-tests")
    made = logging.getLogRecordFactory()
    with telling(tmp_path) as told:
        log_as_wished()
        redact_log_records()
        log_as_wished()  # again does not write lines twice
        EVENTS.info("merge ram: done", extra={"about": {"run": "r1", "recipe": "zoo", "step": "merge", "model": "ram"}})
        try:
            raise OSError("refused secret-of-the-tests")
        except OSError:
            logging.getLogger("rammerge.others").exception("two\nlines")
        logging.getLogger("others").debug("not this")
    logging.setLogRecordFactory(made)
    first, second = told.lines
    assert first["time"].endswith("+00:00")
    del first["time"], second["time"]
    about = {"run": "r1", "recipe": "zoo", "step": "merge", "model": "ram"}
    assert first == {"level": "info", "logger": "rammerge.runs", "message": "merge ram: done", **about}
    assert "OSError: refused ***" in second.pop("error")
    nothing = dict.fromkeys(about)
    assert second == {"level": "error", "logger": "rammerge.others", "message": "two\nlines", **nothing}


def test_a_line_of_any_library_says_for_which_step_its_thread_works(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    flow_run = SimpleNamespace(id="r1", name="zoo")
    task = SimpleNamespace(
        task=SimpleNamespace(name="merge"), task_run=SimpleNamespace(flow_run_id="r1"), parameters={"name": "ram"}
    )
    with telling(tmp_path) as told:
        log_as_wished()
        monkeypatch.setattr(FlowRunContext, "get", lambda: SimpleNamespace(flow_run=flow_run))
        logging.getLogger("others").warning("between steps")
        monkeypatch.setattr(TaskRunContext, "get", lambda: task)
        logging.getLogger("others").warning("within one")
        names = {"flow_run_id": "r2", "flow_run_name": "own", "task_name": "smoke", "task_run_name": "smoke average"}
        logging.getLogger("prefect.others").warning("of another run", extra=names)
    found = [{key: line[key] for key in ("run", "recipe", "step", "model")} for line in told.lines]
    assert found == [
        {"run": "r1", "recipe": "zoo", "step": None, "model": None},
        {"run": "r1", "recipe": "zoo", "step": "merge", "model": "ram"},
        {"run": "r2", "recipe": "own", "step": "smoke", "model": "average"},
    ]


@pytest.mark.parametrize("wish", ["text", "json:/no/such/directory/file"])
def test_a_wish_that_cannot_be_is_refused(wish: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAMMERGE_LOG", wish)
    with pytest.raises(InputError, match=f"RAMMERGE_LOG={wish} is neither"):
        log_as_wished()


def test_traces_need_an_exporter_and_leave_a_provider_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trace, "_TRACER_PROVIDER", None)
    monkeypatch.setattr(tracing, "_EXPORTER", "opentelemetry.no_such_exporter")
    trace_as_wished()
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:4318")
    with pytest.raises(InputError, match="pip install opentelemetry-exporter-otlp-proto-http"):
        trace_as_wished()
    monkeypatch.setenv("OTEL_SDK_DISABLED", "true")
    trace_as_wished()
    assert isinstance(trace.get_tracer_provider(), trace.ProxyTracerProvider)
