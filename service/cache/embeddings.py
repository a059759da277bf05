"""Both caches as one: memory first, then Redis; what is computed goes to both."""

import asyncio
import hashlib
from dataclasses import dataclass, replace

from service.cache.found import Found
from service.cache.memory import MemoryCache
from service.cache.shared import SharedCache
from service.decoding.query_image import QueryImage

# Hashing less than this takes less time (0.2 ms) than handing it to a thread under load does.
_SHORT_BYTES = 256 * 1024


@dataclass
class CacheCounts:
    """How often what was asked for was found where; `rejected` is a part of the misses."""

    memory_hits: int = 0
    redis_hits: int = 0
    misses: int = 0
    rejected: int = 0


class EmbeddingCache:
    """Embeddings by file. Used on the event loop alone.

    Args:
        memory: in this process; None: not kept here.
        shared: in Redis; None: not kept there.
    """

    def __init__(self, memory: MemoryCache | None, shared: SharedCache | None) -> None:
        self._memory = memory
        self._shared = shared
        self._counts = CacheCounts()

    @property
    def counts(self) -> CacheCounts:
        """Since the start."""
        return replace(
            self._counts, rejected=self._shared.rejected if self._shared is not None else 0
        )

    async def find(self, sha256: str) -> QueryImage | None:
        """A file's image with its embedding, if it was embedded before."""
        found = self._memory.get(sha256) if self._memory is not None else None
        if found is not None:
            self._counts.memory_hits += 1
        elif self._shared is not None:
            found = await self._shared.get(sha256)
            if found is not None:
                self._counts.redis_hits += 1
                self._keep_here(sha256, found)
        if found is None:
            self._counts.misses += 1
            return None
        return QueryImage(sha256, found.format, None, found.embedding)

    def keep(self, image: QueryImage) -> None:
        """Remember an image that was embedded just now; one that was found is remembered already.

        Args:
            image: its `sha256` must be one that this process took of the file, as it is the key.
        """
        # A truncated file is not kept: a replica that refuses it must never be answered from here.
        if image.input is None or image.embedding is None or image.is_truncated:
            return
        # A copy: the vector is a row of its batch, which would all stay in memory with it.
        vector = image.embedding.vector.copy()
        vector.flags.writeable = False
        found = Found(image.format, replace(image.embedding, vector=vector))
        self._keep_here(image.sha256, found)
        if self._shared is not None:
            self._shared.put(image.sha256, found)

    def _keep_here(self, sha256: str, found: Found) -> None:
        if self._memory is not None:
            self._memory.put(sha256, found)


async def hash_file(data: bytes) -> str:
    """SHA-256 of a file, hex; in a thread where it takes long, so that the loop goes on."""
    if len(data) <= _SHORT_BYTES:
        return hashlib.sha256(data).hexdigest()
    return await asyncio.to_thread(lambda: hashlib.sha256(data).hexdigest())
