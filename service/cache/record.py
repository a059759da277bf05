"""Embeddings as Redis holds them: a fixed layout under a keyed hash, nothing that can run code.

    magic 8 | dim u32 | height u32 | width u32 | format 8 | gain f64 | forward_error f64
    | vector dim * f64 | mac 32                                          (little-endian)

The keyed hash covers the record and the question it answers: the file's SHA-256 and everything
that the numbers depend on. So whoever can write to Redis and lacks the secret can neither make a
record nor move one to another file, model or limit; the worst that can be done is a miss.
"""

import hashlib
import hmac
import math
import struct

import numpy as np
from jaxtyping import Float64

from model.embedder import ImageEmbedding
from service.cache.found import Found

_MAGIC = b"lipsimE1"
_HEAD = struct.Struct("<8sIII8sdd")
_MAC_BYTES = 32


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

    def pack(self, sha256: str, found: Found) -> bytes:
        """The record of a file."""
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

    def unpack(self, sha256: str, record: bytes) -> Found:
        """What a record holds, bit for bit what was packed.

        Raises:
            RecordError: it is not one that a holder of the secret wrote for this very question, or
                it holds numbers that no embedding has.
        """
        if len(record) != self.length:
            raise RecordError(f"a record has {self.length} bytes, this has {len(record)}")
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
        return Found(_format_name(name), embedding)

    def _mac(self, sha256: str, content: bytes) -> bytes:
        # The question's length is fixed, so the two parts cannot run into each other.
        return _keyed(self._mac_key, self._question(sha256) + content)

    def _question(self, sha256: str) -> bytes:
        return self._context + bytes.fromhex(sha256)


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
