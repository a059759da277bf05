"""The OpenAPI document, completed: bodies, options, problems and examples of every route.

FastAPI sees neither our bodies (one reader takes three kinds) nor our errors (one table): both are
written here from the same models and the same table that the code runs on.
"""

import copy
import json
from collections import defaultdict
from functools import cache, partial
from importlib.resources import files
from typing import Any

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi

from service.errors import ERROR_TABLE
from service.http.auth import OPEN_PATHS
from service.http.problems import MEDIA_TYPE
from service.http.route_specs import SPECS, RouteSpec, reading
from service.schemas.batch import BatchItem
from service.schemas.common import FieldError, Options, Problem
from service.schemas.search import PROMISE
from service.schemas.status import Limits

DESCRIPTION = f"""Image retrieval whose answers carry a proof. The metric is LipSim's: 1 - cosine of
the embeddings of a network with a proved Lipschitz bound, so that each result has a radius.

**What `certified_radius` promises.** {PROMISE}

Errors are `application/problem+json` (RFC 9457); tell them apart by `code`. No image, whatever it
holds, is answered with a 500. The service fetches no URL and opens no path of a client's."""


# The service as a whole may need keys or not, which is the deployment's choice: hence the `{}`.
_SECURITY: list[dict[str, list[str]]] = [{"bearer": []}, {"apiKey": []}, {}]
# What no model and no table holds; `answers` are by path, without the /v1 that an alias does
# not have, and `problem_details` are for problems whose title alone would not show what they say.
_WRITTEN = json.loads((files("service.routes") / "examples.json").read_bytes())
ANSWERS: dict[str, dict[str, Any]] = _WRITTEN["answers"]
_FOUND = {"id": "owl.jpg", "status": 200, "answer": ANSWERS["/search"]}
ANSWERS["/search/batch"]["items"].insert(0, _FOUND)
PROBLEM_DETAILS: dict[str, str] = _WRITTEN["problem_details"]
_HEADERS: dict[str, dict[str, Any]] = _WRITTEN["headers"]

_ACCESS_CODES = ("unauthorized", "forbidden", "quota_exceeded")


def install(app: FastAPI, limits: Limits) -> None:
    """Make `app.openapi` give the completed document, made once."""
    app.openapi = cache(partial(_complete, app, limits))


def _complete(app: FastAPI, limits: Limits) -> dict[str, Any]:
    found = get_openapi(
        title=app.title, version=app.version, description=app.description, routes=app.routes
    )
    found["security"] = _SECURITY
    found["components"]["securitySchemes"] = _WRITTEN["security_schemes"]
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
    not_ready = found["paths"]["/readyz"]["get"]["responses"]["503"]
    not_ready["headers"] = _HEADERS["503"]
    not_ready["content"]["application/json"]["example"] = ANSWERS["/readyz#503"]
    return found


_TO_ID = str.maketrans({"/": "_", "{": None, "}": None, ".": "_"})


def _complete_operation(path: str, operation: dict[str, Any], limits: Limits) -> None:
    spec = SPECS.get(path) or reading()
    if spec.images or spec.options.model_fields:
        operation["requestBody"] = _request_body(spec, limits)
    if spec.images and (parameters := _query_parameters(spec, limits)):
        operation["parameters"] = parameters
    answers = operation["responses"]["200"].get("content", {})
    if path.removeprefix("/v1") in ANSWERS:
        answers["application/json"]["example"] = ANSWERS[path.removeprefix("/v1")]
    codes = spec.codes
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


def _request_body(spec: RouteSpec[Any], limits: Limits) -> dict[str, Any]:
    options = _option_schemas(spec.options, limits)
    files = {
        name: {"type": "string", "format": "binary", "description": "The image file."}
        for name in spec.images
    }
    texts = {
        f"{name}_base64": {
            "type": "string",
            "format": "byte",
            "contentEncoding": "base64",
            "description": "The image file in base64 (RFC 4648, padded).",
        }
        for name in spec.images
    }
    form = {name: _without_null(schema) for name, schema in options.items()}
    example = dict.fromkeys(texts, _WRITTEN["image_base64"])
    if spec.most:
        files = {name: _several(schema, spec) for name, schema in files.items()}
        item = BatchItem.model_json_schema()
        item["properties"]["image_base64"] = texts["image_base64"]
        texts = {"items": _several(item, spec)}
        example = {"items": [{"id": "heron", **example}]}
    content: dict[str, Any] = {
        "multipart/form-data": {"schema": _object(files, form, spec)},
        "application/json": {
            "schema": _object(texts, options, spec),
            "example": example | _example_options(spec),
        },
    }
    if spec.takes_raw:
        raw = {"schema": {"type": "string", "format": "binary"}}
        content |= {"image/*": raw, "application/octet-stream": raw}
    return {"required": spec.stand_in is None, "content": content}


def _several(schema: dict[str, Any], spec: RouteSpec[Any]) -> dict[str, Any]:
    return {"type": "array", "items": schema, "minItems": 1, "maxItems": spec.most}


def _object(
    images: dict[str, Any], options: dict[str, Any], spec: RouteSpec[Any]
) -> dict[str, Any]:
    return {
        "type": "object",
        "properties": {**images, **options},
        "required": list(images) if spec.stand_in is None else [],
        "additionalProperties": False,
    }


def _without_null(schema: dict[str, Any]) -> dict[str, Any]:
    """The schema of an option that is text: absent is absent, and null is not a value."""
    if "anyOf" not in schema:
        return schema
    some = next(kind for kind in schema["anyOf"] if kind.get("type") != "null")
    if some.get("type") == "object":
        some = {"type": "string", "contentMediaType": "application/json"}
    rest = {name: value for name, value in schema.items() if name not in ("anyOf", "default")}
    return {**some, **rest}


def _example_options(spec: RouteSpec[Any]) -> dict[str, Any]:
    wanted: dict[str, Any] = {"k": 5, "epsilon": 0.5, "threshold": 0.2}
    if not spec.images:
        wanted = {"limit": 20, "filter": _WRITTEN["filter"]}
    return {name: value for name, value in wanted.items() if name in spec.options.model_fields}


def _query_parameters(spec: RouteSpec[Any], limits: Limits) -> list[dict[str, Any]]:
    return [
        {
            "name": name,
            "in": "query",
            "required": False,
            "description": "For a raw image body; an option given in the body too is an error. "
            + str(schema.get("description", "")),
            "schema": _without_null(schema),
        }
        for name, schema in _option_schemas(spec.options, limits).items()
    ]


def _problem_responses(codes: tuple[str, ...]) -> dict[str, Any]:
    rows = {row.code: row for row in ERROR_TABLE.values()}
    by_status: dict[int, list[str]] = defaultdict(list)
    for code in codes:
        by_status[rows[code].status].append(code)
    return {
        str(status): _problem_response(status, {code: rows[code].title for code in found})
        for status, found in sorted(by_status.items())
    }


def _problem_response(status: int, titles: dict[str, str]) -> dict[str, Any]:
    examples = {
        code: {
            "summary": title,
            "value": {
                "type": f"urn:lipsim:problem:{code}",
                "title": title,
                "status": status,
                "code": code,
                "detail": PROBLEM_DETAILS.get(code, title),
            },
        }
        for code, title in titles.items()
    }
    response: dict[str, Any] = {
        "description": "; ".join(f"`{code}`: {title}" for code, title in titles.items()),
        "content": {
            MEDIA_TYPE: {"schema": {"$ref": "#/components/schemas/Problem"}, "examples": examples}
        },
    }
    if str(status) in _HEADERS:
        response["headers"] = _HEADERS[str(status)]
    return response
