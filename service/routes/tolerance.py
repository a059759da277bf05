"""POST an image, get which edits of it provably leave a statement about its answer alone."""

from fastapi import APIRouter, Request
from starlette.responses import Response

from model.pixels.tolerances.pictures import PICTURE_FAMILIES
from service.http.auth import charge
from service.http.route_specs import TOLERANCE
from service.http.upload import read_upload
from service.routes.dependencies import ImageRoute, Service
from service.routes.search import check_asked
from service.schemas.tolerance import ToleranceAnswer, ToleranceOptions
from service.work.encoding import json_response
from service.work.jobs import ToleranceJob
from service.work.pipeline import Wants

router = APIRouter(tags=["search"], route_class=ImageRoute)

_PICTURE_FAMILY_COST = 10


@router.post(
    "/v1/tolerance", response_model=ToleranceAnswer, summary="What a radius means in edits"
)
async def tolerance(request: Request, service: Service) -> Response:
    """Ranges of edits for which a statement about the image's answer provably stays true.

    The image and the question are given as to `/v1/search`. Never add two families up: each range
    is of one edit of the decoded image that was sent, at its own size.
    """
    settings, admission = service.parts.settings, service.parts.admission
    with admission.receiving.take():
        loaded = service.need_indexes()
        upload = await read_upload(request, TOLERANCE)
        options = upload.options
        key = check_asked(service, options, request.scope)
        with admission.measuring.take():
            await charge(request.scope, cost_of(options) - 1)
            content = await loaded.pipeline.answer(
                request,
                upload.images,
                lambda images, watch: ToleranceJob(
                    images,
                    options,
                    key,
                    cpu_s=settings.tolerance_cpu_s,
                    patience_s=settings.request_timeout_s / 2,
                    watch=watch,
                ),
                Wants(image=True),
            )
    return json_response(content)


def cost_of(options: ToleranceOptions) -> int:
    """Requests that one counts as, against the caller's quota."""
    looked_at = sum(name in PICTURE_FAMILIES for name in options.names)
    return 1 + options.chain + _PICTURE_FAMILY_COST * looked_at
