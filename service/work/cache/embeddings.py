"""Both caches as one: memory first, then Redis; what is computed goes to both."""

from dataclasses import dataclass, replace

import structlog

from model.embedder import Embedder, ImageEmbedding
from model.pixels.decode import DecodeLimits
from service.decoding.query_image import QueryImage
from service.redis.link import RedisLink
from service.work.cache.memory import CachedEmbedding, MemoryCache
from service.work.cache.shared import RecordCodec, SharedCache, cache_context

log = structlog.stdlib.get_logger()


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
        return replace(
            self._counts, rejected=self._shared.rejected if self._shared is not None else 0
        )

    async def find(self, sha256: str, *, wants_trim: bool = False) -> QueryImage | None:
        """A file's image with its embedding, if it was embedded before, and trimmed if wanted."""
        key = _memory_key(sha256, is_trimmed=wants_trim)
        found = self._memory.get(key) if self._memory is not None else None
        if found is not None:
            self._counts.memory_hits += 1
        elif self._shared is not None:
            found = await self._shared.get(sha256, is_trimmed=wants_trim)
            if found is not None:
                self._counts.redis_hits += 1
                self._keep_here(sha256, found)
        if found is None:
            self._counts.misses += 1
            return None
        crop = found.crop and QueryImage(found.format, None, embedding=found.crop)
        return QueryImage(
            found.format,
            None,
            sha256=sha256,
            embedding=found.embedding,
            trim=found.trim,
            crop=crop,
        )

    def keep(self, image: QueryImage) -> None:
        """Remember an image that was embedded just now; one that was found is remembered already.

        Args:
            image: its `sha256` must be one that this process took of the file, as it is the key.
        """
        # A truncated file is not kept: a replica that refuses it must never be answered from here.
        if image.input is None or image.embedding is None or image.is_truncated:
            return
        found = CachedEmbedding(image.format, _apart(image.embedding))
        self._keep(image.sha256, found)
        if image.trim is not None:
            crop = image.crop and _apart(image.crop.embedded)
            trimmed = replace(found, trim=image.trim, crop=crop)
            self._keep(image.sha256, trimmed)

    def _keep(self, sha256: str, found: CachedEmbedding) -> None:
        self._keep_here(sha256, found)
        if self._shared is not None:
            self._shared.put(sha256, found)

    def _keep_here(self, sha256: str, found: CachedEmbedding) -> None:
        if self._memory is not None:
            self._memory.put(_memory_key(sha256, is_trimmed=found.trim is not None), found)


def _memory_key(sha256: str, *, is_trimmed: bool) -> str:
    return f"{sha256} trimmed" if is_trimmed else sha256


def _apart(embedding: ImageEmbedding) -> ImageEmbedding:
    """A copy: the vector is a row of its batch, which would all stay in memory with it."""
    vector = embedding.vector.copy()
    vector.flags.writeable = False
    return replace(embedding, vector=vector)


def make_cache(
    embedder: Embedder,
    limits: DecodeLimits,
    *,
    memory_bytes: int,
    link: RedisLink | None,
    secret: str | None,
    ttl_s: int,
) -> EmbeddingCache | None:
    """The cache, or None where nothing is to be kept.

    Without a secret for the records' keyed hash Redis is not used for embeddings: whoever can write
    there could then choose our answers.
    """
    memory = MemoryCache(memory_bytes) if memory_bytes else None
    shared = None
    if link is not None and secret is None:
        log.warning(
            "redis_not_used_for_embeddings", why="LIPSIM_CACHE_SECRET is not set; see docs/redis.md"
        )
    elif link is not None and secret is not None:
        codec = RecordCodec(secret.encode(), cache_context(embedder, limits), embedder.dim)
        shared = SharedCache(link, codec, ttl_s=ttl_s)
    if memory is None and shared is None:
        return None
    return EmbeddingCache(memory, shared)
