"""What becomes known about a request on its way, for the one line that the log has of it."""

from dataclasses import dataclass

from starlette.types import Scope

from service.errors import Refusal
from service.observability.stopwatch import Stopwatch

_KEY = "lipsim.request_context"


@dataclass
class RequestContext:
    """Filled in by whoever learns it; None, and absent from the line, until then.

    Attributes:
        code: of the problem document that was the answer.
        refusal: which bound was reached, if it was one that says "come back later".
        index: name of the index that was asked; only ever one that there is.
        k: results that were asked for.
        watch: where the time went.
    """

    code: str | None = None
    refusal: Refusal | None = None
    index: str | None = None
    k: int | None = None
    watch: Stopwatch | None = None

    def fields(self) -> dict[str, object]:
        """Members of the log line; stages in milliseconds."""
        known = {
            "code": self.code,
            "refusal": self.refusal,
            "index": self.index,
            "k": self.k,
        }
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
