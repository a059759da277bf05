"""POST an image, get its raw embedding."""

from fastapi import APIRouter, Request
from starlette.responses import Response

from service.answers import encode, json_response
from service.body import read_upload
from service.routes.state import ServiceState
from service.schemas.embed import EmbedAnswer, EmbedOptions

router = APIRouter(tags=["embed"])


@router.post("/v1/embed", response_model=EmbedAnswer, summary="Embed an image")
@router.post("/embed", response_model=EmbedAnswer, summary="Alias of /v1/embed")
async def embed(request: Request, state: ServiceState) -> Response:
    """The raw embedding (float64, never normalised) and the fingerprint it belongs to."""
    with state.runtime.admission.admit():
        engine = state.runtime.engine
        upload = await read_upload(request, ("image",), EmbedOptions)
        image = upload.images[0]
        content = await state.runtime.pool.run(
            lambda waited_s: encode(engine.embed(image, waited_s))
        )
    return json_response(content)
