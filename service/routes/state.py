"""What a route finds on its application: the runtime and the limits, typed once."""

from dataclasses import dataclass
from typing import Annotated

from fastapi import Depends, Request

from service.http.multipart import check_name
from service.lifecycle import Runtime
from service.observability.metrics import Metrics
from service.redis.link import RedisLink, Status
from service.schemas.info import Limits


@dataclass(frozen=True)
class State:
    """Kept as `app.state.service`."""

    runtime: Runtime
    limits: Limits
    metrics: Metrics
    redis: RedisLink | None

    @property
    def redis_status(self) -> Status:
        """How Redis is, for probes."""
        return "off" if self.redis is None else self.redis.status


# Dependencies are asynchronous though they wait for nothing: a plain one would cost a thread.
async def _state_of(request: Request) -> State:
    state: State = request.app.state.service
    return state


ServiceState = Annotated[State, Depends(_state_of)]


async def check_query(request: Request) -> None:
    """Refuse query parameters of a GET that its route does not have, or that come twice."""
    known = {parameter.alias for parameter in request.scope["route"].dependant.query_params}
    seen: set[str] = set()
    for name, _ in request.query_params.multi_items():
        check_name(name, known, seen)
        seen.add(name)
