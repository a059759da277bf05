"""Ask a service from Python: `Client`, and `AsyncClient` for programs with an event loop.

It needs httpx (the extra `client`) and pydantic, and neither torch, FAISS nor numpy.
"""

from service.client.async_client import AsyncClient
from service.client.client import Client
from service.client.problems import ProblemError
from service.client.queries import Image, SearchArguments, Searched, ToleranceArguments

__all__ = [
    "AsyncClient",
    "Client",
    "Image",
    "ProblemError",
    "SearchArguments",
    "Searched",
    "ToleranceArguments",
]
