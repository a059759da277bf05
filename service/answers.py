"""Answers as bytes: JSON without NaN, and without the members that were not asked for."""

import json

from starlette.responses import Response

from service.schemas.parts import Wire


def encode(answer: Wire) -> bytes:
    """An answer as JSON, UTF-8; members that were never set are left out, None becomes null.

    Raises:
        ValueError: a number is NaN or infinite, which no answer may hold.
    """
    content = json.dumps(
        answer.model_dump(exclude_unset=True),
        ensure_ascii=False,
        allow_nan=False,
        separators=(",", ":"),
    )
    # Metadata may hold a lone surrogate (JSON can write one): it goes out as it came in, escaped.
    return content.encode("utf-8", errors="backslashreplace")


def json_response(answer: Wire | bytes, status: int = 200) -> Response:
    """A response of an answer, encoded here or by a worker already."""
    content = answer if isinstance(answer, bytes) else encode(answer)
    return Response(content, status, media_type="application/json")
