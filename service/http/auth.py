"""Who may ask what, decided from the request's headers alone: keys, scopes and quota."""

import contextlib
import ipaddress
from collections.abc import Iterable
from dataclasses import KW_ONLY, dataclass

from limits import RateLimitItem
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from service.errors import (
    FieldProblem,
    ForbiddenError,
    InvalidParameterError,
    ServiceError,
    UnauthorizedError,
)
from service.http import pages
from service.http.problems import answer_error
from service.keys.keys import Key, KeyRing
from service.keys.keys import Scope as KeyScope
from service.keys.quota import Meter, Quota
from service.observability.request_context import context_of
from service.settings import parse_rate

_METER = "lipsim.meter"

# The one table of who needs what. Probes are for load balancers, which have no keys, and the page
# is for people, whom it asks for one.
OPEN_PATHS = frozenset({"/livez", "/readyz"}) | pages.OPEN_PATHS
# By beginning: what needs admin. All else needs read, paths that do not exist included.
ADMIN_PREFIXES = ("/metrics", "/v1/challenge")


def needed_scope(path: str) -> KeyScope | None:
    """The scope that a path needs; None: it is open.

    Open paths match exactly and admin paths by their beginning, so that no other spelling that the
    router may know (it ignores a line feed at the end) is worth less than the plain one.
    """
    if path in OPEN_PATHS:
        return None
    return KeyScope.ADMIN if path.startswith(ADMIN_PREFIXES) else KeyScope.READ


def presented_key(headers: Iterable[tuple[bytes, bytes]]) -> bytes | None:
    """The key in `Authorization: Bearer KEY` or `X-API-Key: KEY`; None: there is none.

    Another kind of Authorization is a proxy's matter, not ours.

    Raises:
        InvalidParameterError: the request presents several keys that differ.
    """
    found: set[bytes] = set()
    for name, value in headers:
        if name == b"authorization":
            scheme, _, key = value.strip().partition(b" ")
            if scheme.lower() == b"bearer":
                found.add(key.strip())
        elif name == b"x-api-key":
            found.add(value.strip())
    if len(found) > 1:
        message = "the request presents several keys, and they differ"
        raise InvalidParameterError([FieldProblem("Authorization, X-API-Key", message)])
    return found.pop() if found else None


@dataclass(frozen=True)
class AuthMiddleware:
    """Lets a request in by its key and quota, or refuses it before a byte of its body is read.

    Attributes:
        app: what a request is let in to.
        keys: those in force; None: nobody needs one, and quota is per client address.
        quota: the counter.
        rate: requests per window of each caller that has no rate of its own; None: no bound.
    """

    app: ASGIApp
    _: KW_ONLY
    keys: KeyRing | None
    quota: Quota
    rate: RateLimitItem | None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        app = self.app
        try:
            meter = scope[_METER] = self._admit(scope)
            if meter is not None:
                send = _with_headers(send, meter)
                await meter.charge()
        except ServiceError as error:
            app = answer_error(error, scope)
        await app(scope, receive, send)

    def _admit(self, scope: Scope) -> Meter | None:
        """What counts for the caller's quota; None: it has none, or needs none here."""
        needed = needed_scope(scope["path"])
        if needed is None:
            # A probe is answered whatever it presents; with a key in force it is told more.
            with contextlib.suppress(ServiceError):
                self._authorize(scope, KeyScope.READ)
            return None
        key = self._authorize(scope, needed)
        rate = self.rate if key is None or key.rate_limit is None else parse_rate(key.rate_limit)
        if rate is None:
            return None
        caller = f"address:{address_of(scope)}" if key is None else f"key:{key.name}"
        return Meter(self.quota, caller, rate)

    def _authorize(self, scope: Scope, needed: KeyScope) -> Key | None:
        """The key of a request, which its context is told; None where nobody needs one."""
        if self.keys is None:
            return None
        presented = presented_key(scope["headers"])
        # Without a key the same work is done as with a wrong one: both take the same time.
        key = self.keys.find(presented or b"")
        if key is None or not presented:
            raise UnauthorizedError("a valid key is needed: Authorization: Bearer KEY")
        context_of(scope).key = key.name
        if not key.scope.covers(needed):
            raise ForbiddenError(f"this needs a key of scope {needed}; this one has {key.scope}")
        return key


def address_of(scope: Scope) -> str:
    """What counts as one client: an IPv4 address, or the /64 network that one IPv6 client has."""
    host = scope["client"][0] if scope.get("client") else ""
    try:
        address = ipaddress.ip_address(host.partition("%")[0])
    except ValueError:
        return "unknown"
    if isinstance(address, ipaddress.IPv4Address):
        return str(address)
    if address.ipv4_mapped is not None:
        return str(address.ipv4_mapped)
    return str(ipaddress.ip_network((address, 64), strict=False))


async def charge(scope: Scope, count: int) -> None:
    """Count so many requests more for one that is let in already, all or none.

    Raises:
        QuotaError: they are more than its caller has left.
    """
    meter: Meter | None = scope.get(_METER)
    if meter is not None and count > 0:
        await meter.charge(count)


def _with_headers(send: Send, meter: Meter) -> Send:
    async def send_counted(message: Message) -> None:
        if message["type"] == "http.response.start" and meter.allowance is not None:
            message["headers"] = [*message.get("headers", ()), *meter.allowance.headers()]
        await send(message)

    return send_counted
