"""POST an image, get the worst noise of a given length that is found against one result."""

from fastapi import APIRouter, Request
from starlette.responses import Response

from service.errors import ChallengeDisabledError
from service.http.auth import charge
from service.http.route_specs import CHALLENGE
from service.http.upload import read_upload
from service.routes.dependencies import ImageRoute, Service
from service.routes.search import check_asked
from service.schemas.challenge import ChallengeAnswer
from service.work.encoding import json_response
from service.work.jobs import ChallengeJob
from service.work.pipeline import Wants

router = APIRouter(tags=["search"], route_class=ImageRoute)

_STEP_COST = 3


@router.post("/v1/challenge", response_model=ChallengeAnswer, summary="Attack one result")
async def challenge(request: Request, service: Service) -> Response:
    """Noise within an l2 budget that tries to push a result out of the answer.

    Below the result's certified radius none can; far above it, it mostly does. Off unless the
    deployment allows it (LIPSIM_CHALLENGE); with keys it needs the scope admin.
    """
    admission = service.parts.admission
    if not service.parts.settings.challenge:
        raise ChallengeDisabledError("this deployment makes no attacks: LIPSIM_CHALLENGE is false")
    with admission.receiving.take():
        loaded = service.need_indexes()
        upload = await read_upload(request, CHALLENGE)
        options = upload.options
        key = check_asked(service, options, request.scope)
        with admission.challenging.take():
            await charge(request.scope, _STEP_COST * options.steps - 1)
            content = await loaded.pipeline.answer(
                request,
                upload.images,
                lambda images, watch: ChallengeJob(images, options, key, watch),
                Wants(image=True),
            )
    return json_response(content)
