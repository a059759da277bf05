"""What an embedding depends on beside the file: the part of every key that is not the file."""

import hashlib
import json
from importlib.metadata import PackageNotFoundError, version

from model.embedder import Embedder
from model.pixels.decode import DecodeLimits

# They turn files into pixels, each version a little differently, perhaps.
_DECODERS = ("pillow", "pillow-heif")
_PACKAGE = "lipsim-retrieval"


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
        "versions": {name: _version(name) for name in (_PACKAGE, *_DECODERS)},
    }
    return hashlib.sha256(json.dumps(depends_on, sort_keys=True).encode()).digest()


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None
