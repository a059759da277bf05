"""What each route takes and which problems it may answer with, by path."""

from typing import Any

from service.http.route_spec import RouteSpec, reading
from service.schemas.embed import EmbedOptions
from service.schemas.search import SearchOptions
from service.schemas.similarity import SimilarityOptions

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
SEARCH = RouteSpec(
    ("image",),
    SearchOptions,
    (*_BODY_CODES, "unknown_operating_point", "index_not_found", "index_unavailable"),
)
SIMILARITY = RouteSpec(("image_a", "image_b"), SimilarityOptions, _BODY_CODES)
EMBED = RouteSpec(("image",), EmbedOptions, _BODY_CODES)
_ITEM = reading(
    "invalid_parameter", "index_not_found", "item_not_found", "not_ready", "index_unavailable"
)

SPECS: dict[str, RouteSpec[Any]] = {
    "/v1/search": SEARCH,
    "/search": SEARCH,
    "/v1/similarity": SIMILARITY,
    "/similarity": SIMILARITY,
    "/v1/embed": EMBED,
    "/embed": EMBED,
    "/v1/indexes": reading("invalid_parameter", "not_ready"),
    "/v1/indexes/{name}": reading("invalid_parameter", "index_not_found", "not_ready"),
    "/v1/indexes/{name}/item": _ITEM,
    "/v1/indexes/{name}/thumbnail": _ITEM,
    "/v1/info": reading("invalid_parameter", "not_ready"),
}
