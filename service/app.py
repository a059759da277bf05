"""create_app(settings): every part of the service, put together; no state at module level."""

import asyncio
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from importlib.metadata import version

import structlog
from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.responses import Response

from model.cli.threads import limit_threads
from model.errors import RetrievalError
from service.admission import ByteBudget, Places
from service.cache.embeddings import make_cache
from service.decoding.pool import DecodePool
from service.errors import (
    INTERNAL,
    METHOD_NOT_ALLOWED,
    ROUTE_NOT_FOUND,
    FieldProblem,
    InvalidParameterError,
    OverloadedError,
    Row,
    row_of,
)
from service.http import docs
from service.http.auth import Access
from service.http.body_limit import BodyGuard, RequestLog
from service.http.drain import Drain
from service.http.early_refusal import make_gate
from service.http.problems import problem_response, response_of
from service.keys.keys import KeyRing
from service.lifecycle import Runtime, prepare_thread
from service.observability.metrics import Metrics
from service.observability.request_context import context_of
from service.observability.stopwatch import Stopwatch
from service.observability.tracing import Tracing
from service.quota import Quota
from service.redis.link import RedisLink
from service.routes import embed, health, indexes, info, openapi, search, similarity
from service.routes import metrics as metrics_route
from service.routes.gauges import Gauges
from service.routes.state import State
from service.schemas.info import Limits
from service.settings import Settings, parse_rate
from service.work.batcher import Batcher
from service.work.engine import Engine
from service.work.pipeline import Pipeline

# Room for the form fields, JSON members and part headers around the images of a body.
_OVERHEAD_BYTES = 64 * 1024

log = structlog.stdlib.get_logger()


def create_app(
    settings: Settings,
    *,
    on_fatal: Callable[[Exception], None] | None = None,
    tracing: Tracing | None = None,
) -> FastAPI:
    """The application; it loads its model and indexes in the background once it is started.

    Args:
        settings: the deployment.
        on_fatal: told, on the event loop, when the checkpoint is refused; None: only /readyz says.
        tracing: gets a span of each request; closed with the application. None: no traces.

    Raises:
        KeysFileError: there is to be a file of keys, and it cannot be read or is damaged.
    """
    keys = None if settings.keys_file is None else KeyRing(settings.keys_file)
    receiving = Places(settings.max_concurrent_requests, "are being received")
    working = Places(settings.max_queue, "are in work or waiting")
    metrics = Metrics()
    link = _make_link(settings)
    drain = Drain()

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncGenerator[None]:
        _log_keys(keys, settings.host)
        limit_threads(settings.threads_per_worker)
        runtime = _make_runtime(
            settings,
            receiving=receiving,
            working=working,
            drain=drain,
            metrics=metrics,
            tracing=tracing,
            link=link,
            on_fatal=on_fatal,
        )
        app.state.service = State(runtime, limits_of(settings), metrics, link)
        gauges = Gauges(runtime, receiving=receiving, working=working, version=app.version)
        metrics.registry.register(gauges)
        if link is not None:
            link.start()
        runtime.start()
        try:
            yield
        finally:
            metrics.registry.unregister(gauges)
            await runtime.stop()
            if link is not None:
                await link.stop()
            if tracing is not None:
                await asyncio.to_thread(tracing.close)

    app = FastAPI(
        title="LipSim Retrieval",
        version=version(info.PACKAGE),
        description=openapi.DESCRIPTION,
        lifespan=lifespan,
        docs_url=None,
        redoc_url=None,
        redirect_slashes=False,
    )
    for part in (search, similarity, embed, indexes, info, health, metrics_route, docs):
        app.include_router(part.router)
    app.add_middleware(
        Access,
        keys=keys,
        quota=Quota(link),
        rate=parse_rate(settings.rate_limit) if settings.rate_limit else None,
    )
    # Around Access: it reads nothing by itself, and lets a client that is refused see why.
    app.add_middleware(
        BodyGuard,
        limit=body_limit(settings.max_image_bytes),
        timeout_s=settings.body_timeout_s,
        budget=ByteBudget(settings.max_body_bytes_held),
    )
    app.add_middleware(RequestLog, metrics=metrics)
    if tracing is not None:
        app.add_middleware(tracing.middleware)
    app.exception_handler(RetrievalError)(_answer_ours)
    app.exception_handler(RequestValidationError)(_answer_validation)
    app.exception_handler(HTTPException)(_answer_router)
    openapi.install(app, limits_of(settings))
    app.state.gate = make_gate(receiving, working)
    app.state.drain = drain
    app.state.metrics = metrics
    return app


def _log_keys(keys: KeyRing | None, host: str) -> None:
    if keys is None:
        log.warning("no_keys", meaning="whoever reaches the service may ask", host=host)
    elif keys.keys:
        log.info("keys_in_force", keys=len(keys.keys))
    else:
        log.warning("no_key_in_file", meaning="nobody may ask: `python -m service key NAME`")


def limits_of(settings: Settings) -> Limits:
    """What one request may ask for, as /v1/info says it."""
    return Limits(
        max_image_bytes=settings.max_image_bytes,
        max_image_pixels=settings.max_image_pixels,
        max_image_side=settings.max_image_side,
        formats=sorted(settings.allowed_formats),
        default_k=settings.default_k,
        max_k=settings.max_k,
        body_timeout_s=settings.body_timeout_s,
        queue_timeout_s=settings.queue_timeout_s,
        request_timeout_s=settings.request_timeout_s,
    )


def body_limit(max_image_bytes: int) -> Callable[[str, str], int]:
    """Bytes that a body may have, by path and Content-Type: its images, encoded, and some room."""
    in_base64 = 4 * ((max_image_bytes + 2) // 3)

    def limit(path: str, content_type: str) -> int:
        images = 2 if path.endswith("/similarity") else 1
        is_json = content_type.split(";", 1)[0].strip().lower() == "application/json"
        return images * (in_base64 if is_json else max_image_bytes) + _OVERHEAD_BYTES

    return limit


def _make_runtime(
    settings: Settings,
    *,
    receiving: Places,
    working: Places,
    drain: Drain,
    metrics: Metrics,
    tracing: Tracing | None,
    link: RedisLink | None,
    on_fatal: Callable[[Exception], None] | None,
) -> Runtime:
    async def open_pipeline(engine: Engine) -> Pipeline:
        return await _open_pipeline(
            settings, engine, working, metrics=metrics, tracing=tracing, link=link
        )

    return Runtime(
        data_dir=settings.data_dir,
        checkpoint=settings.checkpoint,
        arithmetic=settings.arithmetic,
        receiving=receiving,
        drain=drain,
        metrics=metrics,
        open_pipeline=open_pipeline,
        poll_interval_s=settings.index_poll_interval_s,
        on_fatal=on_fatal,
    )


def _make_link(settings: Settings) -> RedisLink | None:
    if settings.redis_url is None:
        return None
    return RedisLink(settings.redis_url.get_secret_value(), timeout_s=settings.redis_timeout_s)


async def _open_pipeline(
    settings: Settings,
    engine: Engine,
    working: Places,
    *,
    metrics: Metrics,
    tracing: Tracing | None,
    link: RedisLink | None,
) -> Pipeline:
    limits = settings.decode_limits
    secret = settings.cache_secret
    cache = make_cache(
        engine.embedder,
        limits,
        memory_bytes=settings.cache_bytes,
        link=link,
        secret=None if secret is None else secret.get_secret_value(),
        ttl_s=settings.cache_ttl_s,
    )
    decoders = DecodePool(
        limits,
        size=engine.embedder.input_size,
        processes=settings.workers,
        timeout_s=settings.decode_timeout_s,
        metrics=metrics,
    )
    await decoders.start()
    batcher = Batcher(
        engine.answer,
        threads=settings.workers,
        max_batch=settings.max_batch,
        work_timeout_s=settings.request_timeout_s,
        prepare_thread=prepare_thread(settings.threads_per_worker),
    )

    def on_end(watch: Stopwatch) -> None:
        # Copies: a worker may still be at it.
        metrics.observe_stages(dict(watch.seconds))
        if tracing is not None:
            tracing.record_stages(tuple(watch.laps))

    return Pipeline(
        decoders,
        batcher,
        working,
        queue_timeout_s=settings.queue_timeout_s,
        on_end=on_end,
        cache=cache,
    )


async def _answer_ours(request: Request, error: RetrievalError) -> Response:
    row, context = row_of(error), context_of(request.scope)
    if row.status == INTERNAL.status:
        log.error("internal_error", exc_info=error)
    context.code = row.code
    context.refusal = error.reason if isinstance(error, OverloadedError) else None
    return response_of(error)


async def _answer_validation(request: Request, error: RequestValidationError) -> Response:
    problems = [
        FieldProblem(".".join(str(part) for part in problem["loc"][1:]), problem["msg"])
        for problem in error.errors()
    ]
    return await _answer_ours(request, InvalidParameterError(problems))


async def _answer_router(request: Request, error: HTTPException) -> Response:
    rows = {404: ROUTE_NOT_FOUND, 405: METHOD_NOT_ALLOWED}
    row = rows.get(error.status_code, Row(error.status_code, "http_error", "HTTP error"))
    context_of(request.scope).code = row.code
    return problem_response(row, headers=error.headers)
