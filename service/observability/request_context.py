"""What becomes known about a request on its way, for the one line that the log has of it."""

from dataclasses import dataclass

from starlette.types import Scope

from service.errors import RefusalReason
from service.observability.stopwatch import Stopwatch

_KEY = "lipsim.request_context"


@dataclass
class RequestContext:
    """Filled in by whoever learns it; None, and absent from the line, until then.

    Attributes:
        key: name of the API key that the request came with, of those in force.
        code: of the problem document that was the answer.
        refusal: which bound was reached, if it was one that says "come back later".
        index: name of the index that was asked; only ever one that there is.
        k: results that were asked for.
        images: of a batch, how many there were.
        watch: where the time went.
    """

    key: str | None = None
    code: str | None = None
    refusal: RefusalReason | None = None
    index: str | None = None
    k: int | None = None
    images: int | None = None
    watch: Stopwatch | None = None

    def fields(self) -> dict[str, object]:
        """Members of the log line; stages in milliseconds."""
        names = ("key", "code", "refusal", "index", "k", "images")
        known = {name: getattr(self, name) for name in names}
        fields: dict[str, object] = {n: value for n, value in known.items() if value is not None}
        if self.watch is not None:
            fields["stages_ms"] = self.watch.stages_ms()
            if self.watch.shared_by:
                fields["batch_size"] = self.watch.shared_by
        return fields


def context_of(scope: Scope) -> RequestContext:
    """The context of one request, by its ASGI scope."""
    context: RequestContext = scope.setdefault(_KEY, RequestContext())
    return context


def route_of(scope: Scope) -> str:
    """The route's pattern where one matched, so that logs hold no text of a client's choosing."""
    return getattr(scope.get("route"), "path", "(none)")
