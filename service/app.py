"""create_app(settings): every part of the service, put together; no state at module level."""

import asyncio
import os
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from importlib.metadata import version

import structlog
from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.middleware.cors import CORSMiddleware
from starlette.responses import Response

from model.cli.threads import limit_threads
from model.errors import RetrievalError
from service.admission import Admission
from service.http import pages
from service.http.auth import AuthMiddleware
from service.http.body_limit import BodyLimit
from service.http.problems import answer_error
from service.http.request_log import RequestLog
from service.keys.keys import KeyRing
from service.keys.quota import Quota
from service.lifecycle import Lifecycle, Parts
from service.observability.metrics import Metrics
from service.observability.tracing import Tracing
from service.redis.link import RedisLink
from service.routes import challenge, embed, indexes, openapi, search, similarity, status, tolerance
from service.routes.gauges import Gauges
from service.settings import PACKAGE, Settings, parse_rate, unknown_variables

log = structlog.stdlib.get_logger()

# Headers of answers that a page of another origin may read.
_READABLE = (
    *("X-Request-ID", "ETag", "Retry-After"),
    *("RateLimit-Limit", "RateLimit-Remaining", "RateLimit-Reset"),
)


def create_app(
    settings: Settings | None = None,
    *,
    on_fatal: Callable[[Exception], None] | None = None,
    tracing: Tracing | None = None,
) -> FastAPI:
    """The application; it loads its model and indexes in the background once it is started.

    `python -m service` serves it with bounds on connections (`http/server.py`). Another ASGI server
    can (`uvicorn --factory service.app:create_app`): then they are the business of what is in
    front.

    Args:
        settings: the deployment; None: as the environment says.
        on_fatal: told, on the event loop, when the checkpoint is refused; None: only /readyz says.
        tracing: gets a span of each request; closed with the application. None: no traces.

    Raises:
        KeysFileError: there is to be a file of keys, and it cannot be read or is damaged.
    """
    settings = settings or Settings()
    keys = None if settings.keys_file is None else KeyRing(settings.keys_file)
    admission = Admission(
        max_receiving=settings.max_concurrent_requests,
        max_working=settings.max_queue,
        max_body_bytes=settings.max_body_bytes_held,
        workers=settings.workers,
    )
    metrics = Metrics()
    url = None if settings.redis_url is None else settings.redis_url.get_secret_value()
    redis = None if url is None else RedisLink(url, timeout_s=settings.redis_timeout_s)

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncGenerator[None]:
        _log_keys(keys, settings.host)
        for name in unknown_variables(os.environ):
            log.warning("unknown_setting", variable=name, meaning="no setting has this name")
        limit_threads(settings.threads_per_worker)
        lifecycle = Lifecycle(
            Parts(settings, admission, metrics, redis, tracing, has_keys=keys is not None),
            on_fatal=on_fatal,
        )
        app.state.lifecycle = lifecycle
        gauges = Gauges(lifecycle, version=app.version)
        metrics.registry.register(gauges)
        if redis is not None:
            redis.start()
        lifecycle.start()
        try:
            yield
        finally:
            metrics.registry.unregister(gauges)
            await lifecycle.stop()
            if redis is not None:
                await redis.stop()
            if tracing is not None:
                await asyncio.to_thread(tracing.close)

    app = FastAPI(
        title="LipSim Retrieval",
        version=version(PACKAGE),
        description=openapi.DESCRIPTION,
        lifespan=lifespan,
        docs_url=None,
        redoc_url=None,
        redirect_slashes=False,
    )
    for part in (search, tolerance, challenge, similarity, embed, indexes, status, pages):
        app.include_router(part.router)
    # The last to be added is the first that a request meets. The keys are below the body's limit,
    # which reads nothing by itself and lets a client that is refused see why.
    app.add_middleware(
        AuthMiddleware,
        keys=keys,
        quota=Quota(redis),
        rate=parse_rate(settings.rate_limit) if settings.rate_limit else None,
    )
    app.add_middleware(
        BodyLimit,
        max_image_bytes=settings.max_image_bytes,
        max_batch_bytes=settings.batch_limit_bytes,
        timeout_s=settings.body_timeout_s,
        budget=admission.bodies,
    )
    if settings.allowed_origins:
        # Above the keys: a browser asks without one whether it may ask.
        app.add_middleware(
            CORSMiddleware,
            allow_origins=settings.allowed_origins,
            allow_methods=["GET", "POST"],
            allow_headers=["Authorization", "X-API-Key", "X-Request-ID", "If-None-Match"],
            expose_headers=_READABLE,
        )
    app.add_middleware(RequestLog, metrics=metrics)
    if tracing is not None:
        app.add_middleware(tracing.middleware)
    for kind in (RetrievalError, RequestValidationError, HTTPException):
        app.exception_handler(kind)(_answer)
    openapi.install(app, status.limits_of(settings))
    app.state.admission = admission
    app.state.metrics = metrics
    return app


async def _answer(request: Request, error: Exception) -> Response:
    return answer_error(error, request.scope)


def _log_keys(keys: KeyRing | None, host: str) -> None:
    if keys is None:
        log.warning("no_keys", meaning="whoever reaches the service may ask", host=host)
    elif keys.keys:
        log.info("keys_in_force", keys=len(keys.keys))
    else:
        log.warning("no_key_in_file", meaning="nobody may ask: `python -m service key NAME`")
