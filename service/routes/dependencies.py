"""What a route finds on its application, and the check of a GET's query."""

from collections.abc import Callable, Coroutine
from typing import Annotated, Any

from fastapi import Depends, Request
from fastapi.routing import APIRoute
from starlette.responses import Response

from service.http.multipart import check_name
from service.lifecycle import Lifecycle


# Dependencies are asynchronous though they wait for nothing: a plain one would cost a thread.
async def _lifecycle_of(request: Request) -> Lifecycle:
    lifecycle: Lifecycle = request.app.state.lifecycle
    return lifecycle


Service = Annotated[Lifecycle, Depends(_lifecycle_of)]


class ImageRoute(APIRoute):
    """A route whose endpoint takes the request and the service alone, and reads the rest itself.

    There is nothing that FastAPI has to find out for it, and finding that out took calls enough.
    """

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        async def handle(request: Request) -> Response:
            return await self.endpoint(request, await _lifecycle_of(request))

        return handle


async def check_query(request: Request) -> None:
    """Refuse query parameters of a GET that its route does not have, or that come twice."""
    known = {parameter.alias for parameter in request.scope["route"].dependant.query_params}
    seen: set[str] = set()
    for name, _ in request.query_params.multi_items():
        check_name(name, known, seen)
        seen.add(name)
