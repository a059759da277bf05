"""What a route finds on its application, and the check of a GET's query."""

from typing import Annotated

from fastapi import Depends, Request

from service.http.multipart import check_name
from service.lifecycle import Lifecycle


# Dependencies are asynchronous though they wait for nothing: a plain one would cost a thread.
async def _lifecycle_of(request: Request) -> Lifecycle:
    lifecycle: Lifecycle = request.app.state.lifecycle
    return lifecycle


Service = Annotated[Lifecycle, Depends(_lifecycle_of)]


async def check_query(request: Request) -> None:
    """Refuse query parameters of a GET that its route does not have, or that come twice."""
    known = {parameter.alias for parameter in request.scope["route"].dependant.query_params}
    seen: set[str] = set()
    for name, _ in request.query_params.multi_items():
        check_name(name, known, seen)
        seen.add(name)
