"""POST an image, or many, get the nearest entries, their distances and what is proved of each."""

import json
from dataclasses import replace

from fastapi import APIRouter, Request
from starlette.responses import Response
from starlette.types import Scope

from service.errors import FieldProblem, InvalidParameterError, OverloadedError
from service.http.auth import charge
from service.http.problems import as_json, problem_of_item
from service.http.route_specs import SEARCH, SEARCH_BATCH
from service.http.upload import read_upload
from service.lifecycle import Lifecycle
from service.observability.request_context import context_of
from service.routes.dependencies import ImageRoute, Service
from service.schemas.batch import BatchAnswer
from service.schemas.search import AskedOptions, SearchAnswer, SearchOptions, SingleSearchOptions
from service.settings import Settings
from service.work.answers import find_point
from service.work.encoding import json_response
from service.work.jobs import BatchKey, SearchJob, batch_key
from service.work.pipeline import Wants

router = APIRouter(tags=["search"], route_class=ImageRoute)


@router.post("/v1/search", response_model=SearchAnswer, summary="Search an index by image")
@router.post("/search", response_model=SearchAnswer, summary="Alias of /v1/search")
async def search(request: Request, service: Service) -> Response:
    """Nearest entries of one index version, each with its certified radius.

    The image comes as the multipart field `image`, as `image_base64` in JSON, or as the raw body;
    the options as form fields, JSON members, or query parameters. One option may be given once.
    `item` stands in place of an image: what is most like an item of the index.
    """
    with service.parts.admission.receiving.take():
        loaded = service.need_indexes()  # Refuses before the body is read.
        upload = await read_upload(request, SEARCH)
        options = upload.options
        key = _check(service, options, request.scope)
        content = await loaded.pipeline.answer(
            request,
            upload.images,
            lambda images, watch: SearchJob(images, options, key, watch),
            _wants(options),
        )
    return json_response(content)


@router.post(
    "/v1/search/batch", response_model=BatchAnswer, summary="Search an index by many images"
)
async def search_batch(request: Request, service: Service) -> Response:
    """The same for each of up to 64 images, all by one version of the index.

    They come as the multipart field `image`, repeated, whose file names are echoed, or as `items`
    in JSON. The options are those of every image. An image that cannot be used costs only itself:
    its part of the answer says what alone it would have been answered with.
    """
    with service.parts.admission.receiving.take():
        loaded = service.need_indexes()
        upload = await read_upload(request, SEARCH_BATCH)
        options, items = upload.options, upload.items
        places = service.parts.admission.working.capacity
        context_of(request.scope).images = len(items)
        if len(items) > places:
            message = f"are {len(items)} images, and this service has places for {places}"
            raise InvalidParameterError([FieldProblem("items", message)])
        key = _check(service, options, request.scope)
        await charge(request.scope, len(items) - 1)
        with loaded.engine.registry.lease(key.index) as version:
            pinned = replace(key, version=version)
            answers = await loaded.pipeline.answer_each(
                request,
                [item.data for item in items],
                lambda images, watch: SearchJob(images, options, pinned, watch),
                _wants(options),
            )
    found = [
        _item(item.name, answer, service, request.scope)
        for item, answer in zip(items, answers, strict=True)
    ]
    return json_response(b'{"items":[' + b",".join(found) + b"]}")


def _item(name: str | None, answer: bytes | Exception, service: Lifecycle, scope: Scope) -> bytes:
    """One image's part of the answer to a batch."""
    status, member = 200, b'"answer":'
    if isinstance(answer, Exception):
        metrics, problem = service.parts.metrics, problem_of_item(answer, scope)
        metrics.problems.labels(problem["code"]).inc()
        if isinstance(answer, OverloadedError):
            metrics.refusals.labels(answer.reason).inc()
        status, member, answer = problem["status"], b'"problem":', as_json(problem)
    return b'{"id":%s,"status":%d,%s%s}' % (json.dumps(name).encode(), status, member, answer)


def _check(service: Lifecycle, options: SearchOptions, scope: Scope) -> BatchKey:
    """What is asked of the index; what nothing could answer is refused before its image is seen.

    Raises:
        InvalidParameterError: options that do not go together, or too large a k.
        UnknownOperatingPointError: the index has none of that name.
        IndexNotFoundError: there is no such index.
        IndexUnavailableError: no version of it could be opened.
    """
    _check_together(options)
    return check_asked(service, options, scope)


def check_asked(service: Lifecycle, options: AskedOptions, scope: Scope) -> BatchKey:
    """The same of what every question about an index's answers has; it raises the same."""
    key = batch_key(options, _settle_k(options, service.parts.settings))
    context = context_of(scope)
    context.k = key.k
    entry = service.need_indexes().engine.registry.entry(options.index)
    context.index = entry.name  # What a client made up has no place in the log.
    find_point(entry.serving(), options.operating_point)
    return key


def _wants(options: SearchOptions) -> Wants:
    return Wants(options.include_audit, options.trim, options.include_input)


def _check_together(options: SearchOptions) -> None:
    """Refuse options that do not go with one another."""
    of_pixels = ("trim", "include_input", "include_audit")
    asked = [name for name in of_pixels if getattr(options, name)]
    if isinstance(options, SingleSearchOptions) and options.item is not None and asked:
        message = "needs the pixels of an image, which an item of the index has not"
        raise InvalidParameterError([FieldProblem(name, message) for name in asked])
    if options.include_input and options.include_audit:
        message = "does not go into a record: include_audit names the pixels themselves"
        raise InvalidParameterError([FieldProblem("include_input", message)])


def _settle_k(options: AskedOptions, settings: Settings) -> int:
    """What was asked for, or the deployment's default.

    Raises:
        InvalidParameterError: it is more than one search may ask for.
    """
    k = options.k if "k" in options.model_fields_set else settings.default_k
    if k > settings.max_k:
        raise InvalidParameterError([FieldProblem("k", f"should be at most {settings.max_k}")])
    return k
