"""The client for programs with an event loop; `Client` is this one, for programs without."""

import asyncio
import contextlib
import os
from collections import deque
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from ssl import SSLContext
from typing import Any, Self, TypeVar, Unpack
from urllib.parse import quote

import httpx
from pydantic import BaseModel, ValidationError

from service.client.problems import ProblemError, foreign_answer, no_answer, refused, stuck
from service.client.queries import (
    Image,
    SearchArguments,
    Searched,
    ToleranceArguments,
    as_parameters,
    batch_plan,
    batches,
    images_of,
    is_about_one_image,
    read_image,
)
from service.schemas.batch import BatchAnswer
from service.schemas.common import DEFAULT_INDEX
from service.schemas.embed import EmbedAnswer
from service.schemas.indexes import ItemPage, KeyPage, ListedItem, ValueList
from service.schemas.search import SearchAnswer
from service.schemas.similarity import SimilarityAnswer
from service.schemas.tolerance import ToleranceAnswer

AnswerT = TypeVar("AnswerT", bound=BaseModel)
PageT = TypeVar("PageT", ItemPage, KeyPage)

_PAGE = 500
_CONNECT_S = 10.0
_BATCH = "/v1/search/batch"
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
        longest_wait_s: a `Retry-After` beyond it is not waited for: the refusal is raised, or is
            the `error` of the image of many that it is about.
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
        self._timeout_s = timeout_s
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
        return await self._ask_about(SearchAnswer, "/v1/search", image, options)

    async def search_many(
        self,
        images: Iterable[Image] | str | os.PathLike[str],
        *,
        concurrency: int = 16,
        **options: Unpack[SearchArguments],
    ) -> AsyncIterator[Searched]:
        """Search with many images, or all files of a folder; what was found, in their order.

        An image that cannot be read or used costs itself alone: its `error` says why.

        Args:
            images: taken one by one, as they are needed.
            concurrency: how many are under way at once, and in memory.
            options: of every search.
        """
        most, at_once = batch_plan(concurrency)
        waiting: deque[asyncio.Task[list[Searched]]] = deque()
        try:
            for batch in batches(images_of(images), most):
                waiting.append(asyncio.create_task(self.try_batch(batch, **options)))
                while len(waiting) >= at_once:
                    for one in await waiting.popleft():
                        yield one
            while waiting:
                for one in await waiting.popleft():
                    yield one
        finally:
            for task in waiting:
                task.cancel()

    async def try_batch(
        self, images: Sequence[Image], **options: Unpack[SearchArguments]
    ) -> list[Searched]:
        """Some of many searches in one request; one by one where the service does not take that.

        What came is kept: once the service has said something of one image, what refuses the rest
        (a quota, a connection that breaks) is their `error`, and not raised.
        """
        told = await self._in_one_request(images, options)
        found: list[Searched] = []
        refusal: ProblemError | None = None
        for place, image in enumerate(images):
            one = told.get(place)
            if one is None and refusal is None:
                try:
                    one = await self.try_search(image, **options)
                except ProblemError as error:
                    if all(isinstance(one.error, OSError) for one in (*told.values(), *found)):
                        raise
                    refusal = error  # The next would only wait as long to be told the same.
            found.append(one or Searched(image, error=refusal))
        return found

    async def _in_one_request(
        self, images: Sequence[Image], options: SearchArguments
    ) -> dict[int, Searched]:
        """What a batch says, by place; what is missing may now be asked for alone."""
        read = await asyncio.gather(*(_try_reading(image) for image in images))
        files = [("image", (str(place), data)) for place, data in enumerate(read) if data]
        if len(files) < 2:
            return {}
        form = as_parameters(options)
        try:
            batch = await self._ask(BatchAnswer, "POST", _BATCH, retries=0, files=files, data=form)
        except ProblemError as error:
            # Too many for a quota or a queue, too large: a single one may fit.
            await asyncio.sleep(self._pause_s(error, 0) or 0.0)
            return {}
        told: dict[int, Searched] = {}
        longest_s = 0.0
        items = {item.id: item for item in batch.items}
        for place, image in enumerate(images):
            item = items.get(str(place))
            if item is not None and item.answer is not None:
                told[place] = Searched(image, answer=item.answer)
            elif item is not None and item.problem is not None:
                error = ProblemError(item.problem)
                pause_s = error.pause_s(0)
                if pause_s is None or pause_s > self._longest_wait_s:
                    told[place] = Searched(image, error=error)
                else:
                    longest_s = max(longest_s, pause_s)
        await asyncio.sleep(longest_s)
        return told

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
        return await self._ask_about(EmbedAnswer, "/v1/embed", image, {})

    async def tolerance(
        self, image: Image, **options: Unpack[ToleranceArguments]
    ) -> ToleranceAnswer:
        """Which edits of an image provably leave a statement about its answer alone."""
        return await self._ask_about(ToleranceAnswer, "/v1/tolerance", image, options)

    async def items(
        self, index: str = DEFAULT_INDEX, *, after: str = ""
    ) -> AsyncIterator[ListedItem]:
        """Every item of an index by id, or those after one; fetched page by page."""
        async for page in self._pages(ItemPage, f"{_path_of(index)}/items", after):
            for item in page.items:
                yield item

    async def metadata_keys(
        self, index: str = DEFAULT_INDEX, *, after: str = ""
    ) -> AsyncIterator[str]:
        """Every key that a filter may ask about, or those after one; fetched page by page."""
        async for page in self._pages(KeyPage, f"{_path_of(index)}/metadata", after):
            for key in page.keys:
                yield key

    async def metadata_values(
        self, key: str, index: str = DEFAULT_INDEX, *, prefix: str = "", limit: int = 1000
    ) -> ValueList:
        """The first values of a key, and how many items hold each; `complete` says if that is all.

        Args:
            key: as a filter names it, and as `metadata_keys` gives it.
            index: whose.
            prefix: only texts that begin so; empty: values of every type.
            limit: how many at most, up to 1,000.
        """
        params = {"key": key, "prefix": prefix, "limit": str(limit)}
        path = f"{_path_of(index)}/metadata/values"
        return await self._ask(ValueList, "GET", path, params=params)

    async def _pages(self, kind: type[PageT], path: str, after: str) -> AsyncIterator[PageT]:
        """Page after page of a list, until one names no next.

        Raises:
            ProblemError: a list that does not go on would be followed without end.
        """
        last: str | None = after
        while last is not None:
            page = await self._ask(kind, "GET", path, params={"limit": str(_PAGE), "after": last})
            yield page
            if page.next is not None and page.next <= last:  # A cache on the way, say.
                raise stuck(self._http.base_url.host, path, last)
            last = page.next

    async def _ask_about(
        self, kind: type[AnswerT], path: str, image: Image, options: Mapping[str, Any]
    ) -> AnswerT:
        """The answer to a question about one image."""
        data = await asyncio.to_thread(read_image, image)
        params = as_parameters(options)
        return await self._ask(kind, "POST", path, content=data, headers=_RAW, params=params)

    async def _ask(
        self,
        kind: type[AnswerT],
        method: str,
        path: str,
        *,
        retries: int | None = None,
        **parts: Any,
    ) -> AnswerT:
        """The answer to one request, sent again where that may help."""
        most = self._retries if retries is None else retries
        attempt = 0
        while True:
            try:
                # httpx bounds each wait, and a server that drips would never be given up.
                async with asyncio.timeout(self._timeout_s):
                    response = await self._http.request(method, path, **parts)
            except TimeoutError:
                late = httpx.ReadTimeout(f"no whole answer in {self._timeout_s:g} s")
                late.request = self._http.build_request(method, path)
                failure = no_answer(late)
            except httpx.RequestError as error:
                failure = no_answer(error)
            else:
                if response.is_success:
                    return _read(kind, response)
                failure = refused(response)
            if attempt >= most or (pause_s := self._pause_s(failure, attempt)) is None:
                raise failure
            await asyncio.sleep(pause_s)
            attempt += 1

    def _pause_s(self, failure: ProblemError, attempt: int) -> float | None:
        """How long to wait before asking again; None: not at all.

        Raises:
            ProblemError: the service wants to be left alone for longer than this client waits.
        """
        pause_s = failure.pause_s(attempt)
        if pause_s is not None and pause_s > self._longest_wait_s:
            raise failure
        return pause_s


def _path_of(index: str) -> str:
    return f"/v1/indexes/{quote(index, safe='')}"


async def _try_reading(image: Image) -> bytes:
    """The bytes of an image; none where it cannot be read, which is said when it is asked for."""
    with contextlib.suppress(OSError):
        return await asyncio.to_thread(read_image, image)
    return b""


def _read(kind: type[AnswerT], response: httpx.Response) -> AnswerT:
    try:
        return kind.model_validate_json(response.content)
    except ValidationError as error:
        raise foreign_answer(response, f"with what is no {kind.__name__}") from error
