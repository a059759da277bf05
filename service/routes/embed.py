"""POST an image, get its raw embedding."""

from fastapi import APIRouter, Request
from starlette.responses import Response

from service.http.route_specs import EMBED
from service.http.upload import read_upload
from service.routes.dependencies import ImageRoute, Service
from service.schemas.embed import EmbedAnswer
from service.work.encoding import json_response
from service.work.jobs import EmbedJob
from service.work.pipeline import Wants

router = APIRouter(tags=["embed"], route_class=ImageRoute)


@router.post("/v1/embed", response_model=EmbedAnswer, summary="Embed an image")
@router.post("/embed", response_model=EmbedAnswer, summary="Alias of /v1/embed")
async def embed(request: Request, service: Service) -> Response:
    """The raw embedding (float64, never normalised) and the fingerprint it belongs to."""
    with service.parts.admission.receiving.take():
        pipeline = service.need_model().pipeline
        upload = await read_upload(request, EMBED)
        content = await pipeline.answer(
            request,
            upload.images,
            lambda images, watch: EmbedJob(images, upload.options, watch),
            Wants(input=upload.options.include_input),
        )
    return json_response(content)
