"""The client for programs with an event loop; `Client` is this one, for programs without."""

import asyncio
import os
from collections import deque
from collections.abc import AsyncIterator, Iterable
from ssl import SSLContext
from typing import Any, Self, TypeVar, Unpack
from urllib.parse import quote

import httpx
from pydantic import BaseModel, ValidationError

from service.client.problems import ProblemError, foreign_answer, no_answer, refused
from service.client.queries import (
    Image,
    SearchArguments,
    Searched,
    as_parameters,
    images_of,
    is_about_one_image,
    read_image,
)
from service.schemas.common import DEFAULT_INDEX
from service.schemas.embed import EmbedAnswer
from service.schemas.indexes import ItemPage, ListedItem
from service.schemas.search import SearchAnswer
from service.schemas.similarity import SimilarityAnswer

AnswerT = TypeVar("AnswerT", bound=BaseModel)

_PAGE = 500
_CONNECT_S = 10.0
_RAW = {"Content-Type": "application/octet-stream"}


class AsyncClient:
    """Asks one service. Use it as a context manager, or `close` it.

    Every method raises `ProblemError` where the service refuses or does not answer, and OSError
    where an image cannot be read. What is answered 429 or 503, or breaks off, is sent again, not
    before the service's `Retry-After`; any other refusal is final.

    Args:
        url: where the service is, like http://127.0.0.1:8000.
        key: an API key, where the service wants one.
        timeout_s: longest wait for an answer.
        retries: how often one request is sent again at most.
        longest_wait_s: a `Retry-After` beyond it is not waited for: the refusal is raised.
        verify: as httpx takes it: whose certificates are believed.
        transport: likewise: what carries requests; None: the network.
    """

    def __init__(
        self,
        url: str,
        key: str | None = None,
        *,
        timeout_s: float = 60.0,
        retries: int = 5,
        longest_wait_s: float = 60.0,
        verify: bool | SSLContext = True,
        transport: httpx.AsyncBaseTransport | None = None,
    ) -> None:
        self._retries, self._longest_wait_s = retries, longest_wait_s
        self._http = httpx.AsyncClient(
            base_url=url,
            headers={} if key is None else {"Authorization": f"Bearer {key}"},
            timeout=httpx.Timeout(timeout_s, connect=min(timeout_s, _CONNECT_S)),
            verify=verify,
            transport=transport,
        )

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def close(self) -> None:
        await self._http.aclose()

    async def search(self, image: Image, **options: Unpack[SearchArguments]) -> SearchAnswer:
        """The nearest entries of an index, each with its certified radius."""
        data = await asyncio.to_thread(read_image, image)
        params = as_parameters(options)
        return await self._ask(
            SearchAnswer, "POST", "/v1/search", content=data, headers=_RAW, params=params
        )

    async def search_many(
        self,
        images: Iterable[Image] | str | os.PathLike[str],
        *,
        concurrency: int = 8,
        **options: Unpack[SearchArguments],
    ) -> AsyncIterator[Searched]:
        """Search with many images, or all files of a folder; what was found, in their order.

        An image that cannot be read or used costs itself alone: its `error` says why.

        Args:
            images: taken one by one, as they are needed.
            concurrency: how many are under way at once, and in memory.
            options: of every search.
        """
        waiting: deque[asyncio.Task[Searched]] = deque()
        try:
            for image in images_of(images):
                waiting.append(asyncio.create_task(self.try_search(image, **options)))
                if len(waiting) >= concurrency:
                    yield await waiting.popleft()
            while waiting:
                yield await waiting.popleft()
        finally:
            for task in waiting:
                task.cancel()

    async def try_search(self, image: Image, **options: Unpack[SearchArguments]) -> Searched:
        """One of many searches: what is wrong with the image itself is told with it, not raised."""
        try:
            return Searched(image, answer=await self.search(image, **options))
        except ProblemError as error:
            if not is_about_one_image(error):
                raise
            return Searched(image, error=error)
        except OSError as error:
            return Searched(image, error=error)

    async def compare(
        self, a: Image, b: Image, *, epsilon: float | None = None, threshold: float | None = None
    ) -> SimilarityAnswer:
        """The distance of two images, its interval under `epsilon`, a verdict by `threshold`."""
        files = {
            name: await asyncio.to_thread(read_image, image)
            for name, image in {"image_a": a, "image_b": b}.items()
        }
        form = as_parameters({"epsilon": epsilon, "threshold": threshold})
        return await self._ask(SimilarityAnswer, "POST", "/v1/similarity", files=files, data=form)

    async def embed(self, image: Image) -> EmbedAnswer:
        """The raw embedding of an image."""
        data = await asyncio.to_thread(read_image, image)
        return await self._ask(EmbedAnswer, "POST", "/v1/embed", content=data, headers=_RAW)

    async def items(
        self, index: str = DEFAULT_INDEX, *, after: str = ""
    ) -> AsyncIterator[ListedItem]:
        """Every item of an index by id, or those after one; fetched page by page."""
        path, last = f"/v1/indexes/{quote(index, safe='')}/items", after
        while last is not None:
            params = {"limit": str(_PAGE), "after": last}
            page = await self._ask(ItemPage, "GET", path, params=params)
            for item in page.items:
                yield item
            last = page.next

    async def _ask(self, kind: type[AnswerT], method: str, path: str, **parts: Any) -> AnswerT:
        """The answer to one request, sent again where that may help."""
        attempt = 0
        while True:
            try:
                response = await self._http.request(method, path, **parts)
            except httpx.TransportError as error:
                failure = no_answer(error)
            else:
                if response.is_success:
                    return _read(kind, response)
                failure = refused(response)
            pause_s = failure.pause_s(attempt)
            if pause_s is None or pause_s > self._longest_wait_s or attempt >= self._retries:
                raise failure
            await asyncio.sleep(pause_s)
            attempt += 1


def _read(kind: type[AnswerT], response: httpx.Response) -> AnswerT:
    try:
        return kind.model_validate_json(response.content)
    except ValidationError as error:
        raise foreign_answer(response, f"with what is no {kind.__name__}") from error
