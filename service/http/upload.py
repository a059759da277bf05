"""The one body reader: multipart, JSON or a raw image in; image bytes and checked options out."""

import asyncio
import base64
import binascii
import json
from dataclasses import dataclass
from typing import Any, Generic, NamedTuple

from pydantic import ValidationError
from starlette.requests import ClientDisconnect, Request

from index_builder.filters.language import MAX_BYTES
from model.errors import RetrievalError
from service.errors import (
    BadRequestError,
    ClientGoneError,
    FieldProblem,
    InvalidParameterError,
    MediaTypeError,
    MissingFieldError,
)
from service.http.multipart import MultipartReader, check_name
from service.http.route_specs import OptionsT, RouteSpec
from service.schemas.batch import BatchItem, BatchItems

# Below this a body is parsed at once; above, in a thread, so that the event loop goes on.
_INLINE_BYTES = 64 * 1024
# Beginnings of lists and objects, and commas: a flat object of a dozen members has few, a filter no
# more than bytes, and base64 none. Python's parser makes 20 bytes of memory of each byte of
# `[],[],`, and lets nothing else run while it does.
_MOST_STRUCTURE = 1000 + MAX_BYTES


class NamedImage(NamedTuple):
    """One image of a batch, or why it cannot be read, by the name that its sender gave it."""

    name: str | None
    data: bytes | RetrievalError


@dataclass(frozen=True)
class Upload(Generic[OptionsT]):
    """What one request holds: its images in the order of the route's fields, and its options.

    There are no images where an option stands in for them, nor in a batch, which has `items`.
    """

    images: tuple[bytes, ...]
    options: OptionsT
    items: tuple[NamedImage, ...] = ()


@dataclass(frozen=True)
class _Body(Generic[OptionsT]):
    """What a body holds: images by the names that they have there, and options."""

    images: dict[str, bytes]
    options: OptionsT
    fields: tuple[str, ...]
    """The names that it may have images under."""
    items: tuple[NamedImage, ...] = ()


async def read_upload(request: Request, spec: RouteSpec[OptionsT]) -> Upload[OptionsT]:
    """Read a request by its Content-Type.

    Args:
        request: the request, its body not yet read.
        spec: what its route takes; query parameters are read for every kind of body.

    Raises:
        MediaTypeError: the Content-Type or Content-Encoding is not one that we read.
        BadRequestError: the body is not what its Content-Type says.
        MissingFieldError: an image is not there.
        InvalidParameterError: an option is unknown, wrong, or given twice.
    """
    query = _query_options(request, spec.options)
    for encoding in request.headers.getlist("content-encoding"):
        if encoding.strip().lower() not in ("", "identity"):
            raise MediaTypeError("a Content-Encoding is not accepted: send the body as it is")
    if len(request.headers.getlist("content-type")) > 1:
        raise MediaTypeError("Content-Type is given more than once")
    content_type = request.headers.get("content-type", "")
    media_type = content_type.split(";", 1)[0].strip().lower()
    try:
        if media_type == "multipart/form-data":
            body = await _read_multipart(request, content_type, spec)
        elif media_type == "application/json":
            body = await _read_json(request, spec)
        elif _is_raw(media_type) and spec.takes_raw:
            images = dict.fromkeys(spec.images, await request.body())
            body = _Body(images, spec.options(), spec.images)
        elif not media_type and not _has_body(request):
            body = _Body({}, spec.options(), spec.images)
        else:
            raise _not_readable(media_type, takes_raw=spec.takes_raw)
    except ClientDisconnect as error:
        raise ClientGoneError("the connection closed before the body was complete") from error
    options = _merge(body.options, query)
    if body.items:
        return Upload((), options, body.items)
    return Upload(_settle_images(body, options, spec.stand_in), options)


def _settle_images(
    body: _Body[OptionsT], options: OptionsT, stand_in: str | None
) -> tuple[bytes, ...]:
    """Every image of the route, or none where an option stands in for them."""
    if stand_in is not None and getattr(options, stand_in) is not None:
        if body.images:
            raise InvalidParameterError(
                [FieldProblem(stand_in, "stands in place of the image: give one of the two")]
            )
        return ()
    missing = [name for name in body.fields if name not in body.images]
    if missing:
        raise MissingFieldError([FieldProblem(name, "is required") for name in missing])
    return tuple(body.images[name] for name in body.fields)


def _is_raw(media_type: str) -> bool:
    return media_type.startswith("image/") or media_type == "application/octet-stream"


def _has_body(request: Request) -> bool:
    return "transfer-encoding" in request.headers or (
        request.headers.get("content-length", "0") != "0"
    )


def _not_readable(media_type: str, *, takes_raw: bool) -> Exception:
    raw = ("image/*", "application/octet-stream") if takes_raw else ()
    wanted = ", ".join(("multipart/form-data", "application/json", *raw))
    why = (
        " (a raw body holds one image; this route takes two or more)" if _is_raw(media_type) else ""
    )
    came = repr(media_type[:64]) if media_type else "none"
    return MediaTypeError(f"Content-Type must be one of {wanted}; got {came}{why}")


def _query_options(request: Request, options: type[OptionsT]) -> OptionsT:
    given: dict[str, str] = {}
    for name, value in request.query_params.multi_items():
        check_name(name, options.model_fields.keys(), given)
        given[name] = value
    return _from_strings(options, given)


async def _read_multipart(
    request: Request, content_type: str, spec: RouteSpec[OptionsT]
) -> _Body[OptionsT]:
    options = spec.options
    reader = MultipartReader(
        content_type,
        {*spec.images, *options.model_fields},
        repeated=spec.images[0] if spec.most else "",
        most=spec.most,
    )
    async for chunk in request.stream():
        reader.write(chunk)
    parts = reader.finish()
    given: dict[str, str] = {}
    for name in options.model_fields.keys() & parts.keys():
        try:
            text = parts[name].decode()
        except UnicodeDecodeError as error:
            raise InvalidParameterError([FieldProblem(name, "is not UTF-8 text")]) from error
        if text:  # A browser's form sends what was left empty too: it was not given.
            given[name] = text
    found = {name: parts[name] for name in spec.images if name in parts}
    items = tuple(NamedImage(name, data) for name, data in reader.files)
    return _Body(found, _from_strings(options, given), spec.images, items)


async def _read_json(request: Request, spec: RouteSpec[OptionsT]) -> _Body[OptionsT]:
    # Not `request.body()`, which would keep the text beside the images for the whole request.
    body = bytearray()
    async for chunk in request.stream():
        body += chunk
    if len(body) <= _INLINE_BYTES:
        return _parse_json(body, spec)
    return await asyncio.to_thread(_parse_json, body, spec)


def _parse_json(body: bytearray, spec: RouteSpec[OptionsT]) -> _Body[OptionsT]:
    fields = tuple(f"{name}_base64" for name in spec.images) if not spec.most else ("items",)
    members = _load_object(body)
    for name in members:
        check_name(name, {*fields, *spec.options.model_fields}, ())
    sent = {name: members.pop(name) for name in fields if name in members}
    try:
        options = spec.options.model_validate(members, strict=True)
        if spec.most:
            return _Body({}, options, fields, _named_images(sent))
    except ValidationError as error:
        raise _invalid(error) from error
    found = {name: _from_base64(value, name) for name, value in sent.items()}
    return _Body(found, options, fields)


def _named_images(sent: dict[str, Any]) -> tuple[NamedImage, ...]:
    """The images of a batch; one that is not base64 costs only itself."""
    if "items" not in sent:
        return ()

    def read(item: BatchItem) -> NamedImage:
        try:
            return NamedImage(item.id, _from_base64(item.image_base64, "image_base64"))
        except BadRequestError as error:
            return NamedImage(item.id, error)

    return tuple(map(read, BatchItems.model_validate(sent, strict=True).items))


def _load_object(body: bytearray) -> dict[str, Any]:
    if sum(map(body.count, (b"[", b"{", b","))) > _MOST_STRUCTURE:
        raise BadRequestError("the JSON body must be an object with few members")
    try:
        members = json.loads(
            body.decode(), object_pairs_hook=_unique, parse_constant=_refuse_constant
        )
    except (ValueError, RecursionError) as error:
        raise BadRequestError("the body is not well-formed JSON (UTF-8, no NaN)") from error
    if not isinstance(members, dict):
        raise BadRequestError("the JSON body must be an object")
    return members  # pyright: ignore[reportUnknownVariableType] - JSON: keys are str


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    seen: dict[str, Any] = {}
    for name, value in pairs:
        if name in seen:
            raise InvalidParameterError([FieldProblem(name[:64], "is given more than once")])
        seen[name] = value
    return seen


def _refuse_constant(name: str) -> float:
    raise ValueError(f"{name} is not JSON")


def _from_base64(value: object, name: str) -> bytes:
    if not isinstance(value, str):
        raise InvalidParameterError([FieldProblem(name, "must be a string of base64")])
    refusal = f"{name} is not base64 (RFC 4648, padded, no line breaks)"
    if len(value) % 4 or value.endswith("==="):  # Padding that Python's decoder reads past.
        raise BadRequestError(refusal)
    try:
        return base64.b64decode(value.encode("ascii"), validate=True)
    except (binascii.Error, ValueError) as error:
        raise BadRequestError(refusal) from error


def _from_strings(options: type[OptionsT], given: dict[str, str]) -> OptionsT:
    try:
        return options.model_validate_strings(given)
    except ValidationError as error:
        raise _invalid(error) from error


def _invalid(error: ValidationError) -> InvalidParameterError:
    return InvalidParameterError(
        [
            FieldProblem(".".join(str(part) for part in problem["loc"]), problem["msg"])
            for problem in error.errors(
                include_url=False, include_context=False, include_input=False
            )
        ]
    )


def _merge(body: OptionsT, query: OptionsT) -> OptionsT:
    """Options of body and query together; the same one in both is refused, never overridden."""
    twice = sorted(body.model_fields_set & query.model_fields_set)
    if twice:
        raise InvalidParameterError(
            [FieldProblem(name, "is given both in the body and in the query") for name in twice]
        )
    return body.model_copy(update=query.model_dump(exclude_unset=True))
