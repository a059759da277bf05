"""POST two images, get their distance, its certified interval, and a verdict with its radius."""

from fastapi import APIRouter, Request
from starlette.responses import Response

from service.http.route_specs import SIMILARITY
from service.http.upload import read_upload
from service.routes.dependencies import ImageRoute, Service
from service.schemas.similarity import SimilarityAnswer
from service.work.encoding import json_response
from service.work.jobs import SimilarityJob

router = APIRouter(tags=["similarity"], route_class=ImageRoute)


@router.post("/v1/similarity", response_model=SimilarityAnswer, summary="Compare two images")
@router.post("/similarity", response_model=SimilarityAnswer, summary="Alias of /v1/similarity")
async def similarity(request: Request, service: Service) -> Response:
    """Distance of two images; with `epsilon` its interval, with `threshold` a verdict and radii.

    The images come as the multipart fields `image_a` and `image_b`, or as `image_a_base64` and
    `image_b_base64` in JSON; a raw body cannot hold two.
    """
    with service.parts.admission.receiving.take():
        pipeline = service.need_model().pipeline
        upload = await read_upload(request, SIMILARITY)
        content = await pipeline.answer(
            request,
            upload.images,
            lambda images, watch: SimilarityJob(images, upload.options, watch),
        )
    return json_response(content)
