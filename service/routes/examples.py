"""Example answers for the OpenAPI document; a test holds them against the wire types."""

from typing import Any

from service.schemas.parts import UNIT

_FINGERPRINT = "5f0c2d7e" * 8
_SHA256 = "9b3a61c4" * 8
_MODEL: dict[str, Any] = {
    "name": "wave-64",
    "fingerprint": _FINGERPRINT,
    "lipschitz_bound": 1.0000001,
    "forward_error": 3.1e-11,
    "arithmetic": "float64",
    "claim": "program",
}
_INDEX: dict[str, Any] = {"name": "default", "version": "v000001", "size": 594}
_IMAGE: dict[str, Any] = {
    "sha256": _SHA256,
    "width": 640,
    "height": 480,
    "format": "JPEG",
    "truncated": False,
    "embedding_norm": 4.87,
    "gain": 0.1342,
}
_POINT: dict[str, Any] = {
    "name": "balanced",
    "statistic": "margin",
    "k": 1,
    "threshold": 0.315744,
    "target_false_positive_rate": 0.01,
    "false_positive_rate": 0.0094,
    "false_positive_upper": 0.0121,
    "recall": 0.55,
    "false_positives": 30,
    "negatives": 3200,
    "hits": 1760,
    "positives": 3200,
    "stale": False,
}
_CALIBRATED_POINT: dict[str, Any] = {
    **_POINT,
    "by_kind": {
        "jpeg": {
            "recall": 0.87,
            "false_positive_rate": 0.01,
            "hits": 87,
            "positives": 100,
            "false_positives": 1,
            "negatives": 100,
        }
    },
    "pairs": "synthetic",
    "pictures": 6400,
    "queries": 6400,
}
_INDEX_STATUS: dict[str, Any] = {
    "name": "default",
    "status": "serving",
    "version": "v000001",
    "size": 594,
    "dim": 512,
    "fingerprint": _FINGERPRINT,
    "created": "2026-11-22T10:00:00Z",
    "operating_points": [_CALIBRATED_POINT],
    "refused": None,
}

# By path, without the /v1 that an alias does not have.
ANSWERS: dict[str, dict[str, Any]] = {
    "/search": {
        "query": _IMAGE,
        "index": _INDEX,
        "model": _MODEL,
        "operating_point": _POINT,
        "results": [
            {
                "rank": 1,
                "id": "animals/heron.jpg",
                "distance": 0.0132,
                "similarity": 0.9868,
                "certified_radius": 1.742,
                "certified_rms_8bit": 0.4627,
                "margin": 0.48,
                "match": True,
                "match_margin": 0.341,
                "match_radius": 0.96,
                "exact": True,
                "duplicates": [],
                "certified": True,
                "metadata": {"title": "Grey heron"},
            }
        ],
        "certificate": {
            "top1_radius": 1.742,
            "set_radius": 1.742,
            "order_radius": 1.742,
            "unit": UNIT,
            "norm": "l2",
            "strict": True,
            "meaning": "Any image of the same size whose decoded pixels differ from the query's "
            "by less than a radius (l2) gets, from this program, index version and model, an "
            "answer that agrees in what that radius is about.",
        },
        "timings_ms": {
            "cache": 0.1,
            "queue": 0.1,
            "decode": 6.2,
            "embed": 21.5,
            "search": 0.3,
            "certify": 0.6,
            "total": 29.0,
        },
    },
    "/similarity": {
        "distance": 0.0132,
        "similarity": 0.9868,
        "interval": {"a": [0.0087, 0.0187], "both": [0.0052, 0.0251]},
        "match": True,
        "certified_radius": {"a": 16.3, "b": 15.9, "both": 8.1},
        "image_a": _IMAGE,
        "image_b": _IMAGE,
        "model": _MODEL,
        "unit": UNIT,
        "timings_ms": {
            "cache": 0.2,
            "queue": 0.1,
            "decode": 12.1,
            "embed": 43.0,
            "certify": 0.1,
            "total": 55.6,
        },
    },
    "/embed": {
        "vector": [0.125, -0.5, 0.25],
        "norm": 4.87,
        "fingerprint": _FINGERPRINT,
        "image": _IMAGE,
        "model": _MODEL,
        "timings_ms": {"cache": 0.1, "queue": 0.1, "decode": 6.2, "embed": 21.5, "total": 28.0},
    },
    "/indexes": {"indexes": [_INDEX_STATUS]},
    "/indexes/{name}": _INDEX_STATUS,
    "/indexes/{name}/item": {
        "id": "animals/heron.jpg",
        "duplicates": ["animals/heron-copy.jpg"],
        "sha256": _SHA256,
        "width": 640,
        "height": 480,
        "format": "JPEG",
        "metadata": {"title": "Grey heron"},
        "index": _INDEX,
    },
    "/info": {
        "name": "lipsim-retrieval",
        "version": "0.1.0",
        "versions": {"python": "3.11.7", "torch": "2.13.0", "faiss-cpu": "1.15.1"},
        "limits": {
            "max_image_bytes": 20971520,
            "max_image_pixels": 50000000,
            "max_image_side": 20000,
            "formats": ["AVIF", "GIF", "JPEG", "PNG", "WEBP"],
            "default_k": 10,
            "max_k": 1000,
            "body_timeout_s": 30.0,
            "queue_timeout_s": 10.0,
            "request_timeout_s": 30.0,
        },
        "models": [{**_MODEL, "dim": 512, "input_size": 64, "decode_policy": "lipsim-decode-1"}],
        "indexes": ["default"],
    },
    "/livez": {"status": "live"},
    "/readyz": {
        "status": "ready",
        "reason": None,
        "detail": None,
        "indexes": [_INDEX_STATUS],
        "redis": "ok",
    },
    "/readyz#503": {
        "status": "not_ready",
        "reason": "no_index",
        "detail": "there is no index: make one with `python -m index_builder build SOURCE`; "
        "/v1/embed and /v1/similarity work without",
        "indexes": [],
        "redis": "off",
    },
}

# What a problem may say in detail, where the title alone would not show it.
PROBLEM_DETAILS: dict[str, str] = {
    "unauthorized": "a valid key is needed: Authorization: Bearer KEY",
    "forbidden": "this needs a key of scope admin; this one has read",
    "quota_exceeded": "600 requests are used up; the next 600 begin in 42 s",
    "missing_field": "image: is required",
    "invalid_parameter": "k: Input should be greater than or equal to 1",
    "unknown_operating_point": "operating_point: index 'default' v000002 knows strict, balanced; "
    "got 'loose'",
    "index_not_found": "no index 'brands' is in service here",
    "body_too_large": "the body may have 21037056 bytes at most on this route",
    "unsupported_media_type": "Content-Type must be one of multipart/form-data, application/json, "
    "image/*, application/octet-stream; got 'text/plain'",
}

METRICS_EXAMPLE = """# HELP lipsim_requests_total Requests that reached a route, or none.
# TYPE lipsim_requests_total counter
lipsim_requests_total{method="POST",route="/v1/search",status="200"} 12.0
"""
