"""Every error that leaves the service: an RFC 9457 document, noted for log and counters."""

import asyncio
import json
from collections.abc import Mapping, Sequence

import structlog
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.responses import Response
from starlette.types import Scope

from index_builder.errors import FilterError
from model.errors import RetrievalError
from service.errors import (
    INTERNAL,
    METHOD_NOT_ALLOWED,
    RETRY_AFTER_S,
    ROUTE_NOT_FOUND,
    ErrorSpec,
    FieldProblem,
    InvalidParameterError,
    NotReadyError,
    OverloadedError,
    QuotaError,
    UnauthorizedError,
    spec_of,
)
from service.observability.request_context import context_of, route_of

MEDIA_TYPE = "application/problem+json"
_OF_ROUTER = {404: ROUTE_NOT_FOUND, 405: METHOD_NOT_ALLOWED}

log = structlog.stdlib.get_logger()


def answer_error(error: BaseException, scope: Scope) -> Response:
    """The answer to whatever ended a request, which is told to its log line and counters."""
    context = context_of(scope)
    if isinstance(error, HTTPException):
        spec = _OF_ROUTER.get(error.status_code) or ErrorSpec(
            error.status_code, "http_error", "HTTP error"
        )
        context.code = spec.code
        return problem_response(spec, headers=error.headers)
    if isinstance(error, RequestValidationError):
        error = InvalidParameterError(
            [
                FieldProblem(".".join(str(part) for part in problem["loc"][1:]), problem["msg"])
                for problem in error.errors()
            ]
        )
    elif isinstance(error, asyncio.CancelledError):
        # The server stops, and has waited for this request as long as it may.
        error = NotReadyError("the service has stopped before the request was answered")
    if isinstance(error, OverloadedError):
        context.refusal = error.reason
    spec = spec_of(error) if isinstance(error, RetrievalError) else INTERNAL
    context.code = spec.code
    if spec is INTERNAL:
        log.error("internal_error", method=scope["method"], path=route_of(scope), exc_info=error)
    return problem_of(error)


def problem_of_item(error: Exception, scope: Scope) -> dict[str, object]:
    """The problem document of one image of a batch, whose others may be answered."""
    spec, fields = _spec_and_fields(error)
    if spec is INTERNAL:
        log.error("internal_error", method=scope["method"], path=route_of(scope), exc_info=error)
    document = _document(spec, str(error) if spec.is_public else None, fields)
    seconds = _retry_after_s(error, spec)
    return document if seconds is None else {**document, "retry_after_s": seconds}


def _spec_and_fields(error: BaseException) -> tuple[ErrorSpec, Sequence[FieldProblem]]:
    spec = spec_of(error) if isinstance(error, RetrievalError) else INTERNAL
    if isinstance(error, FilterError):
        return spec, (FieldProblem(error.field, error.message),)
    return spec, error.problems if isinstance(error, InvalidParameterError) else ()


def _retry_after_s(error: BaseException, spec: ErrorSpec) -> int | None:
    """When to come back; None: that would be no better."""
    if isinstance(error, OverloadedError | QuotaError):
        return error.retry_after_s
    return RETRY_AFTER_S if spec.status == 503 else None


def problem_of(error: BaseException) -> Response:
    """An error as a problem document; private ones show their title and nothing else."""
    spec, fields = _spec_and_fields(error)
    headers: dict[str, str] = {}
    if isinstance(error, UnauthorizedError):
        headers["WWW-Authenticate"] = "Bearer"
    if (seconds := _retry_after_s(error, spec)) is not None:
        headers["Retry-After"] = str(seconds)
    return problem_response(spec, str(error) if spec.is_public else None, fields, headers)


def problem_response(
    spec: ErrorSpec,
    detail: str | None = None,
    fields: Sequence[FieldProblem] = (),
    headers: Mapping[str, str] | None = None,
) -> Response:
    """A problem document: `code` is for machines, `title` and `detail` for people.

    Every 503 says when to come back.
    """
    extra = dict(headers or {})
    if spec.status == 503:
        extra.setdefault("Retry-After", str(RETRY_AFTER_S))
    return Response(as_json(_document(spec, detail, fields)), spec.status, extra, MEDIA_TYPE)


def _document(
    spec: ErrorSpec, detail: str | None, fields: Sequence[FieldProblem]
) -> dict[str, object]:
    body: dict[str, object] = {
        "type": f"urn:lipsim:problem:{spec.code}",
        "title": spec.title,
        "status": spec.status,
        "code": spec.code,
        "detail": detail or spec.title,
    }
    if fields:
        body["errors"] = [field._asdict() for field in fields]
    request_id = structlog.contextvars.get_contextvars().get("request_id")
    if request_id:
        body["request_id"] = request_id
    return body


def as_json(document: dict[str, object]) -> bytes:
    # A lone surrogate of a client's JSON cannot be written as UTF-8: it is escaped instead.
    return json.dumps(document, ensure_ascii=False).encode("utf-8", errors="backslashreplace")
