"""Traces of runs for an OpenTelemetry collector. Prefect makes the spans, one a run and one a step within it."""

import os
from importlib import import_module

from rammerge.errors import InputError

_ENDPOINTS = {"OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT"}
_EXPORTER = "opentelemetry.exporter.otlp.proto.http.trace_exporter"


def trace_as_wished() -> None:
    """Send spans to the collector that `OTEL_EXPORTER_OTLP_ENDPOINT` names, if it does; a provider that is set stays.

    Raises:
        InputError: what sends them is not installed.
    """
    if not _ENDPOINTS & os.environ.keys() or os.environ.get("OTEL_SDK_DISABLED", "").lower() == "true":
        return
    from opentelemetry import trace

    if not isinstance(trace.get_tracer_provider(), trace.ProxyTracerProvider):
        return
    try:
        exporter = import_module(_EXPORTER).OTLPSpanExporter()
    except ModuleNotFoundError as error:
        raise InputError(
            f"OTEL_EXPORTER_OTLP_ENDPOINT is set, and what sends traces there is not installed ({error.name}); run "
            "`pip install opentelemetry-exporter-otlp-proto-http`, or unset the variable"
        ) from error
    from opentelemetry.sdk.resources import Resource
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import BatchSpanProcessor

    named = {"service.name": os.environ.get("OTEL_SERVICE_NAME", "rammerge")}
    provider = TracerProvider(resource=Resource.create(named))
    provider.add_span_processor(BatchSpanProcessor(exporter))
    trace.set_tracer_provider(provider)
