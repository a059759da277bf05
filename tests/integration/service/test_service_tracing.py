"""Traces through the real service, into memory."""

import json
import os
import subprocess
import sys
from pathlib import Path

import httpx
import pytest
from service_helpers import StartServer, draw_picture, encode, open_client

from service.observability.tracing import Tracing
from service.settings import Settings

trace = pytest.importorskip("opentelemetry.sdk.trace", reason="the otel extra is missing")
export = pytest.importorskip(
    "opentelemetry.sdk.trace.export.in_memory_span_exporter", reason="the otel extra is missing"
)
pytest.importorskip("opentelemetry.instrumentation.asgi", reason="the otel extra is missing")

PICTURE = encode(draw_picture(3))


def test_a_request_is_one_trace_with_a_span_for_each_stage(data_dir: Path):
    exporter = export.InMemorySpanExporter()
    provider = trace.TracerProvider()
    provider.add_span_processor(trace.export.SimpleSpanProcessor(exporter))
    tracing = Tracing(provider)
    parent = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
    with open_client(Settings(data_dir=data_dir), tracing=tracing) as client:
        found = client.post(
            "/v1/search", content=PICTURE, headers={
                "content-type": "image/png", "traceparent": parent
            },
        )  # fmt: skip
        client.get("/v1/secret-path-of-a-client")
        client.get("/metrics")
    assert found.status_code == 200
    spans = exporter.get_finished_spans()
    trees = {span.name: span for span in spans}
    root = trees["POST /v1/search"]
    assert root.attributes["http.route"] == "/v1/search"
    assert f"{root.context.trace_id:032x}" == "0af7651916cd43dd8448eb211c80319c"
    stages = [span for span in spans if span.parent and span.parent.span_id == root.context.span_id]
    assert {span.name for span in stages} == {
        "cache",
        "queue",
        "decode",
        "embed",
        "search",
        "certify",
    }
    for span in stages:
        assert root.start_time - 1e6 <= span.start_time <= span.end_time <= root.end_time + 1e6
    assert "GET" in trees
    assert not any("secret" in span.name or "metrics" in span.name for span in spans)


WITHOUT_THE_EXTRA = """
import sys
sys.modules["opentelemetry.instrumentation.asgi"] = None
from service.__main__ import cli
cli(["--port", "0"])
"""


def test_tracing_without_the_extra_is_said_at_the_start():
    done = subprocess.run(
        [sys.executable, "-c", WITHOUT_THE_EXTRA],
        env={**os.environ, "LIPSIM_TRACING": "true"},
        capture_output=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 2
    assert b"pip install 'lipsim-retrieval[otel]'" in done.stderr


def test_log_lines_name_the_trace(
    start_server: StartServer, data_dir: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("OTEL_TRACES_EXPORTER", "console")
    server = start_server(data_dir, tracing="true")
    server.wait_ready()
    httpx.get(f"{server.url}/v1/info")
    server.stop()
    lines = [line for line in server.log.read_text().splitlines() if line.startswith('{"')]
    requests = [found for found in map(json.loads, lines) if found["event"] == "request"]
    traced = {found["path"]: found.get("trace_id") for found in requests}
    assert len(traced["/v1/info"]) == 32
    assert traced["/readyz"] is None
