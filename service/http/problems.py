"""RFC 9457 answers: every error leaves the service as `application/problem+json`."""

import json
from collections.abc import Mapping

import structlog
from starlette.responses import Response

from model.errors import RetrievalError
from service.errors import (
    RETRY_AFTER_S,
    InvalidParameterError,
    OverloadedError,
    QuotaError,
    Row,
    UnauthorizedError,
    row_of,
)

MEDIA_TYPE = "application/problem+json"


def problem_body(row: Row, detail: str | None, errors: list[dict[str, str]]) -> dict[str, object]:
    """Members of a problem document; `code` is for machines, `title` and `detail` for people."""
    request_id = structlog.contextvars.get_contextvars().get("request_id")
    body: dict[str, object] = {
        "type": f"urn:lipsim:problem:{row.code}",
        "title": row.title,
        "status": row.status,
        "code": row.code,
        "detail": detail or row.title,
    }
    if errors:
        body["errors"] = errors
    if request_id:
        body["request_id"] = request_id
    return body


def problem_response(
    row: Row,
    detail: str | None = None,
    errors: list[dict[str, str]] | None = None,
    headers: Mapping[str, str] | None = None,
) -> Response:
    """A problem document as a response; every 503 says when to come back."""
    extra = dict(headers or {})
    if row.status == 503:
        extra.setdefault("Retry-After", str(RETRY_AFTER_S))
    content = json.dumps(problem_body(row, detail, errors or []), ensure_ascii=False)
    # A lone surrogate of a client's JSON cannot be written as UTF-8: it is escaped instead.
    return Response(
        content.encode("utf-8", errors="backslashreplace"), row.status, extra, MEDIA_TYPE
    )


def response_of(error: RetrievalError) -> Response:
    """The answer to one of our own errors; private ones show their title and nothing else."""
    row = row_of(error)
    errors: list[dict[str, str]] = []
    if isinstance(error, InvalidParameterError):
        errors = [problem._asdict() for problem in error.problems]
    headers: dict[str, str] = {}
    if isinstance(error, UnauthorizedError):
        headers["WWW-Authenticate"] = "Bearer"
    if isinstance(error, OverloadedError | QuotaError):
        headers["Retry-After"] = str(error.retry_after_s)
    return problem_response(row, str(error) if row.is_public else None, errors, headers)
