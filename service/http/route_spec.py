"""What one route takes and answers: said once, for its reader, its body limit and its document."""

from dataclasses import dataclass
from typing import Generic, TypeVar

from service.schemas.parts import Options

# Room for the form fields, JSON members and part headers around the images of a body.
_OVERHEAD_BYTES = 64 * 1024

OptionsT = TypeVar("OptionsT", bound=Options)


@dataclass(frozen=True)
class RouteSpec(Generic[OptionsT]):
    """One route.

    Attributes:
        images: names of its image fields; with exactly one, a raw body may stand for it; without
            any, it takes no body.
        options: the model of its options.
        codes: of the problems that it may answer with, beside those of keys and quota.
    """

    images: tuple[str, ...]
    options: type[OptionsT]
    codes: tuple[str, ...]

    def max_body_bytes(self, content_type: str, max_image_bytes: int) -> int:
        """Bytes that a body may have: its images, encoded, and some room."""
        is_json = content_type.split(";", 1)[0].strip().lower() == "application/json"
        image_bytes = 4 * ((max_image_bytes + 2) // 3) if is_json else max_image_bytes
        return max(1, len(self.images)) * image_bytes + _OVERHEAD_BYTES


def reading(*codes: str) -> RouteSpec[Options]:
    """The specification of a route that takes no body."""
    return RouteSpec((), Options, codes)
