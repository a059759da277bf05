"""POST an image, get the nearest entries, their distances and what is proved about each."""

from fastapi import APIRouter, Request
from starlette.responses import Response

from service.errors import FieldProblem, InvalidParameterError
from service.http.route_specs import SEARCH
from service.http.upload import read_upload
from service.observability.request_context import context_of
from service.routes.dependencies import Service
from service.schemas.search import SearchAnswer, SearchOptions
from service.settings import Settings
from service.work.answers import find_point
from service.work.encoding import json_response
from service.work.jobs import SearchJob, batch_key

router = APIRouter(tags=["search"])


@router.post("/v1/search", response_model=SearchAnswer, summary="Search an index by image")
@router.post("/search", response_model=SearchAnswer, summary="Alias of /v1/search")
async def search(request: Request, service: Service) -> Response:
    """Nearest entries of one index version, each with its certified radius.

    The image comes as the multipart field `image`, as `image_base64` in JSON, or as the raw body;
    the options as form fields, JSON members, or query parameters. One option may be given once.
    """
    settings = service.parts.settings
    with service.parts.admission.receiving.take():
        loaded = service.need_indexes()  # Refuses before the body is read.
        upload = await read_upload(request, SEARCH)
        options = upload.options
        key = batch_key(options, _settle_k(options, settings))
        context = context_of(request.scope)
        context.k = key.k
        # What nothing could answer is refused before its image is looked at; and what a client made
        # up has no place in the log.
        entry = loaded.engine.registry.entry(options.index)
        context.index = entry.name
        find_point(entry.serving(), options.operating_point)
        content = await loaded.pipeline.answer(
            request,
            upload.images,
            lambda images, watch: SearchJob(images, options, key, watch),
            wants_pixels=options.include_audit,
            wants_trim=options.trim,
        )
    return json_response(content)


def _settle_k(options: SearchOptions, settings: Settings) -> int:
    """What was asked for, or the deployment's default.

    Raises:
        InvalidParameterError: it is more than one search may ask for.
    """
    k = options.k if "k" in options.model_fields_set else settings.default_k
    if k > settings.max_k:
        raise InvalidParameterError([FieldProblem("k", f"should be at most {settings.max_k}")])
    return k
