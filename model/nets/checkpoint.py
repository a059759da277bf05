"""Weights on disk: one safetensors file, its claims proved again at load, strangers refused.

The file holds the tensors of `tensor_specs` and one metadata key of canonical JSON. Its fingerprint
is of what is computed (tensors, config, decode policy), not of the file or the training record.
"""

import hashlib
import math
import threading
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float

from model.errors import CertificateError, CheckpointError
from model.nets.network import NetworkProof, build_network, tensor_specs
from model.nets.presets import EmbedderConfig, config_to_json
from model.nets.weight_file import (
    SCHEMA,
    canonical_json,
    check_finite,
    check_layout,
    config_of,
    number_member,
    read_weights,
    text_member,
    write_weights,
)
from model.pixels.decode import DECODE_POLICY_VERSION

# How far above the proof a claim may be, as a factor, and at all. Another machine's roundings move
# the bound by 1e-12 and E by a few per cent; a claim far beyond makes every radius 0 or, near the
# end of float64, overflow in the certificate. E is given more room: it is tiny beside the radii.
# The ceilings keep squares finite, whatever is proved.
_LIPSCHITZ_CLAIM = (2.0, 1e6)
_ERROR_CLAIM = (1e3, 1e100)

_proofs: dict[tuple[str, torch.dtype], NetworkProof] = {}
_proofs_lock = threading.Lock()


@dataclass(frozen=True)
class Checkpoint:
    """A network's weights and what is claimed, and was proved, of them.

    Attributes:
        name: what people call it; no part of the fingerprint.
        config: shape of the network.
        weights: every tensor, as stored, by name.
        decode_policy: version of the decode policy it was made for.
        lipschitz_bound: claimed upper bound, l2 to l2; at least what is proved.
        forward_error: claimed upper bound E of the float64 pass for inputs in [0, 1], likewise.
        fingerprint: sha256 over weights, config and decode policy, 64 hexadecimal digits.
        training: record of how it was made; any JSON object.
    """

    name: str
    config: EmbedderConfig
    weights: Mapping[str, Float[np.ndarray, "..."]]
    decode_policy: str
    lipschitz_bound: float
    forward_error: float
    fingerprint: str
    training: Mapping[str, Any]


def save_checkpoint(
    path: Path | str,
    *,
    name: str,
    config: EmbedderConfig,
    weights: Mapping[str, Float[np.ndarray, "..."]],
    training: Mapping[str, Any] | None = None,
) -> Checkpoint:
    """Proves a network and writes it, whole or not at all.

    The claims are the proofs, rounded up generously (the bound by 2e-12, E by 1 in 1000): another
    machine proves the same network with other roundings, and must not refuse an honest file.

    Args:
        path: the file; replaced if it is there.
        name: what people will call the network.
        config: its shape.
        weights: exactly the tensors of `tensor_specs(config)`, T of each block included.
        training: record of how it was made, JSON values.

    Returns:
        The checkpoint as it is in the file.

    Raises:
        CheckpointError: tensors missing, surplus, misshapen or not finite; nothing provable; a
            record that is no JSON; or the file cannot be written.
    """
    check_layout(
        {key: (value.shape, str(value.dtype)) for key, value in weights.items()},
        tensor_specs(config),
    )
    check_finite(weights)
    fingerprint = fingerprint_of(config, weights, DECODE_POLICY_VERSION)
    proof = prove(config, weights, fingerprint)
    checkpoint = Checkpoint(
        name=name,
        config=config,
        weights=weights,
        decode_policy=DECODE_POLICY_VERSION,
        lipschitz_bound=math.ceil(proof.lipschitz_bound * 1e12 + 2.0) / 1e12,
        forward_error=float(f"{proof.forward_error * 1.002:.3e}"),
        fingerprint=fingerprint,
        training=training or {},
    )
    _check_claims(checkpoint, proof)
    write_weights(Path(path), _metadata(checkpoint), weights)
    return checkpoint


def load_checkpoint(path: Path | str) -> Checkpoint:
    """Reads a checkpoint and proves its claims again.

    Args:
        path: a safetensors file that `save_checkpoint` wrote.

    Returns:
        The checkpoint; its claims hold for the weights as read.

    Raises:
        CheckpointError: the file is missing, not safetensors, truncated, of an unknown schema or
            another decode policy; tensors are missing, surplus, misshapen or not finite; the
            fingerprint is another; or a claim is below what is proved, or far above it.
    """
    path = Path(path)
    metadata, weights = read_weights(path)
    config = config_of(metadata)
    checkpoint = Checkpoint(
        name=text_member(metadata, "name"),
        config=config,
        weights=weights,
        decode_policy=text_member(metadata, "decode_policy"),
        lipschitz_bound=number_member(metadata, "lipschitz_bound"),
        forward_error=number_member(metadata, "forward_error"),
        fingerprint=text_member(metadata, "fingerprint"),
        training=metadata["training"],
    )
    fingerprint = fingerprint_of(config, weights, checkpoint.decode_policy)
    if fingerprint != checkpoint.fingerprint:
        raise CheckpointError(
            f"{path.name}: fingerprint {checkpoint.fingerprint!r:.70} is claimed, "
            f"weights and config have {fingerprint}"
        )
    _check_claims(checkpoint, prove(config, weights, fingerprint))
    return checkpoint


def fingerprint_of(
    config: EmbedderConfig,
    weights: Mapping[str, Float[np.ndarray, "..."]],
    decode_policy: str,
) -> str:
    """sha256 over sorted (name, dtype, shape, bytes), canonical config and decode policy."""
    digest = hashlib.sha256()
    for name in sorted(weights):
        values = np.ascontiguousarray(weights[name])
        little = values.astype(values.dtype.newbyteorder("<"), copy=False)
        # Each header is one line of JSON that fixes how many bytes follow: no two inputs collide.
        header = [name, str(values.dtype), list(values.shape)]
        digest.update(canonical_json(header).encode() + b"\n")
        digest.update(little.data)
    digest.update(canonical_json([config_to_json(config), decode_policy]).encode() + b"\n")
    return digest.hexdigest()


def prove(
    config: EmbedderConfig,
    weights: Mapping[str, Float[np.ndarray, "..."]],
    fingerprint: str,
    dtype: torch.dtype = torch.float64,
) -> NetworkProof:
    """What is proved of these weights, once a process and fingerprint.

    Args:
        config: shape of the network.
        weights: its tensors.
        fingerprint: theirs, and the config's.
        dtype: the arithmetic whose forward error is asked for.

    Returns:
        The Lipschitz bound in real arithmetic and the forward error in dtype.

    Raises:
        CheckpointError: nothing can be proved, with the reason.
    """
    key = (fingerprint, dtype)
    with _proofs_lock:
        known = _proofs.get(key)
    if known is None:
        try:
            known = build_network(config, weights, dtype).prove()
        except CertificateError as exc:
            raise CheckpointError(f"nothing can be proved of these weights: {exc}") from exc
        with _proofs_lock:
            _proofs[key] = known
    return known


def _check_claims(checkpoint: Checkpoint, proof: NetworkProof) -> None:
    """A claim may be generous within reason, never smaller than the proof; NaN is neither."""
    for claim, claimed, proved, generosity in (
        ("lipschitz_bound", checkpoint.lipschitz_bound, proof.lipschitz_bound, _LIPSCHITZ_CLAIM),
        ("forward_error", checkpoint.forward_error, proof.forward_error, _ERROR_CLAIM),
    ):
        if not proved <= claimed < math.inf:
            raise CheckpointError(f"{claim} {claimed!r} is claimed, but {proved!r} is proved")
        times, ceiling = generosity
        if claimed > min(times * proved, ceiling):
            raise CheckpointError(
                f"{claim} {claimed!r} is claimed, but {proved!r} is proved; at most {times:g} "
                f"times that is accepted, and at most {ceiling:g}"
            )


def _metadata(checkpoint: Checkpoint) -> dict[str, Any]:
    """Everything of a checkpoint but its weights, as JSON values."""
    return {
        "schema": SCHEMA,
        "name": checkpoint.name,
        "config": config_to_json(checkpoint.config),
        "decode_policy": checkpoint.decode_policy,
        "fingerprint": checkpoint.fingerprint,
        "lipschitz_bound": checkpoint.lipschitz_bound,
        "forward_error": checkpoint.forward_error,
        "training": dict(checkpoint.training),
    }
