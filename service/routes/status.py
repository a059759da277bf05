"""What the service says of itself: limits and versions, probes, metrics."""

import asyncio
import platform
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from fastapi import APIRouter, Depends, Request
from starlette.responses import PlainTextResponse, Response

from index_builder.errors import ItemNotFoundError
from service.errors import RETRY_AFTER_S
from service.lifecycle import ADVICE, Lifecycle
from service.observability.metrics import MEDIA_TYPE
from service.observability.request_context import context_of
from service.routes.dependencies import Service, check_query
from service.routes.indexes import statuses
from service.schemas.status import Info, Limits, Live, Ready, ServedModel
from service.settings import PACKAGE, Settings
from service.work.answers import build_model
from service.work.encoding import json_response

router = APIRouter()

# What every browser shows, by ending.
_PICTURES = {
    ".jpg": "image/jpeg",
    ".jpeg": "image/jpeg",
    ".png": "image/png",
    ".webp": "image/webp",
}

# Those that take part in an answer's numbers or in its transport.
_LIBRARIES = ("torch", "faiss-cpu", "faiss-gpu", "numpy", "pillow", "fastapi", "uvicorn")


@router.get(
    "/v1/info",
    response_model=Info,
    summary="Limits, versions and models",
    tags=["info"],
    dependencies=[Depends(check_query)],
)
async def info(service: Service) -> Response:
    """What one request may ask for, and what answers it."""
    engine = service.need_model().engine
    embedder = engine.embedder
    model = ServedModel(
        **build_model(embedder, embedder.forward_error).model_dump(),
        dim=embedder.dim,
        input_size=embedder.input_size,
        decode_policy=embedder.decode_policy,
    )
    return json_response(
        Info(
            name=PACKAGE,
            version=version(PACKAGE),
            versions=_library_versions(),
            limits=limits_of(service.parts.settings),
            models=[model],
            indexes=[entry.name for entry in engine.registry.entries() if entry.index is not None],
            examples=list(_examples(service)),
        )
    )


@router.get(
    "/v1/examples/{name}",
    response_class=Response,
    summary="A picture to try",
    tags=["info"],
    dependencies=[Depends(check_query)],
    responses={200: {"content": {"image/*": {"schema": {"type": "string", "format": "binary"}}}}},
)
async def example(name: str, service: Service) -> Response:
    """One of the pictures that the operator offers to try a search with; /v1/info lists them."""
    path = _examples(service).get(name)
    if path is None:
        raise ItemNotFoundError("there is no example of this name")
    content = await asyncio.to_thread(path.read_bytes)
    return Response(content, media_type=_PICTURES[path.suffix.lower()])


def _examples(service: Lifecycle) -> dict[str, Path]:
    """The pictures in the operator's folder, by name: a request never becomes a path."""
    folder = service.parts.settings.examples_dir
    found = sorted(folder.iterdir()) if folder is not None and folder.is_dir() else []
    return {p.name: p for p in found if p.suffix.lower() in _PICTURES and p.is_file()}


def limits_of(settings: Settings) -> Limits:
    said = {name: getattr(settings, name) for name in Limits.model_fields if name != "formats"}
    said["max_batch_bytes"] = settings.batch_limit_bytes
    return Limits(**said, formats=sorted(settings.allowed_formats))


def _library_versions() -> dict[str, str]:
    versions = {"python": platform.python_version()}
    for name in _LIBRARIES:
        try:
            versions[name] = version(name)
        except PackageNotFoundError:  # One of the two FAISS packages is absent, always.
            continue
    return versions


@router.get("/livez", response_model=Live, summary="Is the process alive", tags=["health"])
async def live() -> Response:
    """200 as long as the process answers at all."""
    return json_response(Live(status="live"))


@router.get(
    "/readyz",
    response_model=Ready,
    summary="Can searches be answered",
    tags=["health"],
    responses={503: {"model": Ready, "description": "Not ready; `reason` says why."}},
)
async def ready(request: Request, service: Service) -> Response:
    """200 when the model is warm and indexes serve; else 503 with a reason for machines."""
    parts, loaded = service.parts, service.loaded
    reason = service.unready_reason()
    answer = Ready(status="not_ready" if reason else "ready", reason=reason)
    # What is served is for those who may ask for it.
    if context_of(request.scope).key is not None or not parts.has_keys:
        known = {
            "detail": ADVICE[reason] if reason else None,
            "indexes": statuses(loaded.engine.registry) if loaded is not None else [],
            "redis": "off" if parts.redis is None else parts.redis.status,
        }
        answer = answer.model_copy(update=known)
    if reason is None:
        return json_response(answer)
    response = json_response(answer, 503)
    response.headers["Retry-After"] = str(RETRY_AFTER_S)
    return response


_METRICS_EXAMPLE = """# HELP lipsim_requests_total Requests that reached a route, or none.
# TYPE lipsim_requests_total counter
lipsim_requests_total{method="POST",route="/v1/search",status="200"} 12.0
"""


@router.get(
    "/metrics",
    response_class=PlainTextResponse,
    summary="Numbers for Prometheus",
    tags=["health"],
    responses={200: {"content": {"text/plain": {"example": _METRICS_EXAMPLE}}}},
)
async def metrics(service: Service) -> Response:
    """Counters, histograms and gauges as text; docs/observability.md lists them."""
    return Response(service.parts.metrics.render(), media_type=MEDIA_TYPE)
