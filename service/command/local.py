"""A service in this process, for one command: the client asks it without a socket."""

import asyncio
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path

import httpx
from pydantic import ValidationError

from index_builder.store.layout import index_paths, read_current
from model.cli.threads import limit_threads
from service.app import create_app
from service.client import AsyncClient
from service.errors import ServiceError
from service.lifecycle import Lifecycle
from service.observability.logs import configure_logs
from service.settings import Settings, given_options, problems_of


@asynccontextmanager
async def local_client(
    data_dir: Path | None, checkpoint: Path | None, index: str | None = None
) -> AsyncGenerator[AsyncClient]:
    """A client of the indexes here, opened and checked as a service would; settings count.

    Raises:
        ServiceError: a setting is not allowed.
        RetrievalError: the model is refused, or there is no index of that name.
    """
    given = given_options(data_dir=data_dir, checkpoint=checkpoint)
    try:
        # What stands between a deployment and strangers, or is shared by replicas, has no use here.
        settings = Settings(
            keys_file=None,
            rate_limit=None,
            redis_url=None,
            cache_secret=None,
            tracing=False,
            cache_bytes=0,
            index_poll_interval_s=1e6,
            **given,
        )
    except ValidationError as error:
        raise ServiceError("; ".join(problems_of(error))) from error
    if index is not None:
        read_current(index_paths(settings.data_dir, index))  # Says what is there, and what to do.
    configure_logs("error", "console")
    limit_threads(settings.threads_per_worker)
    refusals: list[Exception] = []
    app = create_app(settings, on_fatal=refusals.append)
    async with app.router.lifespan_context(app):
        lifecycle: Lifecycle = app.state.lifecycle
        while lifecycle.unready_reason() in {"loading_model", "loading_indexes"}:
            await asyncio.sleep(0.02)
        if refusals:
            raise refusals[0]
        transport = httpx.ASGITransport(app, raise_app_exceptions=False)
        async with AsyncClient("http://here", retries=0, transport=transport) as client:
            yield client
