"""Numbers for Prometheus; like the probes, let in whatever else is refused."""

from fastapi import APIRouter
from starlette.responses import PlainTextResponse, Response

from service.observability.metrics import MEDIA_TYPE
from service.routes.state import ServiceState

router = APIRouter(tags=["health"])


@router.get("/metrics", response_class=PlainTextResponse, summary="Numbers for Prometheus")
async def metrics(state: ServiceState) -> Response:
    """Counters, histograms and gauges as text; docs/observability.md lists them."""
    return Response(state.metrics.render(), media_type=MEDIA_TYPE)
