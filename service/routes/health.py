"""Probes: is the process alive, and can it answer."""

from fastapi import APIRouter
from starlette.responses import Response

from service.errors import RETRY_AFTER_S
from service.routes.indexes import statuses
from service.routes.state import ServiceState
from service.schemas.health import Live, Ready
from service.work.encoding import json_response

router = APIRouter(tags=["health"])


@router.get("/livez", response_model=Live, summary="Is the process alive")
async def live() -> Response:
    """200 as long as the process answers at all."""
    return json_response(Live(status="live"))


@router.get("/readyz", response_model=Ready, summary="Can searches be answered")
async def ready(state: ServiceState) -> Response:
    """200 when the model is warm and indexes serve; else 503 with a reason for machines."""
    runtime, redis = state.runtime, state.redis_status
    unready = runtime.unready_reason()
    shelf = runtime.shelf
    indexes = [] if shelf is None else statuses(shelf)
    if unready is None:
        return json_response(
            Ready(status="ready", reason=None, detail=None, indexes=indexes, redis=redis)
        )
    reason, detail = unready
    response = json_response(
        Ready(status="not_ready", reason=reason, detail=detail, indexes=indexes, redis=redis), 503
    )
    response.headers["Retry-After"] = str(RETRY_AFTER_S)
    return response
