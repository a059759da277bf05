"""Every way to send a request, right and wrong: each gets its documented status and code."""

import base64
import json
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from paths import ROOT
from PIL import Image
from service_helpers import draw_picture, encode

PNG = encode(draw_picture(3, 64, 48))
B64 = base64.b64encode(PNG).decode()
BOUNDARY = "b0undary"


def multipart(*parts: tuple[str, bytes], end: bool = True) -> dict[str, Any]:
    body = b"".join(
        f'--{BOUNDARY}\r\nContent-Disposition: form-data; name="{name}"\r\n\r\n'.encode()
        + value
        + b"\r\n"
        for name, value in parts
    )
    body += f"--{BOUNDARY}--\r\n".encode() if end else b""
    return {
        "content": body,
        "headers": {"Content-Type": f"multipart/form-data; boundary={BOUNDARY}"},
    }


def as_json(body: object) -> dict[str, Any]:
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    return {"content": content, "headers": {"Content-Type": "application/json"}}


def raw(body: bytes, kind: str | None = "image/png", **query: object) -> dict[str, Any]:
    headers = {} if kind is None else {"Content-Type": kind}
    return {"content": body, "headers": headers, "params": query}


def check_problem(response: httpx.Response, status: int, code: str) -> dict[str, Any]:
    assert (response.status_code, response.json().get("code")) == (status, code), response.text
    assert response.headers["content-type"] == "application/problem+json"
    problem = response.json()
    assert problem["status"] == status
    assert {"type", "title", "status", "code", "detail", "request_id"} <= set(problem)
    assert str(ROOT) not in response.text
    assert "Traceback" not in response.text
    if status == 503:
        assert int(response.headers["retry-after"]) >= 1
    return problem


SAME = [
    {"files": {"image": PNG}, "data": {"k": "3", "epsilon": "0.5"}},
    multipart(("image", PNG), ("k", b"3"), ("epsilon", b"0.5")),
    multipart(("epsilon", b"0.5"), ("k", b"3"), ("image", PNG)),
    multipart(("image", PNG), ("k", b"3"), ("epsilon", b"0.5"), ("max_distance", b"")),
    {
        "files": {"image": ("../../etc/passwd", PNG, "text/html")},
        "params": {"k": 3, "epsilon": 0.5},
    },
    as_json({"image_base64": B64, "k": 3, "epsilon": 0.5}),
    {**as_json({"image_base64": B64, "k": 3}), "params": {"epsilon": "0.5"}},
    raw(PNG, k=3, epsilon=0.5),
    raw(PNG, "application/octet-stream", k=3, epsilon=0.5),
    raw(PNG, "IMAGE/WebP; charset=binary", k=3, epsilon=0.5),
]


@pytest.mark.parametrize("request_kind", SAME)
def test_every_kind_of_body_gives_the_same_answer(client: httpx.Client, request_kind: dict):
    expected = client.post("/v1/search", **SAME[0]).json()
    response = client.post("/v1/search", **request_kind)
    assert response.status_code == 200, response.text
    answer = response.json()
    del answer["timings_ms"], expected["timings_ms"]
    assert answer == expected


# Bytes in threes, so that their base64 ends without padding.
WHOLE_B64 = base64.b64encode(PNG + b"\0" * (-len(PNG) % 3)).decode()
PART = f"--{BOUNDARY}\r\n%s\r\n\r\nx\r\n--{BOUNDARY}--\r\n".encode()
TWO_NAMES = (
    'Content-Disposition: form-data; name="k"; name="image"',
    'Content-Disposition: form-data; name="image"; NAME = image',
    "Content-Disposition: form-data; name=\"image\"; name*=UTF-8''k",
    'Content-Disposition: form-data; name="k"\r\nContent-Disposition: form-data; name="image"',
)

REFUSED: list[tuple[str, dict[str, Any], int, str]] = [
    ("no body", {}, 400, "missing_field"),
    ("no content type", raw(PNG, None), 415, "unsupported_media_type"),
    ("text", raw(PNG, "text/plain"), 415, "unsupported_media_type"),
    ("curl's default", raw(PNG, "application/x-www-form-urlencoded"),
     415, "unsupported_media_type"),
    ("compressed", {"content": PNG, "headers": {
        "Content-Type": "image/png", "Content-Encoding": "gzip"}}, 415, "unsupported_media_type"),
    ("compressed second", {"content": PNG, "headers": [
        ("Content-Type", "image/png"), ("Content-Encoding", "identity"),
        ("Content-Encoding", "gzip")]}, 415, "unsupported_media_type"),
    ("two content types", {"content": PNG, "headers": [
        ("Content-Type", "image/png"), ("Content-Type", "application/json")]},
     415, "unsupported_media_type"),
    ("missing field", multipart(("k", b"3")), 400, "missing_field"),
    ("wrong field", multipart(("picture", PNG)), 400, "invalid_parameter"),
    ("wrong option", multipart(("image", PNG), ("limit", b"3")), 400, "invalid_parameter"),
    ("two images", multipart(("image", PNG), ("image", PNG)), 400, "invalid_parameter"),
    ("option twice", multipart(("image", PNG), ("k", b"3"), ("k", b"3")), 400, "invalid_parameter"),
    ("form and query", {**multipart(("image", PNG), ("k", b"3")), "params": {"k": 3}},
     400, "invalid_parameter"),
    ("json and query", {**as_json({"image_base64": B64, "k": 3}), "params": {"k": 3}},
     400, "invalid_parameter"),
    ("query twice", raw(PNG, k=[3, 3]), 400, "invalid_parameter"),
    ("unknown query", raw(PNG, limit=3), 400, "invalid_parameter"),
    ("k = 0", raw(PNG, k=0), 400, "invalid_parameter"),
    ("k = -1", raw(PNG, k=-1), 400, "invalid_parameter"),
    ("k too large", raw(PNG, k=501), 400, "invalid_parameter"),
    ("k huge", raw(PNG, k=10**400), 400, "invalid_parameter"),
    ("k no number", raw(PNG, k="many"), 400, "invalid_parameter"),
    ("k fraction", raw(PNG, k="2.5"), 400, "invalid_parameter"),
    ("epsilon negative", raw(PNG, epsilon=-0.1), 400, "invalid_parameter"),
    ("epsilon NaN", raw(PNG, epsilon="nan"), 400, "invalid_parameter"),
    ("epsilon infinite", raw(PNG, epsilon="inf"), 400, "invalid_parameter"),
    ("max_distance NaN", raw(PNG, max_distance="nan"), 400, "invalid_parameter"),
    ("max_distance negative", raw(PNG, max_distance="-1"), 400, "invalid_parameter"),
    ("flag no truth", raw(PNG, require_exact="perhaps"), 400, "invalid_parameter"),
    ("text in option", multipart(("image", PNG), ("k", b"\xff\xfe")), 400, "invalid_parameter"),
    ("no index", raw(PNG, index="nothing"), 404, "index_not_found"),
    ("index is a path", raw(PNG, index="../../etc"), 404, "index_not_found"),
    *[(f"index {name!r}", raw(PNG, index=name), 404, "index_not_found") for name in (
        "DEFAULT", "\uff44efault", "default\u200b", "default/", "./default", "~", "")],
    ("operating point is a path", raw(PNG, operating_point="../../etc/passwd"),
     400, "unknown_operating_point"),
    ("index with NUL", raw(PNG, index="a\0b"), 404, "index_not_found"),
    ("not JSON", as_json(b"{"), 400, "malformed_body"),
    ("JSON list", as_json([1]), 400, "malformed_body"),
    ("JSON NaN", as_json(b'{"image_base64": "", "epsilon": NaN}'), 400, "malformed_body"),
    ("JSON infinity", as_json(f'{{"image_base64": "{B64}", "epsilon": 1e999}}'.encode()),
     400, "invalid_parameter"),
    ("JSON deep", as_json(b"[" * 200_000), 400, "malformed_body"),
    *[(f"JSON of many {sign!r}", as_json(b'{"k": [' + sign * 300_000), 400, "malformed_body")
      for sign in (b"[],", b"{},", b"1,")],
    ("JSON digits", as_json(b'{"k": ' + b"9" * 10_000 + b"}"), 400, "malformed_body"),
    ("JSON bytes", as_json(b"\xff\xfe\xfa"), 400, "malformed_body"),
    ("JSON UTF-16", as_json(json.dumps({"image_base64": B64}).encode("utf-16-le")),
     400, "malformed_body"),
    ("JSON UTF-32", as_json(json.dumps({"image_base64": B64}).encode("utf-32")),
     400, "malformed_body"),
    ("JSON with BOM", as_json(json.dumps({"image_base64": B64}).encode("utf-8-sig")),
     400, "malformed_body"),
    ("JSON twice", as_json(b'{"k": 1, "k": 2}'), 400, "invalid_parameter"),
    ("JSON without image", as_json({"k": 2}), 400, "missing_field"),
    ("JSON image null", as_json({"image_base64": None}), 400, "invalid_parameter"),
    ("JSON image list", as_json({"image_base64": [B64]}), 400, "invalid_parameter"),
    *[(f"{kind} k {written!r}", ask(written), 400, "invalid_parameter")
      for written in ("1_0", " 5 ", "5 ", "0x5")
      for kind, ask in (("query", lambda k: raw(PNG, k=k)),
                        ("form", lambda k: multipart(("image", PNG), ("k", k.encode()))))],
    ("form epsilon 0.1_5", multipart(("image", PNG), ("epsilon", b"0.1_5")),
     400, "invalid_parameter"),
    ("JSON k text", as_json({"image_base64": B64, "k": "3"}), 400, "invalid_parameter"),
    ("JSON k true", as_json({"image_base64": B64, "k": True}), 400, "invalid_parameter"),
    ("JSON unknown", as_json({"image_base64": B64, "image": "x"}), 400, "invalid_parameter"),
    ("JSON surrogate", as_json(b'{"\\ud800": 1}'), 400, "invalid_parameter"),
    ("base64 letters", as_json({"image_base64": "é" + B64}), 400, "malformed_body"),
    ("base64 cut", as_json({"image_base64": "abc"}), 400, "malformed_body"),
    *[(f"base64 with {surplus} too many", as_json({"image_base64": WHOLE_B64 + "=" * surplus}),
       400, "malformed_body") for surplus in (1, 2, 3, 4, 8)],
    ("base64 empty", as_json({"image_base64": ""}), 422, "empty_image"),
    ("raw empty", raw(b""), 422, "empty_image"),
    ("part empty", multipart(("image", b"")), 422, "empty_image"),
    ("no boundary", {"content": b"x", "headers": {"Content-Type": "multipart/form-data"}},
     400, "malformed_body"),
    ("long boundary", {"content": b"x", "headers": {
        "Content-Type": "multipart/form-data; boundary=" + "b" * 5000}}, 400, "malformed_body"),
    ("no end", multipart(("image", PNG), end=False), 400, "malformed_body"),
    ("not multipart", {**multipart(), "content": PNG}, 400, "malformed_body"),
    ("empty multipart", {**multipart(), "content": b""}, 400, "malformed_body"),
    ("no name", {**multipart(), "content": f"--{BOUNDARY}\r\n\r\nx\r\n--{BOUNDARY}--\r\n".encode()},
     400, "malformed_body"),
    *[(f"part header {header}", {**multipart(), "content": PART % header.encode()},
       400, "malformed_body") for header in TWO_NAMES],
    ("long part header", multipart(("i" * 5000, PNG)), 400, "malformed_body"),
    ("many parts", multipart(*[(f"f{i}", b"") for i in range(5000)]), 400, "invalid_parameter"),
]  # fmt: skip


@pytest.mark.parametrize(
    ("sent", "status", "code"), [row[1:] for row in REFUSED], ids=[row[0] for row in REFUSED]
)
def test_a_wrong_request_gets_its_status_and_code(
    client: httpx.Client, sent: dict[str, Any], status: int, code: str
):
    check_problem(client.post("/v1/search", **sent), status, code)


def test_a_400_names_each_field(client: httpx.Client):
    response = client.post("/v1/search", **raw(PNG, k=0, epsilon=-1))
    problem = check_problem(response, 400, "invalid_parameter")
    assert {error["field"] for error in problem["errors"]} == {"k", "epsilon"}


def test_an_unsupported_content_type_is_told_which_ones_are(client: httpx.Client):
    problem = client.post("/v1/search", **raw(PNG, "text/csv")).json()
    for kind in ("multipart/form-data", "application/json", "image/*", "application/octet-stream"):
        assert kind in problem["detail"]


def test_a_raw_body_cannot_hold_two_images(client: httpx.Client):
    response = client.post("/v1/similarity", **raw(PNG))
    problem = check_problem(response, 415, "unsupported_media_type")
    assert "two" in problem["detail"]


@pytest.mark.parametrize(
    ("method", "path", "status", "code"),
    [
        ("GET", "/nothing", 404, "route_not_found"),
        ("POST", "/v1/search/", 404, "route_not_found"),
        ("GET", "/static/../app.py", 404, "route_not_found"),
        ("GET", "/static/%2e%2e%2fapp.py", 404, "route_not_found"),
        ("GET", "/v1/search", 405, "method_not_allowed"),
        ("DELETE", "/v1/indexes/default", 405, "method_not_allowed"),
        ("GET", "/v1/indexes/none", 404, "index_not_found"),
        ("GET", "/v1/indexes/..%2f..", 404, "route_not_found"),
        ("GET", "/v1/indexes/default/item", 400, "invalid_parameter"),
        ("GET", "/v1/indexes/default/item?id=", 400, "invalid_parameter"),
        ("GET", "/v1/indexes/default/item?id=a&id=b", 400, "invalid_parameter"),
        ("GET", "/v1/indexes/default/item?id=nope", 404, "item_not_found"),
        ("GET", "/v1/indexes/default/item?id=../../../etc/passwd", 404, "item_not_found"),
        ("GET", "/v1/indexes/default/item?id=%00", 404, "item_not_found"),
        ("GET", "/v1/indexes/default/item?id=%ff%fe", 404, "item_not_found"),
        ("GET", "/v1/indexes/none/item?id=a", 404, "index_not_found"),
        ("GET", "/v1/indexes/default/items?limit=0", 400, "invalid_parameter"),
        ("GET", "/v1/indexes/default/items?limit=1001", 400, "invalid_parameter"),
        ("GET", "/v1/indexes/default/items?limit=1_0", 400, "invalid_parameter"),
        ("GET", "/v1/indexes/default/items?before=a", 400, "invalid_parameter"),
        ("GET", "/v1/indexes/none/items", 404, "index_not_found"),
        ("GET", "/v1/indexes/default/thumbnail?id=nope", 404, "item_not_found"),
        ("GET", "/v1/indexes/default/thumbnail?id=p07.jpg&content=x", 400, "invalid_parameter"),
        ("GET", "/v1/indexes/default/thumbnail?id=../../manifest.json", 404, "item_not_found"),
        ("GET", "/v1/indexes/default/thumbnail?id=%2fetc%2fpasswd", 404, "item_not_found"),
    ],
)
def test_a_wrong_address_is_a_problem_document_too(
    client: httpx.Client, method: str, path: str, status: int, code: str
):
    response = client.request(method, path)
    check_problem(response, status, code)
    if status == 405:
        assert response.headers["allow"]


def test_a_name_inside_a_file_name_is_no_second_name(client: httpx.Client):
    header = b'Content-Disposition: form-data; name="image"; filename="a; name=b \\"; name=c"'
    sent = {**multipart(), "content": PART % header}
    check_problem(client.post("/v1/search", **sent), 415, "unsupported_image_format")


def test_a_route_without_fields_says_so(client: httpx.Client):
    problem = check_problem(client.get("/v1/indexes?k=3"), 400, "invalid_parameter")
    assert problem["detail"].endswith("it has none")


@pytest.mark.parametrize(
    "path", ["/livez", "/readyz", "/v1/info", "/v1/indexes", "/docs", "/nothing", "/v1/search"]
)
def test_head_is_get_without_a_body(client: httpx.Client, path: str):
    head, get = client.head(path), client.get(path)
    assert (head.status_code, head.content) == (get.status_code, b"")
    assert head.headers["content-type"] == get.headers["content-type"]
    # The connection is still in step.
    assert client.get("/livez").json() == {"status": "live"}


def test_the_service_describes_itself(client: httpx.Client):
    info = client.get("/v1/info").json()
    assert info["limits"]["max_k"] == 500
    assert info["models"][0]["decode_policy"] == "lipsim-decode-1"
    assert {"python", "torch", "numpy", "pillow"} <= set(info["versions"])
    index = client.get("/v1/indexes/default").json()
    assert client.get("/v1/indexes").json() == {"indexes": [index]}
    assert index["fingerprint"] == info["models"][0]["fingerprint"]
    assert client.get("/livez").json() == {"status": "live"}
    assert client.get("/readyz").json()["status"] == "ready"


def test_embed_gives_the_vector_that_search_ranks_by(client: httpx.Client):
    embedded = client.post("/embed", files={"image": PNG}).json()
    found = client.post("/search", files={"image": PNG}, data={"include_vector": "true"}).json()
    assert embedded["vector"] == found["query"]["vector"]
    assert embedded["norm"] == pytest.approx(np.linalg.norm(embedded["vector"]), rel=1e-12)
    assert embedded["fingerprint"] == found["model"]["fingerprint"]


def compare(client: httpx.Client, a: bytes, b: bytes, **options: object) -> dict[str, Any]:
    fields = {name: str(value) for name, value in options.items()}
    response = client.post("/v1/similarity", files={"image_a": a, "image_b": b}, data=fields)
    assert response.status_code == 200, response.text
    return response.json()


def test_similarity_is_that_of_the_embeddings(client: httpx.Client):
    other = encode(draw_picture(4, 90, 90), "JPEG")
    answer = compare(client, PNG, other, epsilon=0.1, threshold=0.3)
    a, b = (
        np.array(client.post("/embed", **raw(image)).json()["vector"]) for image in (PNG, other)
    )
    cosine = a @ b / np.linalg.norm(a) / np.linalg.norm(b)
    assert answer["similarity"] == pytest.approx(cosine, abs=1e-12)
    assert answer["distance"] == pytest.approx(1 - cosine, abs=1e-12)
    assert answer["match"] is (answer["distance"] <= 0.3)
    low, high = answer["interval"]["a"]
    wide_low, wide_high = answer["interval"]["both"]
    assert wide_low < low < answer["distance"] < high < wide_high
    radius = answer["certified_radius"]
    assert 0 < radius["both"] < min(radius["a"], radius["b"])
    assert answer["image_b"]["format"] == "JPEG"
    assert (answer["image_b"]["width"], answer["image_b"]["height"]) == (90, 90)


def test_similarity_says_null_to_what_was_not_asked(client: httpx.Client):
    answer = compare(client, PNG, PNG)
    assert answer["interval"] is None
    assert answer["match"] is None
    assert answer["certified_radius"] is None
    assert 0 <= answer["distance"] < 1e-12


def test_similarity_in_json_is_the_same(client: httpx.Client):
    body = {"image_a_base64": B64, "image_b_base64": B64, "threshold": 0.1, "epsilon": None}
    answer = client.post("/v1/similarity", **as_json(body)).json()
    expected = compare(client, PNG, PNG, threshold=0.1)
    del answer["timings_ms"], expected["timings_ms"]
    assert answer == expected


@pytest.mark.parametrize("value", [0.0, 1e-300, 1e300, 1.7e308])
def test_extreme_numbers_are_answered(client: httpx.Client, value: float):
    answer = compare(client, PNG, encode(draw_picture(9)), epsilon=value, threshold=value)
    assert answer["interval"]["a"][0] <= answer["distance"] <= answer["interval"]["a"][1]
    found = client.post("/v1/search", **raw(PNG, epsilon=value, max_distance=value))
    assert found.status_code == 200, found.text


def test_a_request_id_is_kept_if_it_is_harmless(client: httpx.Client):
    kept = client.get("/livez", headers={"X-Request-ID": "trace-1.a_B"})
    assert kept.headers["x-request-id"] == "trace-1.a_B"
    replaced = client.get("/livez", headers={"X-Request-ID": 'a"b{}<script>'})
    assert len(replaced.headers["x-request-id"]) == 32


def test_one_size_of_flat_grey_is_answered_like_any_other(client: httpx.Client):
    """A featureless query is a query: it gets results and small radii, never an error."""
    for value in (0, 128, 255):
        flat = encode(Image.new("RGB", (40, 30), (value, value, value)))
        answer = client.post("/v1/search", **raw(flat, k=3)).json()
        assert len(answer["results"]) == 3
        assert all(result["certified_radius"] >= 0 for result in answer["results"])


def test_the_docs_page_needs_no_other_host(client: httpx.Client):
    page = client.get("/docs")
    assert "http" not in page.text.replace("http-equiv", "").replace("HTTP", "")
    for asset in ("swagger-ui-bundle.js", "swagger-ui.css", "docs.js"):
        assert asset in page.text
        assert client.get(f"/static/{asset}").status_code == 200
    assert client.get("/openapi.json").json()["openapi"].startswith("3.1")


def test_no_answer_names_a_place_on_this_machine(client: httpx.Client, data_dir: Path):
    for path in ("/v1/info", "/v1/indexes", "/readyz", "/openapi.json"):
        assert str(data_dir) not in client.get(path).text
