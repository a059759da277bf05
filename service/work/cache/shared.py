"""The cache that replicas share: records in Redis, each believed only under its keyed hash.

A record has a fixed layout, and nothing in it can run code:

    magic 8 | dim u32 | height u32 | width u32 | format 8 | gain f64 | forward_error f64
    | vector dim * f64 [| trim] | mac 32                                 (little-endian)

of which a file that was trimmed has a second one, under a name of its own, with

    trim: left, top, right, bottom 4 * u32 | radius f64 | gain f64 | forward_error f64
    | vector dim * f64; the last three are 0 where the box is the whole picture.

The keyed hash covers the record and the question it answers: the file's SHA-256, whether it was to
be trimmed, and everything that the numbers depend on. So whoever can write to Redis and lacks the
secret can neither make a record nor move one to another file, model or limit; the worst that can be
done is a miss.
"""

import hashlib
import hmac
import json
import math
import struct
from dataclasses import replace
from importlib.metadata import PackageNotFoundError, version

import numpy as np
from jaxtyping import Float64

from model.embedder import Embedder, ImageEmbedding
from model.pixels.decode import DecodeLimits, decoder_versions
from model.pixels.trim import Box, Trim
from service.redis.link import RedisAwayError, RedisLink, RedisRefusedError
from service.work.cache.memory import CachedEmbedding

_MAGIC = b"lipsimE1"
_HEAD = struct.Struct("<8sIII8sdd")
_TRIM = struct.Struct("<IIIIddd")
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

    def length(self, *, is_trimmed: bool = False) -> int:
        """Bytes of a record."""
        whole = _HEAD.size + 8 * self._dim + _MAC_BYTES
        return whole + _TRIM.size + 8 * self._dim if is_trimmed else whole

    def name(self, sha256: str, *, is_trimmed: bool = False) -> bytes:
        """Redis key of a file's record; without the secret it tells nobody which file that is."""
        question = self._question(sha256, is_trimmed=is_trimmed)
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
        if found.trim is not None:
            crop, bounds = bytes(8 * self._dim), (0.0, 0.0)
            if found.crop is not None:
                crop = found.crop.vector.astype("<f8", copy=False).tobytes()
                bounds = found.crop.gain, found.crop.forward_error
            content += _TRIM.pack(*found.trim.box, found.trim.radius, *bounds) + crop
        return content + self._mac(sha256, content, is_trimmed=found.trim is not None)

    def unpack(self, sha256: str, record: object, *, is_trimmed: bool = False) -> CachedEmbedding:
        """What a record holds, bit for bit what was packed.

        Raises:
            RecordError: it is not one that a holder of the secret wrote for this very question, or
                it holds numbers that no embedding has.
        """
        length = self.length(is_trimmed=is_trimmed)
        if not isinstance(record, bytes) or len(record) != length:
            raise RecordError(f"a record has {length} bytes; this has others")
        content, mac = record[:-_MAC_BYTES], record[-_MAC_BYTES:]
        # First, so that nothing that a stranger wrote is even looked at.
        if not hmac.compare_digest(mac, self._mac(sha256, content, is_trimmed=is_trimmed)):
            raise RecordError("the record is not ours, or of another question")
        magic, dim, height, width, name, gain, error = _HEAD.unpack_from(content)
        if magic != _MAGIC or dim != self._dim or height < 1 or width < 1:
            raise RecordError("the record is of another kind")
        embedding = self._embedding(content, _HEAD.size, (gain, error, height, width))
        found = CachedEmbedding(_format_name(name), embedding)
        return self._with_trim(found, content) if is_trimmed else found

    def _with_trim(self, found: CachedEmbedding, content: bytes) -> CachedEmbedding:
        start = _HEAD.size + 8 * self._dim
        height, width = found.embedding.height, found.embedding.width
        *sides, radius, gain, error = _TRIM.unpack_from(content, start)
        left, top, right, bottom = sides
        if not (left < right <= width and top < bottom <= height and radius >= 0.0):
            raise RecordError("the box is none of this picture, or its radius is no number")
        trim, crop = Trim(Box(left, top, right, bottom), radius), None
        if trim.box != (0, 0, width, height):
            crop = self._embedding(content, start + _TRIM.size, (gain, error, height, width))
        return replace(found, trim=trim, crop=crop)

    def _embedding(
        self, content: bytes, start: int, bounds: tuple[float, float, int, int]
    ) -> ImageEmbedding:
        vector = np.frombuffer(content, "<f8", self._dim, start).astype(np.float64)
        vector.flags.writeable = False
        _check_numbers(vector, *bounds[:2])
        return ImageEmbedding(vector, *bounds)

    def _mac(self, sha256: str, content: bytes, *, is_trimmed: bool) -> bytes:
        # The question's length is fixed, so the two parts cannot run into each other.
        question = self._question(sha256, is_trimmed=is_trimmed)
        return _keyed(self._mac_key, question + content)

    def _question(self, sha256: str, *, is_trimmed: bool) -> bytes:
        return self._context + bytes.fromhex(sha256) + bytes([is_trimmed])


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

    async def get(self, sha256: str, *, is_trimmed: bool = False) -> CachedEmbedding | None:
        """What Redis knows of a file; None if nothing, or nothing that may be believed."""
        name = self._codec.name(sha256, is_trimmed=is_trimmed)
        try:
            # One byte more than a record has: a value of any size, put there by whomever, costs
            # no more than a record, and a longer one is told from it.
            length = self._codec.length(is_trimmed=is_trimmed)
            record = await self._link.ask(b"GETRANGE", name, 0, length)
        except RedisAwayError:
            return None
        except RedisRefusedError:  # There is something under this key, and it is no string.
            return self._reject(name)
        if record == b"":
            return None
        try:
            return self._codec.unpack(sha256, record, is_trimmed=is_trimmed)
        except RecordError:
            return self._reject(name)

    def put(self, sha256: str, found: CachedEmbedding) -> None:
        record = self._codec.pack(sha256, found)
        name = self._codec.name(sha256, is_trimmed=found.trim is not None)
        self._link.post(b"SET", name, record, b"EX", self._ttl_s)

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
