"""Whether a request is let in, decided from its first line while the service is full."""

from collections.abc import Callable

from service.admission import Places

Gate = Callable[[bytes, bytes], int | None]
"""From method and URL: None to let the request in, or the seconds after which to come back."""


def make_gate(*stages: Places) -> Gate:
    """A gate that refuses work while one of the stages has no place; reading is always let in."""

    def gate(method: bytes, _url: bytes) -> int | None:
        if method != b"POST":
            return None
        full = [stage.retry_after_s() for stage in stages if stage.is_full]
        return max(full) if full else None

    return gate
