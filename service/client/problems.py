"""What a service answers instead of an answer, as the client's one exception."""

import random
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime

import httpx
from pydantic import ValidationError

from service.schemas.common import Problem

_AGAIN = frozenset({429, 503})
_FIRST_PAUSE_S = 0.5
# A thousand clients that were all told "in one second" would come back as one.
_JITTER = 0.25


# Not of the tree of `model.errors`: those have a status of their own, this one brings it along.
class ProblemError(Exception):
    """The service refused a request, or gave no answer to it.

    Attributes:
        problem: what it said. Where nothing of ours came, `code` is `no_answer` (status 0: no
            connection, or it broke), `client_timeout` (status 0) or `foreign_answer` (a proxy's).
        status: of HTTP; 0 where no answer came.
        code: stable; what to tell errors apart by.
        title: the same in words.
        detail: about this very request.
        retry_after_s: when the service wants to be asked again, in seconds; None: it did not say.
    """

    def __init__(self, problem: Problem, retry_after_s: float | None = None) -> None:
        self.problem = problem
        self.status, self.code = problem.status, problem.code
        self.title, self.detail = problem.title, problem.detail
        self.retry_after_s = problem.retry_after_s if retry_after_s is None else retry_after_s
        super().__init__(f"{self.title} ({self.code}): {self.detail}")

    def pause_s(self, attempt: int) -> float | None:
        """How long to wait before the request is sent again; None: again would be no better.

        Never less than the service said; else half a second, twice as long each time.
        """
        if self.status not in _AGAIN and self.code != "no_answer":
            return None
        told = self.retry_after_s
        pause = _FIRST_PAUSE_S * 2.0**attempt if told is None else told
        return pause * (1.0 + _JITTER * random.random())  # noqa: S311 - no secret


def refused(response: httpx.Response) -> ProblemError:
    """The error of an answer that is none of success."""
    try:
        problem = Problem.model_validate_json(response.content)
    except ValidationError:
        problem = foreign_answer(response, "without a problem document").problem
    # What came counts, whatever the document says of it.
    problem = problem.model_copy(update={"status": response.status_code})
    return ProblemError(problem, _seconds(response.headers.get("retry-after")))


def foreign_answer(response: httpx.Response, why: str) -> ProblemError:
    """The error of an answer that no service of ours gives."""
    detail = f"{response.request.url.host} answered {response.status_code} {why}"
    return _error("Not an answer of this service", response.status_code, "foreign_answer", detail)


def stuck(host: str, path: str, after: str) -> ProblemError:
    """The error of a list whose next page would not lie after this one, as ours always do."""
    detail = f"{host} answered a page of {path} after {after!r} that leads back"
    return _error("Not an answer of this service", 200, "foreign_answer", detail)


def no_answer(error: httpx.RequestError) -> ProblemError:
    """The error of a request that was not answered at all."""
    late = isinstance(error, httpx.TimeoutException)
    code = "client_timeout" if late else "no_answer"
    where = f"{error.request.url.host}:{error.request.url.port or ''}".rstrip(":")
    return _error("No answer", 0, code, f"{where}: {error or type(error).__name__}")


def _error(title: str, status: int, code: str, detail: str) -> ProblemError:
    problem = Problem(type="about:blank", title=title, status=status, code=code, detail=detail)
    return ProblemError(problem)


def _seconds(header: str | None) -> float | None:
    """What Retry-After says, as a number of seconds or a date; None for what is neither."""
    if header is None:
        return None
    if header.strip().isdecimal():
        return float(header)
    try:
        until = parsedate_to_datetime(header)
    except (ValueError, OverflowError):
        return None
    if until.tzinfo is None:
        until = until.replace(tzinfo=UTC)
    return max(0.0, (until - datetime.now(UTC)).total_seconds())
