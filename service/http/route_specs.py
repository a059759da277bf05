"""What each route takes and answers: said once, for its reader, body limit and OpenAPI document."""

import re
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from service.schemas.batch import MOST_IMAGES
from service.schemas.challenge import ChallengeOptions
from service.schemas.common import Options
from service.schemas.embed import EmbedOptions
from service.schemas.indexes import ListOptions
from service.schemas.search import SearchOptions, SingleSearchOptions
from service.schemas.similarity import SimilarityOptions
from service.schemas.tolerance import ToleranceOptions

# Room for the form fields, JSON members and part headers around the images of a body.
_OVERHEAD_BYTES = 64 * 1024

OptionsT = TypeVar("OptionsT", bound=Options)


@dataclass(frozen=True)
class RouteSpec(Generic[OptionsT]):
    """One route.

    Attributes:
        images: names of its image fields; with exactly one, a raw body may stand for it; without
            any, and without options, it takes no body.
        options: the model of its options.
        codes: of the problems that it may answer with, beside those of keys and quota.
        stand_in: name of the option that may be given in place of the images.
        most: of a batch, how often its image may be given; 0: it is none.
    """

    images: tuple[str, ...]
    options: type[OptionsT]
    codes: tuple[str, ...]
    stand_in: str | None = None
    most: int = 0

    @property
    def takes_raw(self) -> bool:
        """Whether a raw body may stand for its image."""
        return len(self.images) == 1 and not self.most

    def max_body_bytes(self, content_type: str, max_image_bytes: int, max_batch_bytes: int) -> int:
        """Bytes that a body may have: its images, encoded, and some room; a batch has its own."""
        if self.most:
            return max_batch_bytes
        if not self.images and self.options is not Options:
            return _OVERHEAD_BYTES
        is_json = content_type.split(";", 1)[0].strip().lower() == "application/json"
        image_bytes = 4 * ((max_image_bytes + 2) // 3) if is_json else max_image_bytes
        return max(1, len(self.images)) * image_bytes + _OVERHEAD_BYTES


def reading(*codes: str) -> RouteSpec[Options]:
    """The specification of a route that takes no body."""
    return RouteSpec((), Options, codes)


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
_SEARCH_CODES = (
    "invalid_filter",
    "unknown_operating_point",
    "index_not_found",
    "index_unavailable",
)
SEARCH = RouteSpec(
    ("image",),
    SingleSearchOptions,
    (*_BODY_CODES, *_SEARCH_CODES, "item_not_found"),
    stand_in="item",
)
SEARCH_BATCH = RouteSpec(
    ("image",), SearchOptions, (*_BODY_CODES, *_SEARCH_CODES), most=MOST_IMAGES
)
TOLERANCE = RouteSpec(("image",), ToleranceOptions, SEARCH.codes)
CHALLENGE = RouteSpec(("image",), ChallengeOptions, (*SEARCH.codes, "challenge_disabled"))
SIMILARITY = RouteSpec(("image_a", "image_b"), SimilarityOptions, _BODY_CODES)
EMBED = RouteSpec(("image",), EmbedOptions, _BODY_CODES)
LIST_ITEMS = RouteSpec(
    (),
    ListOptions,
    (
        "malformed_request",
        "malformed_body",
        "invalid_parameter",
        "invalid_filter",
        "body_timeout",
        "body_too_large",
        "unsupported_media_type",
        "index_not_found",
        "overloaded",
        "not_ready",
        "index_unavailable",
    ),
)
_ITEM = reading(
    "invalid_parameter", "index_not_found", "item_not_found", "not_ready", "index_unavailable"
)

_LIST = reading("invalid_parameter", "index_not_found", "not_ready", "index_unavailable")

_LIST_PATH = re.compile(r"/v1/indexes/[^/]*/items/list")


def spec_of(path: str) -> RouteSpec[Any]:
    """What a request to this path takes; to an unknown path, nothing."""
    if _LIST_PATH.fullmatch(path):
        return LIST_ITEMS
    return SPECS.get(path) or reading()


SPECS: dict[str, RouteSpec[Any]] = {
    "/v1/search": SEARCH,
    "/search": SEARCH,
    "/v1/search/batch": SEARCH_BATCH,
    "/v1/tolerance": TOLERANCE,
    "/v1/challenge": CHALLENGE,
    "/v1/similarity": SIMILARITY,
    "/similarity": SIMILARITY,
    "/v1/embed": EMBED,
    "/embed": EMBED,
    "/v1/indexes": reading("invalid_parameter", "not_ready"),
    "/v1/indexes/{name}": reading("invalid_parameter", "index_not_found", "not_ready"),
    "/v1/indexes/{name}/item": _ITEM,
    "/v1/indexes/{name}/items": _LIST,
    "/v1/indexes/{name}/metadata": _LIST,
    "/v1/indexes/{name}/metadata/values": _LIST,
    "/v1/indexes/{name}/items/list": LIST_ITEMS,
    "/v1/indexes/{name}/thumbnail": _ITEM,
    "/v1/info": reading("invalid_parameter", "not_ready"),
    "/v1/examples/{name}": reading("invalid_parameter", "item_not_found"),
}
