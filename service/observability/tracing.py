"""Traces by OpenTelemetry: one span a request, below it one for each stage. The `otel` extra.

OpenTelemetry's own variables say where they go (OTEL_TRACES_EXPORTER, OTEL_EXPORTER_OTLP_ENDPOINT
and its kin, OTEL_TRACES_SAMPLER, OTEL_SERVICE_NAME, OTEL_RESOURCE_ATTRIBUTES), and its SDK acts on
them.
"""

import importlib
import os
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, cast

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from model.errors import DependencyError
from service.observability.stopwatch import Lap

if TYPE_CHECKING:
    from opentelemetry.sdk.trace import TracerProvider

_NEEDS = ("opentelemetry.sdk.trace.export", "opentelemetry.instrumentation.asgi")
_ADVICE = "tracing is on, and {} is missing: pip install 'lipsim-retrieval[otel]'"
# Asked every few seconds by machines, and alike every time.
_UNTRACED = "/livez,/readyz,/metrics"


class Tracing:
    """Spans of one application.

    Args:
        provider: makes the spans, and sends them.
    """

    def __init__(self, provider: "TracerProvider") -> None:
        self._provider = provider
        self._tracer = provider.get_tracer("lipsim-retrieval")

    def middleware(self, app: ASGIApp) -> ASGIApp:
        """The application with a span around each request, named by its route's pattern."""
        from opentelemetry.instrumentation.asgi import (  # noqa: PLC0415 - an extra
            OpenTelemetryMiddleware,
        )

        return OpenTelemetryMiddleware(
            _named_by_route(app),
            excluded_urls=os.environ.get("OTEL_PYTHON_ASGI_EXCLUDED_URLS", _UNTRACED),
            default_span_details=_first_name,
            tracer_provider=self._provider,
            exclude_spans=["receive", "send"],
        )

    def record_stages(self, laps: Sequence[Lap]) -> None:
        """One span for each lap, below the span of the request at hand."""
        offset_ns = time.time_ns() - time.perf_counter_ns()
        for stage, *times in laps:
            begun, ended = (int(seconds * 1e9) + offset_ns for seconds in times)
            self._tracer.start_span(stage, start_time=begun).end(ended)

    def close(self) -> None:
        self._provider.shutdown()


def tracing_of_environment(name: str) -> Tracing:
    """Traces as the variables of OpenTelemetry say, which hold for the whole process.

    Args:
        name: of the service, where OTEL_SERVICE_NAME gives no other.

    Raises:
        DependencyError: the `otel` extra is not installed, or the exporter that is asked for.
    """
    for needed in _NEEDS:
        try:
            importlib.import_module(needed)
        except ImportError as error:
            raise DependencyError(_ADVICE.format(needed.rpartition(".")[0])) from error
    from opentelemetry import trace  # noqa: PLC0415 - an extra
    from opentelemetry.sdk import _configuration as sdk  # noqa: PLC0415

    # The defaults of this distribution, which is what the SDK's configurator is made for.
    for variable, default in (
        ("OTEL_SERVICE_NAME", name),
        ("OTEL_TRACES_EXPORTER", "otlp"),
        ("OTEL_EXPORTER_OTLP_PROTOCOL", "http/protobuf"),
    ):
        os.environ[variable] = os.environ.get(variable) or default
    try:
        type("Configurator", (cast("Any", sdk)._OTelSDKConfigurator,), {})().configure()
    except RuntimeError as error:
        raise DependencyError(_ADVICE.format(f"what OTEL_* asks for ({error})")) from error
    return Tracing(cast("TracerProvider", trace.get_tracer_provider()))


def add_trace_ids(_logger: Any, _name: str, event: Any) -> Any:
    """A processor of log lines: the ids of the trace and the span at hand, in hex."""
    from opentelemetry.trace import get_current_span  # noqa: PLC0415 - an extra

    context = get_current_span().get_span_context()
    if context.is_valid:
        event["trace_id"] = f"{context.trace_id:032x}"
        event["span_id"] = f"{context.span_id:016x}"
    return event


def _first_name(scope: Scope) -> tuple[str, dict[str, Any]]:
    """Before routing only the method is known; a path would be text of a client's choosing."""
    return str(scope.get("method", "HTTP")), {}


def _named_by_route(app: ASGIApp) -> ASGIApp:
    """The application; the span around it gets its name when the answer begins."""
    from opentelemetry.trace import get_current_span  # noqa: PLC0415 - an extra

    async def named(scope: Scope, receive: Receive, send: Send) -> None:
        async def send_named(message: Message) -> None:
            route = getattr(scope.get("route"), "path", None)
            if message["type"] == "http.response.start" and route is not None:
                span = get_current_span()
                span.update_name(f"{scope['method']} {route}")
                span.set_attribute("http.route", route)
            await send(message)

        await app(scope, receive, send_named)

    return named
