"""Requests for the test against the OpenAPI document: our images in every kind of body.

Half of them schemathesis makes from the document, the rest are put together here, so that most
requests get past the first check and every route answers 200 often.
"""

import base64
import json
from collections.abc import Sequence
from typing import Any

import schemathesis
from fuzz.mutations import damage
from fuzz.pictures import valid_file
from hypothesis import strategies as st
from image_files import hostile_images
from schemathesis.transport.serialization import Binary

MOST_HOSTILE_BYTES = 1_000_000
FILTER = {"must_not": [{"key": "label", "match": {"any": ["x", 1, True]}}]}
ITEMS = ("p07.jpg", "p07-again.jpg", "p31.jpg")
EXAMPLE = "example.png"

VALID = st.integers(0, 499).map(valid_file)
DAMAGED = st.builds(damage, VALID, st.integers(0, 2**32))
HOSTILE = st.sampled_from(sorted(hostile_images())).map(lambda name: hostile_images()[name][0])
IMAGES = st.one_of(
    *[VALID] * 7,
    *[DAMAGED] * 2,
    HOSTILE.filter(lambda data: len(data) <= MOST_HOSTILE_BYTES),
    st.binary(max_size=64),
)


def register_images() -> None:
    """Have schemathesis send our images wherever the document says that an image is sent."""
    schemathesis.openapi.format("byte", IMAGES.map(_base64))
    schemathesis.openapi.format("binary", IMAGES.map(Binary))
    for kind in ("image/*", "image/png", "application/octet-stream"):
        schemathesis.openapi.media_type(kind, IMAGES)


def _base64(data: bytes) -> str:
    return base64.b64encode(data).decode()


@st.composite
def tamed_cases(draw: st.DrawFn, operation: Any) -> schemathesis.Case:
    """A request as the document allows it; three of four name things that there are."""
    case = draw(operation.as_strategy(generation_mode=schemathesis.GenerationMode.POSITIVE))
    if not draw(st.integers(0, 3)):
        return case
    body = case.body if isinstance(case.body, dict) else {}
    for name in body.keys() & case.query.keys():
        del case.query[name]
    for given in (body, case.query):
        given.pop("operating_point", None)
        given.pop("item", None)
        if "index" in given:
            given["index"] = "default"
    is_without = case.body is body and not body.keys() & {"image", "image_base64"}
    if is_without and operation.path.endswith("/search"):
        body["item"] = draw(st.sampled_from(ITEMS))
    for name in (
        ("include_input", "include_audit", "trim") if "item" in body else ("include_input",)
    ):
        body.pop(name, None)
        case.query.pop(name, None)
    if "name" in case.path_parameters:
        is_example = operation.path.startswith("/v1/examples")
        case.path_parameters["name"] = EXAMPLE if is_example else "default"
    for given in (body, case.query):
        if given.get("filter") and draw(st.integers(0, 3)):
            is_json = given is body and case.media_type == "application/json"
            given["filter"] = FILTER if is_json else json.dumps(FILTER)
    if "id" in case.query:
        case.query["id"] = draw(st.sampled_from(ITEMS))
    return case


# What an option may be, and what it may not be.
_SWITCH = (st.booleans(), st.sampled_from(["yes", 2, "TRUE ", None, "", [True]]))
_BUDGET = (
    st.one_of(st.floats(0, 10), st.sampled_from([0, 1, 5e-324, 1e300])),
    st.sampled_from([-1, "nan", "inf", "1e999", "0x1", "", None, "é", 10**400, -5e-324]),
)
_OPTIONS: dict[str, tuple[st.SearchStrategy[Any], st.SearchStrategy[Any]]] = {
    "k": (
        st.integers(1, 1000),
        st.sampled_from([0, -1, 1001, 2**70, "abc", 1.5, "", None, True, "1_0", "\u0663", [1]]),
    ),
    "index": (
        st.just("default"),
        st.sampled_from(["", "none", "../x", "\0", "ü" * 300, ".", "default ", 1, None]),
    ),
    "max_distance": (st.floats(0, 2), _BUDGET[1]),
    "filter": (
        st.sampled_from([FILTER, {}, {"must": [{"has_id": [ITEMS[0]]}]}]),
        st.sampled_from([[], {"must": 1}, {"must": [{"key": "a"}]}, "{", 1, {"x": "\ud800"}]),
    ),
    "epsilon": _BUDGET,
    "threshold": (st.floats(0, 2), _BUDGET[1]),
    "operating_point": (st.none(), st.sampled_from(["strict", "x" * 65, "\ud800", "", 0])),
    "include_audit": _SWITCH,
    "statement": (st.sampled_from(["result", "top1", "set"]), st.sampled_from(["", "verdict", 1])),
    "budget": (st.floats(0.01, 10), st.sampled_from([0, -1, "nan", "", None, True])),
    "steps": (st.integers(1, 2), st.sampled_from([0, 41, 1.5, "", None])),
    "chain": (st.integers(0, 3), st.sampled_from([-1, 33, 1.5, "", None, True])),
    "families": (
        st.sampled_from(["brightness", "gamma,noise", "jpeg,contrast"]),
        st.sampled_from([",", "crop", "jpeg;gamma", "noise\n", 1, None]),
    ),
    "unknown": (st.none(), st.sampled_from(["", 1])),
    **dict.fromkeys(
        ("require_exact", "include_vector", "include_metadata", "include_self"), _SWITCH
    ),
}


@st.composite
def own_cases(draw: st.DrawFn, operation: Any, names: Sequence[str]) -> schemathesis.Case:
    """Images and options in a body of any kind that the route takes."""
    kinds = [kind for kind, _ in _contents(operation)]
    kind = draw(st.sampled_from(kinds))
    images = {name: draw(IMAGES) for name in names}
    options = draw(_options(_known_options(operation)))
    texts = {name: _as_text(value) for name, value in options.items()}
    if operation.path.endswith("/batch"):
        several = [images["image"], *draw(st.lists(IMAGES, max_size=3))]
        body: Any = {"image": [Binary(data) for data in several]} | texts
        if kind == "application/json":
            items = [{"id": str(n), "image_base64": _base64(d)} for n, d in enumerate(several)]
            body = {"items": items} | options
        query: dict[str, Any] = {}
    elif kind == "application/json":
        body = {f"{name}_base64": _base64(data) for name, data in images.items()} | options
        query = {}
    elif kind == "multipart/form-data":
        body = {name: Binary(data) for name, data in images.items()} | texts
        query = {}
    else:
        body, query = Binary(images[names[0]]), texts
    path = {"name": "default"} if "{name}" in operation.path else {}
    return operation.Case(body=body, media_type=kind, query=query, path_parameters=path)


def _contents(operation: Any) -> list[tuple[str, Any]]:
    return list(operation.definition.raw["requestBody"]["content"].items())


def _known_options(operation: Any) -> list[str]:
    properties = dict(_contents(operation))["application/json"]["schema"]["properties"]
    return [name for name in _OPTIONS if name in properties] + ["unknown"]


@st.composite
def _options(draw: st.DrawFn, known: list[str]) -> dict[str, Any]:
    """Some options; in one request of three one of them is wrong."""
    chosen = draw(st.lists(st.sampled_from(known), unique=True, max_size=4))
    wrong = draw(st.sampled_from(chosen)) if chosen and not draw(st.integers(0, 2)) else None
    options = {name: draw(_OPTIONS[name][name == wrong]) for name in chosen}
    return {name: value for name, value in options.items() if value is not None or name == wrong}


def _as_text(value: Any) -> str:
    """An option as a form or a query has it; a lone surrogate cannot stand in either."""
    if isinstance(value, dict):
        return json.dumps(value)
    text = str(value).lower() if isinstance(value, bool) else str(value)
    return text.encode("utf-8", errors="replace").decode()
