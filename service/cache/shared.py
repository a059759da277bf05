"""The cache that replicas share: records in Redis, each believed only under its keyed hash."""

from service.cache.found import Found
from service.cache.record import RecordCodec, RecordError
from service.redis.errors import RedisAwayError, RedisRefusedError
from service.redis.link import RedisLink


class SharedCache:
    """Records of one deployment in its Redis.

    Args:
        link: Redis.
        codec: of the records.
        ttl_s: how long Redis keeps each.
    """

    def __init__(self, link: RedisLink, codec: RecordCodec, *, ttl_s: int) -> None:
        self._link = link
        self._codec = codec
        self._ttl_s = ttl_s
        self.rejected = 0

    async def get(self, sha256: str) -> Found | None:
        """What Redis knows of a file; None if nothing, or nothing that may be believed."""
        name = self._codec.name(sha256)
        try:
            # One byte more than a record has: a value of any size, put there by whomever, costs
            # no more than a record, and a longer one is told from it.
            record = await self._link.ask(b"GETRANGE", name, 0, self._codec.length)
        except RedisAwayError:
            return None
        except RedisRefusedError:  # There is something under this key, and it is no string.
            return self._reject(name)
        if record == b"":
            return None
        try:
            return self._codec.unpack(sha256, _as_bytes(record))
        except RecordError:
            return self._reject(name)

    def put(self, sha256: str, found: Found) -> None:
        """Have a file's record written when there is time."""
        record = self._codec.pack(sha256, found)
        self._link.post(b"SET", self._codec.name(sha256), record, b"EX", self._ttl_s)

    def _reject(self, name: bytes) -> None:
        self.rejected += 1
        self._link.post(b"UNLINK", name)


def _as_bytes(answer: object) -> bytes:
    if not isinstance(answer, bytes):
        raise RecordError("Redis answered with something else than bytes")
    return answer
