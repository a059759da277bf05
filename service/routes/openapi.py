"""The OpenAPI document, completed: bodies, options, problems and examples of every route.

FastAPI sees neither our bodies (one reader takes three kinds) nor our errors (one table): both are
written here from the same models and the same table that the code runs on.
"""

import base64
import copy
import io
from collections import defaultdict
from typing import Any, NamedTuple

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi
from PIL import Image

from service.errors import ERROR_TABLE, RETRY_AFTER_S
from service.http.auth import OPEN_PATHS
from service.http.problems import MEDIA_TYPE
from service.routes.examples import ANSWERS, METRICS_EXAMPLE, PROBLEM_DETAILS
from service.schemas.embed import EmbedOptions
from service.schemas.info import Limits
from service.schemas.parts import Options
from service.schemas.problems import FieldError, Problem
from service.schemas.search import PROMISE, SearchOptions
from service.schemas.similarity import SimilarityOptions

DESCRIPTION = f"""Image retrieval whose answers carry a proof. The metric is LipSim's: 1 - cosine of
the embeddings of a network with a proved Lipschitz bound, so that each result has a radius.

**What `certified_radius` promises.** {PROMISE}

Errors are `application/problem+json` (RFC 9457); tell them apart by `code`. No image, whatever it
holds, is answered with a 500. The service fetches no URL and opens no path of a client's."""


class Post(NamedTuple):
    """What a posting route takes, and the problem codes it may answer with."""

    images: tuple[str, ...]
    options: type[Options]
    codes: tuple[str, ...]


# The service as a whole may need keys or not, which is the deployment's choice: hence the `{}`.
_SECURITY: list[dict[str, list[str]]] = [{"bearer": []}, {"apiKey": []}, {}]
_SECURITY_SCHEMES = {
    "bearer": {
        "type": "http",
        "scheme": "bearer",
        "description": "An API key, where the deployment has keys.",
    },
    "apiKey": {
        "type": "apiKey",
        "in": "header",
        "name": "X-API-Key",
        "description": "The same key; for clients that need Authorization for something else.",
    },
}
_ACCESS_CODES = ("unauthorized", "forbidden", "quota_exceeded")
_BODY_CODES = (
    "malformed_request",
    "malformed_body",
    "missing_field",
    "invalid_parameter",
    "body_timeout",
    "body_too_large",
    "image_too_large",
    "unsupported_media_type",
    "unsupported_image_format",
    "empty_image",
    "undecodable_image",
    "image_dimensions",
    "unembeddable_image",
    "overloaded",
    "not_ready",
    "decode_timeout",
    "timeout",
)
_POSTS = {
    "search": Post(
        ("image",),
        SearchOptions,
        (*_BODY_CODES, "unknown_operating_point", "index_not_found", "index_unavailable"),
    ),
    "similarity": Post(("image_a", "image_b"), SimilarityOptions, _BODY_CODES),
    "embed": Post(("image",), EmbedOptions, _BODY_CODES),
}
_ITEM_CODES = (
    "invalid_parameter",
    "index_not_found",
    "item_not_found",
    "not_ready",
    "index_unavailable",
)
_GET_CODES: dict[str, tuple[str, ...]] = {
    "/v1/indexes": ("invalid_parameter", "not_ready"),
    "/v1/indexes/{name}": ("invalid_parameter", "index_not_found", "not_ready"),
    "/v1/indexes/{name}/item": _ITEM_CODES,
    "/v1/indexes/{name}/thumbnail": _ITEM_CODES,
    "/v1/info": ("invalid_parameter", "not_ready"),
}


def install(app: FastAPI, limits: Limits) -> None:
    """Make `app.openapi` give the completed document, made once."""

    def document() -> dict[str, Any]:
        if app.openapi_schema is None:
            app.openapi_schema = _complete(app, limits)
        return app.openapi_schema

    app.openapi = document


def _complete(app: FastAPI, limits: Limits) -> dict[str, Any]:
    found = get_openapi(
        title=app.title, version=app.version, description=app.description, routes=app.routes
    )
    found["security"] = _SECURITY
    found["components"]["securitySchemes"] = _SECURITY_SCHEMES
    schemas = found["components"]["schemas"]
    for unused in ("HTTPValidationError", "ValidationError"):
        schemas.pop(unused, None)
    schemas["FieldError"] = FieldError.model_json_schema()
    schemas["Problem"] = Problem.model_json_schema(ref_template="#/components/schemas/{model}")
    schemas["Problem"].pop("$defs", None)
    for path, methods in found["paths"].items():
        for method, operation in methods.items():
            operation["operationId"] = f"{method}{path.translate(_TO_ID)}"
            operation["responses"].pop("422", None)
            _complete_operation(path, operation, limits)
    found["paths"]["/readyz"]["get"]["responses"]["503"] = _not_ready_response()
    return found


_TO_ID = str.maketrans({"/": "_", "{": None, "}": None, ".": "_"})


def _complete_operation(path: str, operation: dict[str, Any], limits: Limits) -> None:
    name = path.rsplit("/", 1)[-1]
    post = _POSTS.get(name)
    codes = _GET_CODES.get(path, ())
    if post is not None:
        codes = post.codes
        operation["requestBody"] = _request_body(post, limits)
        parameters = _query_parameters(post, limits)
        if parameters:
            operation["parameters"] = parameters
    if path.endswith("/thumbnail"):
        operation["responses"]["200"]["content"] = {
            "image/jpeg": {"schema": {"type": "string", "format": "binary"}}
        }
    if path == "/metrics":
        operation["responses"]["200"]["content"]["text/plain"]["example"] = METRICS_EXAMPLE
    example = ANSWERS.get(path.removeprefix("/v1"))
    if example is not None:
        operation["responses"]["200"]["content"]["application/json"]["example"] = example
    if path in OPEN_PATHS:
        operation["security"] = []
    else:
        codes = (*codes, *_ACCESS_CODES)
    operation["responses"].update(_problem_responses(codes))


def _option_schemas(options: type[Options], limits: Limits) -> dict[str, Any]:
    """JSON schema of each option, with this deployment's limits in it."""
    properties = copy.deepcopy(options.model_json_schema().get("properties", {}))
    for schema in properties.values():
        schema.pop("title", None)
    if "k" in properties:
        properties["k"] |= {"maximum": limits.max_k, "default": limits.default_k}
    return properties


def _request_body(post: Post, limits: Limits) -> dict[str, Any]:
    options = _option_schemas(post.options, limits)
    example = base64.b64encode(example_png()).decode()
    files = {
        name: {"type": "string", "format": "binary", "description": "The image file."}
        for name in post.images
    }
    texts = {
        f"{name}_base64": {
            "type": "string",
            "format": "byte",
            "contentEncoding": "base64",
            "description": "The image file in base64 (RFC 4648, padded).",
        }
        for name in post.images
    }
    form = {name: _without_null(schema) for name, schema in options.items()}
    content: dict[str, Any] = {
        "multipart/form-data": {"schema": _object(files, form)},
        "application/json": {
            "schema": _object(texts, options),
            "example": dict.fromkeys(texts, example) | _example_options(post),
        },
    }
    if len(post.images) == 1:
        raw = {"schema": {"type": "string", "format": "binary"}}
        content |= {"image/*": raw, "application/octet-stream": raw}
    return {"required": True, "content": content}


def _object(required: dict[str, Any], optional: dict[str, Any]) -> dict[str, Any]:
    return {
        "type": "object",
        "properties": {**required, **optional},
        "required": list(required),
        "additionalProperties": False,
    }


def _without_null(schema: dict[str, Any]) -> dict[str, Any]:
    """The schema of an option that is text: absent is absent, and null is not a value."""
    if "anyOf" not in schema:
        return schema
    some = next(kind for kind in schema["anyOf"] if kind.get("type") != "null")
    rest = {name: value for name, value in schema.items() if name not in ("anyOf", "default")}
    return {**some, **rest}


def _example_options(post: Post) -> dict[str, Any]:
    wanted = {"k": 5, "epsilon": 0.5, "threshold": 0.2}
    return {name: value for name, value in wanted.items() if name in post.options.model_fields}


def _query_parameters(post: Post, limits: Limits) -> list[dict[str, Any]]:
    return [
        {
            "name": name,
            "in": "query",
            "required": False,
            "description": "For a raw image body; an option given in the body too is an error. "
            + str(schema.get("description", "")),
            "schema": _without_null(schema),
        }
        for name, schema in _option_schemas(post.options, limits).items()
    ]


def _problem_responses(codes: tuple[str, ...]) -> dict[str, Any]:
    rows = {row.code: row for row in ERROR_TABLE.values()}
    by_status: dict[int, list[str]] = defaultdict(list)
    for code in codes:
        by_status[rows[code].status].append(code)
    return {
        str(status): _problem_response(
            status, {code: (rows[code].title, PROBLEM_DETAILS.get(code)) for code in found}
        )
        for status, found in sorted(by_status.items())
    }


def _problem_response(status: int, titles: dict[str, tuple[str, str | None]]) -> dict[str, Any]:
    examples = {
        code: {
            "summary": title,
            "value": {
                "type": f"urn:lipsim:problem:{code}",
                "title": title,
                "status": status,
                "code": code,
                "detail": detail or title,
            },
        }
        for code, (title, detail) in titles.items()
    }
    response: dict[str, Any] = {
        "description": "; ".join(f"`{code}`: {title}" for code, (title, _) in titles.items()),
        "content": {
            MEDIA_TYPE: {"schema": {"$ref": "#/components/schemas/Problem"}, "examples": examples}
        },
    }
    headers = _PROBLEM_HEADERS.get(status)
    if headers is not None:
        response["headers"] = headers
    return response


_RETRY_AFTER = {
    "Retry-After": {
        "description": "Seconds to wait before the next try.",
        "schema": {"type": "integer"},
        "example": RETRY_AFTER_S,
    }
}
_RATE_LIMIT = {
    f"RateLimit-{name}": {"description": meaning, "schema": {"type": "integer"}}
    for name, meaning in (
        ("Limit", "Requests of one window."),
        ("Remaining", "Requests that are left in this window."),
        ("Reset", "Seconds until the window ends."),
    )
}
_PROBLEM_HEADERS: dict[int, dict[str, Any]] = {
    401: {"WWW-Authenticate": {"schema": {"type": "string"}, "example": "Bearer"}},
    429: _RETRY_AFTER | _RATE_LIMIT,
    503: _RETRY_AFTER,
}


def _not_ready_response() -> dict[str, Any]:
    return {
        "description": "Not ready; `reason` says why.",
        "headers": _RETRY_AFTER,
        "content": {
            "application/json": {
                "schema": {"$ref": "#/components/schemas/Ready"},
                "example": ANSWERS["/readyz#503"],
            }
        },
    }


def example_png() -> bytes:
    """A real image file, small enough to stand in an example."""
    buffer = io.BytesIO()
    picture = Image.linear_gradient("L").resize((8, 8)).convert("RGB")
    picture.save(buffer, "PNG")
    return buffer.getvalue()
