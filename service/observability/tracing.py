"""Traces by OpenTelemetry: one span a request, below it one for each stage. The `otel` extra.

Set up by OpenTelemetry's own variables: OTEL_EXPORTER_OTLP_ENDPOINT and its kin,
OTEL_TRACES_EXPORTER (otlp, console or none), OTEL_TRACES_SAMPLER, OTEL_SERVICE_NAME,
OTEL_RESOURCE_ATTRIBUTES. Nothing is registered globally: an application has its own provider.
"""

import importlib
import os
import time
from collections.abc import Callable, Sequence
from importlib.metadata import entry_points
from typing import TYPE_CHECKING, Any

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from model.errors import DependencyError
from service.observability.stopwatch import Lap

if TYPE_CHECKING:
    from opentelemetry.sdk.trace.export import SpanExporter

_NEEDS = ("opentelemetry.sdk.trace.export", "opentelemetry.instrumentation.asgi")
_ADVICE = "tracing is on, and {} is missing: pip install 'lipsim-retrieval[otel]'"
# Asked every few seconds by machines, and alike every time.
_UNTRACED = "/livez,/readyz,/metrics"


class Tracing:
    """Spans of one application.

    Args:
        exporter: where they go.
        name: of the service, where OTEL_SERVICE_NAME gives no other.
        at_once: export each span when it ends, for tests; else in batches, in a thread.

    Raises:
        DependencyError: the `otel` extra is not installed.
    """

    def __init__(self, exporter: "SpanExporter", *, name: str, at_once: bool = False) -> None:
        check_installed()
        from opentelemetry.sdk.resources import Resource  # noqa: PLC0415 - an extra
        from opentelemetry.sdk.trace import TracerProvider  # noqa: PLC0415
        from opentelemetry.sdk.trace.export import (  # noqa: PLC0415
            BatchSpanProcessor,
            SimpleSpanProcessor,
        )

        given = {} if os.environ.get("OTEL_SERVICE_NAME") else {"service.name": name}
        self._provider = TracerProvider(resource=Resource.create(given), shutdown_on_exit=False)
        processor = SimpleSpanProcessor(exporter) if at_once else BatchSpanProcessor(exporter)
        self._provider.add_span_processor(processor)
        self._tracer = self._provider.get_tracer(name)

    def middleware(self, app: ASGIApp) -> ASGIApp:
        """The application with a span around each request, named by its route's pattern."""
        from opentelemetry.instrumentation.asgi import (  # noqa: PLC0415 - an extra
            OpenTelemetryMiddleware,
        )

        return OpenTelemetryMiddleware(
            _named_by_route(app),
            excluded_urls=_excluded(),
            default_span_details=_first_name,
            tracer_provider=self._provider,
            exclude_spans=["receive", "send"],
        )

    def record_stages(self, laps: Sequence[Lap]) -> None:
        """One span for each lap, below the span of the request at hand."""
        offset_ns = time.time_ns() - time.perf_counter_ns()
        for lap in laps:
            span = self._tracer.start_span(lap.stage, start_time=_at(lap.begun, offset_ns))
            span.end(_at(lap.ended, offset_ns))

    def close(self) -> None:
        """Send what is left."""
        self._provider.shutdown()


def check_installed() -> None:
    """Refuse to trace without OpenTelemetry.

    Raises:
        DependencyError: the `otel` extra is not installed.
    """
    for name in _NEEDS:
        try:
            importlib.import_module(name)
        except ImportError as error:
            raise DependencyError(_ADVICE.format(name.rpartition(".")[0])) from error


def exporter_of_environment() -> "SpanExporter | None":
    """The exporter that OTEL_TRACES_EXPORTER names, otlp (over HTTP) by default; None for none.

    Raises:
        DependencyError: it is not installed.
    """
    check_installed()
    name = os.environ.get("OTEL_TRACES_EXPORTER", "").strip() or "otlp"
    if name == "none":
        return None
    entry = "otlp_proto_http" if name == "otlp" else name
    found = list(entry_points(group="opentelemetry_traces_exporter", name=entry))
    if not found:
        raise DependencyError(_ADVICE.format(f"the exporter {name!r} of OTEL_TRACES_EXPORTER"))
    make: Callable[[], SpanExporter] = found[0].load()
    return make()


def add_trace_ids(_logger: Any, _name: str, event: Any) -> Any:
    """A processor of log lines: the ids of the trace and the span at hand, in hex."""
    from opentelemetry.trace import get_current_span  # noqa: PLC0415 - an extra

    context = get_current_span().get_span_context()
    if context.is_valid:
        event["trace_id"] = f"{context.trace_id:032x}"
        event["span_id"] = f"{context.span_id:016x}"
    return event


def _at(seconds: float, offset_ns: int) -> int:
    return int(seconds * 1e9) + offset_ns


def _excluded() -> str:
    return os.environ.get("OTEL_PYTHON_ASGI_EXCLUDED_URLS", _UNTRACED)


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
