"""The client for programs without an event loop of their own, or with one that is busy."""

import os
import weakref
from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future
from contextlib import ExitStack
from functools import partial
from ssl import SSLContext
from typing import Self, Unpack

from anyio.from_thread import start_blocking_portal

from service.client.async_client import AsyncClient
from service.client.queries import (
    Image,
    SearchArguments,
    Searched,
    ToleranceArguments,
    batch_plan,
    batches,
    images_of,
)
from service.schemas.common import DEFAULT_INDEX
from service.schemas.embed import EmbedAnswer
from service.schemas.indexes import ListedItem, ValueList
from service.schemas.search import SearchAnswer
from service.schemas.similarity import SimilarityAnswer
from service.schemas.tolerance import ToleranceAnswer


class Client:
    """`AsyncClient` with methods that wait: what they take, give and raise is the same.

    Its event loop runs in a thread of its own, so it works in notebooks, and any thread may use
    it. Not across `fork`: a process makes its own.
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
    ) -> None:
        self._client = AsyncClient(
            url,
            key,
            timeout_s=timeout_s,
            retries=retries,
            longest_wait_s=longest_wait_s,
            verify=verify,
        )
        stack = ExitStack()
        self._portal = stack.enter_context(start_blocking_portal())
        stack.callback(self._portal.call, self._client.close)
        # At the latest when the program ends, while the thread still runs.
        self._finalizer = weakref.finalize(self, stack.close)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        self._finalizer()

    def search(self, image: Image, **options: Unpack[SearchArguments]) -> SearchAnswer:
        """The nearest entries of an index, each with its certified radius."""
        return self._portal.call(partial(self._client.search, image, **options))

    def search_many(
        self,
        images: Iterable[Image] | str | os.PathLike[str],
        *,
        concurrency: int = 16,
        **options: Unpack[SearchArguments],
    ) -> Iterator[Searched]:
        """Search with many images, or all files of a folder; what was found, in their order.

        An image that cannot be read or used costs itself alone: its `error` says why.

        Args:
            images: taken one by one, as they are needed.
            concurrency: how many are under way at once, and in memory.
            options: of every search.
        """
        most, at_once = batch_plan(concurrency)
        waiting: deque[Future[list[Searched]]] = deque()
        try:
            for batch in batches(images_of(images), most):
                search = partial(self._client.try_batch, batch, **options)
                waiting.append(self._portal.start_task_soon(search))
                while len(waiting) >= at_once:
                    yield from waiting.popleft().result()
            while waiting:
                yield from waiting.popleft().result()
        finally:
            for future in waiting:
                future.cancel()

    def compare(
        self, a: Image, b: Image, *, epsilon: float | None = None, threshold: float | None = None
    ) -> SimilarityAnswer:
        """The distance of two images, its interval under `epsilon`, a verdict by `threshold`."""
        ask = partial(self._client.compare, a, b, epsilon=epsilon, threshold=threshold)
        return self._portal.call(ask)

    def embed(self, image: Image) -> EmbedAnswer:
        """The raw embedding of an image."""
        return self._portal.call(self._client.embed, image)

    def tolerance(self, image: Image, **options: Unpack[ToleranceArguments]) -> ToleranceAnswer:
        """Which edits of an image provably leave a statement about its answer alone."""
        return self._portal.call(partial(self._client.tolerance, image, **options))

    def items(self, index: str = DEFAULT_INDEX, *, after: str = "") -> Iterator[ListedItem]:
        """Every item of an index by id, or those after one; fetched page by page."""
        found = self._client.items(index, after=after)
        while (item := self._portal.call(anext, found, None)) is not None:
            yield item

    def metadata_keys(self, index: str = DEFAULT_INDEX, *, after: str = "") -> Iterator[str]:
        """Every key that a filter may ask about, or those after one; fetched page by page."""
        found = self._client.metadata_keys(index, after=after)
        while (key := self._portal.call(anext, found, None)) is not None:
            yield key

    def metadata_values(
        self, key: str, index: str = DEFAULT_INDEX, *, prefix: str = "", limit: int = 1000
    ) -> ValueList:
        """The first values of a key, and how many items hold each; `complete` says if that is all.

        Args:
            key: as a filter names it, and as `metadata_keys` gives it.
            index: whose.
            prefix: only texts that begin so; empty: values of every type.
            limit: how many at most, up to 1,000.
        """
        ask = partial(self._client.metadata_values, key, index, prefix=prefix, limit=limit)
        return self._portal.call(ask)
