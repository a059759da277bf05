"""The cache that a deployment's settings ask for."""

import structlog

from model.embedder import Embedder
from model.pixels.decode import DecodeLimits
from service.cache.context import cache_context
from service.cache.embeddings import EmbeddingCache
from service.cache.memory import MemoryCache
from service.cache.record import RecordCodec
from service.cache.shared import SharedCache
from service.redis.link import RedisLink

log = structlog.stdlib.get_logger()


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

    Args:
        embedder: whose embeddings are kept.
        limits: of what is decoded.
        memory_bytes: that this process may keep; 0: none.
        link: Redis, if there is one.
        secret: for the records' keyed hash; without one, Redis is not used for embeddings, since
            whoever can write there could then choose our answers.
        ttl_s: how long Redis keeps a record.
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
