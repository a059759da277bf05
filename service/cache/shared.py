"""The cache that replicas share: records in Redis, each believed only under its keyed hash.

A record has a fixed layout, and nothing in it can run code:

    magic 8 | dim u32 | height u32 | width u32 | format 8 | gain f64 | forward_error f64
    | vector dim * f64 | mac 32                                          (little-endian)

The keyed hash covers the record and the question it answers: the file's SHA-256 and everything
that the numbers depend on. So whoever can write to Redis and lacks the secret can neither make a
record nor move one to another file, model or limit; the worst that can be done is a miss.
"""

import hashlib
import hmac
import json
import math
import struct
from importlib.metadata import PackageNotFoundError, version

import numpy as np
from jaxtyping import Float64

from model.embedder import Embedder, ImageEmbedding
from model.pixels.decode import DecodeLimits, decoder_versions
from service.cache.memory import CachedEmbedding
from service.redis.link import RedisAwayError, RedisLink, RedisRefusedError

_MAGIC = b"lipsimE1"
_HEAD = struct.Struct("<8sIII8sdd")
_MAC_BYTES = 32


# `decoder_versions` has what Pillow was built with; HEIF is read by a package of its own.
_PACKAGES = ("lipsim-retrieval", "pillow-heif")


class RecordError(Exception):
    """The bytes are no record of ours for this question."""


class RecordCodec:
    """Writes and reads the records of one deployment.

    Args:
        secret: what only this deployment's replicas know.
        context: digest of what the numbers depend on beside the file (`cache_context`).
        dim: length of an embedding.
    """

    def __init__(self, secret: bytes, context: bytes, dim: int) -> None:
        self._mac_key = _derive(secret, b"lipsim-mac")
        self._name_key = _derive(secret, b"lipsim-name")
        self._context = context
        self._dim = dim
        self.length = _HEAD.size + 8 * dim + _MAC_BYTES

    def name(self, sha256: str) -> bytes:
        """Redis key of a file's record; without the secret it tells nobody which file that is."""
        question = self._question(sha256)
        return b"lipsim:e1:" + _keyed(self._name_key, question).hex().encode()

    def pack(self, sha256: str, found: CachedEmbedding) -> bytes:
        embedding = found.embedding
        head = _HEAD.pack(
            _MAGIC,
            self._dim,
            embedding.height,
            embedding.width,
            found.format.encode("ascii"),
            embedding.gain,
            embedding.forward_error,
        )
        content = head + embedding.vector.astype("<f8", copy=False).tobytes()
        return content + self._mac(sha256, content)

    def unpack(self, sha256: str, record: object) -> CachedEmbedding:
        """What a record holds, bit for bit what was packed.

        Raises:
            RecordError: it is not one that a holder of the secret wrote for this very question, or
                it holds numbers that no embedding has.
        """
        if not isinstance(record, bytes) or len(record) != self.length:
            raise RecordError(f"a record has {self.length} bytes; this has others")
        content, mac = record[:-_MAC_BYTES], record[-_MAC_BYTES:]
        # First, so that nothing that a stranger wrote is even looked at.
        if not hmac.compare_digest(mac, self._mac(sha256, content)):
            raise RecordError("the record is not ours, or of another question")
        magic, dim, height, width, name, gain, error = _HEAD.unpack_from(content)
        if magic != _MAGIC or dim != self._dim or height < 1 or width < 1:
            raise RecordError("the record is of another kind")
        vector = np.frombuffer(content, "<f8", offset=_HEAD.size).astype(np.float64)
        vector.flags.writeable = False
        _check_numbers(vector, gain, error)
        embedding = ImageEmbedding(vector, gain, error, height, width)
        return CachedEmbedding(_format_name(name), embedding)

    def _mac(self, sha256: str, content: bytes) -> bytes:
        # The question's length is fixed, so the two parts cannot run into each other.
        return _keyed(self._mac_key, self._question(sha256) + content)

    def _question(self, sha256: str) -> bytes:
        return self._context + bytes.fromhex(sha256)


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

    async def get(self, sha256: str) -> CachedEmbedding | None:
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
            return self._codec.unpack(sha256, record)
        except RecordError:
            return self._reject(name)

    def put(self, sha256: str, found: CachedEmbedding) -> None:
        record = self._codec.pack(sha256, found)
        self._link.post(b"SET", self._codec.name(sha256), record, b"EX", self._ttl_s)

    def _reject(self, name: bytes) -> None:
        self.rejected += 1
        self._link.post(b"UNLINK", name)


def cache_context(embedder: Embedder, limits: DecodeLimits) -> bytes:
    """A digest, 32 bytes, that two replicas share only if each may use the other's embeddings.

    The limits are in it so that a file which this replica refuses is never answered from another's
    record; the proved bounds, since a record's forward error rests on them.
    """
    depends_on = {
        "fingerprint": embedder.fingerprint,
        "decode_policy": embedder.decode_policy,
        "arithmetic": embedder.arithmetic,
        "input_size": embedder.input_size,
        "dim": embedder.dim,
        "lipschitz_bound": embedder.lipschitz_bound.hex(),
        "forward_error": embedder.forward_error.hex(),
        "max_image_bytes": limits.max_image_bytes,
        "max_pixels": limits.max_pixels,
        "max_side": limits.max_side,
        "formats": sorted(limits.formats),
        "versions": {name: _version(name) for name in _PACKAGES},
        # Other builds of one Pillow hold other libraries, and may give other pixels.
        "decoders": decoder_versions(),
    }
    return hashlib.sha256(json.dumps(depends_on, sort_keys=True).encode()).digest()


def _check_numbers(vector: Float64[np.ndarray, " D"], gain: float, error: float) -> None:
    """Refuse what would make a certificate say too much: a holder of the secret may have faults."""
    if not np.isfinite(vector).all():
        raise RecordError("the vector is not finite")
    if not (0.0 < gain < math.inf and 0.0 <= error < math.inf):
        raise RecordError("gain and forward error must be finite and not negative")


def _format_name(name: bytes) -> str:
    text = name.rstrip(b"\0")
    if not text.isalnum() or not text.isascii():
        raise RecordError("the format has no name")
    return text.decode("ascii")


def _derive(secret: bytes, person: bytes) -> bytes:
    """A key for one purpose; hashing first lets the secret be of any length."""
    return _keyed(hashlib.sha256(secret).digest(), person)


def _keyed(key: bytes, content: bytes) -> bytes:
    return hashlib.blake2b(content, digest_size=_MAC_BYTES, key=key).digest()


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None
