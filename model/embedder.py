"""Load once, embed many: the one path from image bytes, or network inputs, to raw embeddings.

Gallery and query are embedded by the same code; nothing above this module touches the network.
"""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
import torch
from jaxtyping import Float, Float64

from model.certificate.bounds import product_bound
from model.certificate.rounding import round_up
from model.errors import EmbeddingError
from model.nets.checkpoint import Checkpoint, build, check_claims, prove, read_checkpoint
from model.nets.network import Network
from model.pixels.decode import DecodedImage, decode_image
from model.pixels.network_input import NetworkInput, network_input
from model.pixels.resize import resize_operator

DEFAULT_CHECKPOINT = Path(__file__).parent / "checkpoints" / "wave-96.safetensors"
Arithmetic = Literal["float64", "float32"]
Claim = Literal["program", "real-arithmetic"]

_IMAGES_PER_PASS = 8
"""Inputs that run together; more would leave the processor's cache, and memory stays bounded."""

_EMULATION = (
    "CUBLAS_EMULATE_DOUBLE_PRECISION",
    "CUBLAS_EMULATE_SINGLE_PRECISION",
    "NVIDIA_TF32_OVERRIDE",
)


class Embedding(NamedTuple):
    """A raw embedding (d,), float64, and the gain of the resize that led to it."""

    vector: Float64[np.ndarray, " D"]
    gain: float


@dataclass(frozen=True)
class ImageEmbedding:
    """A raw embedding and the numbers a certificate needs beside it.

    Attributes:
        vector: the raw embedding, (d,), float64; never normalised.
        gain: upper bound of the l2 norm of the resize from the upload to the network's input.
        forward_error: upper bound E of the l2 distance between the vector and the real-arithmetic
            embedding of the upload / 255: network, division and resize of this size together.
        height: of the upload, pixels.
        width: of the upload, pixels.
    """

    vector: Float64[np.ndarray, " D"]
    gain: float
    forward_error: float
    height: int
    width: int


class Embedder:
    """A network in one arithmetic, with what is proved of it.

    Safe to use from several threads: weights are only read, and a call owns its activations.

    In float64 the claim is about the program as executed: `forward_error` is small (below 1e-8 for
    the default) and is subtracted from radii. In float32 the claim is about the network in real
    arithmetic; `forward_error` is then the same proved bound with float32's unit roundoff, which
    is sound but so large (0.4 for the default, hundreds for the published sizes) that few radii
    survive it.

    Attributes:
        name: what people call the network.
        config: its shape.
        fingerprint: sha256 of weights, config and decode policy.
        decode_policy: version of the decode policy.
        lipschitz_bound: proved upper bound of the network's constant, l2 to l2.
        output_scales: proved bounds s along each coordinate, <h(x') - h(x), D> <= |x' - x| |s o D|
            for every D, (d,); `lipschitz_bound` throughout where no more is proved.
        forward_error: proved upper bound E of the network alone, for inputs in [0, 1].
        arithmetic: "float64" or "float32".
        claim: what a radius is about: the program as executed, or the network in real arithmetic.
        dim: length of an embedding.
        input_size: side of the network's square input, pixels.
        network: the torch module, for attacks: differentiable outside inference mode.
    """

    def __init__(
        self, checkpoint: Checkpoint, *, arithmetic: Arithmetic = "float64", device: str = "cpu"
    ) -> None:
        """Builds the network of a checkpoint and proves it: the one that will run.

        Raises:
            CheckpointError: the checkpoint claims less than is proved, or nothing can be proved.
            EmbeddingError: the process computes with fewer digits than the arithmetic has.
        """
        dtype = torch.float64 if arithmetic == "float64" else torch.float32
        _refuse_emulation(device)
        network = build(checkpoint.config, checkpoint.weights, dtype, device)
        check_claims(checkpoint, prove(network, checkpoint.fingerprint))
        self.name = checkpoint.name
        self.config = checkpoint.config
        self.fingerprint = checkpoint.fingerprint
        self.decode_policy = checkpoint.decode_policy
        self.lipschitz_bound = checkpoint.lipschitz_bound
        self.output_scales = np.full(self.config.embedding_dim, self.lipschitz_bound)
        if checkpoint.output_scales is not None:
            self.output_scales = np.array(checkpoint.output_scales)
        self.arithmetic: Arithmetic = arithmetic
        self.claim: Claim = "program" if arithmetic == "float64" else "real-arithmetic"
        self.dim = checkpoint.config.embedding_dim
        self.input_size = checkpoint.config.input_size
        self.forward_error = checkpoint.forward_error
        if arithmetic == "float32":
            self.forward_error = prove(network, checkpoint.fingerprint, dtype).forward_error
        self.network: Network = network
        self._dtype, self._device = dtype, torch.device(device)

    @property
    def metric(self) -> Literal["isotropic", "head-aware"]:
        """What radii of rank divide by: `lipschitz_bound` alone, or `output_scales`."""
        is_uniform = (self.output_scales == self.lipschitz_bound).all()
        return "isotropic" if is_uniform else "head-aware"

    @classmethod
    def load(
        cls,
        path: Path | str | None = None,
        *,
        arithmetic: Arithmetic = "float64",
        device: str = "cpu",
    ) -> "Embedder":
        """The embedder of a checkpoint file.

        Without a path it is the checkpoint that ships with the package. Its bounds are proved again
        from the weights as read. Sums may run in another order on each device, all within E.

        Raises:
            CheckpointError: the file is missing, damaged, strange, or claims less than is proved.
            EmbeddingError: the process computes with fewer digits than the arithmetic has.
        """
        checkpoint = read_checkpoint(DEFAULT_CHECKPOINT if path is None else path)
        return cls(checkpoint, arithmetic=arithmetic, device=device)

    def embed_pixels(self, x: Float[np.ndarray, "..."]) -> Float64[np.ndarray, "B D"]:
        """Raw embeddings of network inputs.

        Equal inputs in different batches agree within E, not bit for bit.

        Args:
            x: inputs, (B, 3, S, S); B may be 0. Any finite values are embedded; `forward_error`
                covers those in [0, 1].

        Returns:
            The embeddings, (B, d), float64.

        Raises:
            EmbeddingError: the shape is another, an input or output is not finite, or float32
                products are set to fewer digits.
        """
        wanted = (3, self.input_size, self.input_size)
        if x.ndim != 4 or x.shape[1:] != wanted:
            raise EmbeddingError(f"inputs must be (B, {wanted}), got {x.shape}")
        if not np.isfinite(x).all():
            raise EmbeddingError("every input value must be finite")
        vectors = np.empty((len(x), self.dim))
        for start in range(0, len(x), _IMAGES_PER_PASS):
            part = slice(start, start + _IMAGES_PER_PASS)
            vectors[part] = self._run(x[part])
        if not np.isfinite(vectors).all():
            raise EmbeddingError("an embedding is not finite: the inputs are too large")
        return vectors

    def embed(self, data: bytes) -> Embedding:
        """Raw embedding of an image file's bytes, and the gain of its resize.

        Raises:
            ImageError: the bytes are no image that the decode policy accepts.
        """
        embedding = self.embed_image(decode_image(data))
        return Embedding(embedding.vector, embedding.gain)

    def embed_image(self, image: DecodedImage) -> ImageEmbedding:
        """Raw embedding of a decoded image, with gain and forward error of its size."""
        return self.embed_images([image])[0]

    def embed_images(self, images: Sequence[DecodedImage]) -> list[ImageEmbedding]:
        """Raw embeddings of decoded images of any sizes, in their order."""
        return self.embed_inputs([network_input(image, self.input_size) for image in images])

    def embed_inputs(self, inputs: Sequence[NetworkInput]) -> list[ImageEmbedding]:
        """Raw embeddings of images that `network_input` has resized, in their order."""
        side = self.input_size
        values = np.empty((len(inputs), 3, side, side))
        for place, given in zip(values, inputs, strict=True):
            place[...] = given.values
        return [
            ImageEmbedding(
                vector=vector,
                gain=given.gain,
                forward_error=self._error_with_resize(given.input_error),
                height=given.height,
                width=given.width,
            )
            for vector, given in zip(self.embed_pixels(values), inputs, strict=True)
        ]

    def gradient(
        self, pixels: Float64[np.ndarray, "H W 3"], direction: Float64[np.ndarray, " D"]
    ) -> Float64[np.ndarray, "H W 3"]:
        """Gradient of <h(x), direction> by the pixels of an upload, for attacks.

        No certificate rests on it.

        Args:
            pixels: x, the upload in [0, 1], (H, W, 3).
            direction: in embedding space, (d,).
        """
        resize = resize_operator(pixels.shape[0], pixels.shape[1], self.input_size)
        with torch.enable_grad(), torch.autocast(self._device.type, enabled=False):
            inputs = torch.tensor(
                resize.apply_real(pixels)[None], dtype=self._dtype, device=self._device
            ).requires_grad_()
            along = (self.network(inputs)[0] * torch.tensor(direction).to(inputs)).sum()
            (slope,) = torch.autograd.grad(along, inputs)
        # The transpose of x -> R_h x R_w^T, channel by channel.
        narrow: Float64[np.ndarray, "3 S S"] = slope[0].cpu().numpy().astype(np.float64)
        wide = np.matmul(np.matmul(resize.rows.T, narrow), resize.columns)
        return np.ascontiguousarray(wide.transpose(1, 2, 0))

    def _error_with_resize(self, input_error: float) -> float:
        """E of the whole path: the network's, and the input's stretched by the network."""
        return round_up(self.forward_error + product_bound(self.lipschitz_bound, input_error))

    def _run(self, x: Float[np.ndarray, "B 3 S S"]) -> Float[np.ndarray, "B D"]:
        """One certified pass."""
        if self._dtype == torch.float32:
            _refuse_short_products()
        # Autocast would shorten float32; it leaves float64 alone.
        with torch.inference_mode(), torch.autocast(self._device.type, enabled=False):
            values = np.ascontiguousarray(x, dtype=np.float64)
            inputs = torch.tensor(values, dtype=self._dtype, device=self._device)
            return self.network(inputs).cpu().numpy()


def _refuse_short_products() -> None:
    """Refuses torch's settings for float32 products in TF32 or bfloat16; float64 has none such.

    They are the process's, so they are looked at before each pass and never changed.
    """
    backends: Any = torch.backends  # torch types few of them
    for backend in (backends.cuda, backends.mkldnn):
        precision = backend.matmul.fp32_precision
        if precision not in ("ieee", "none"):
            raise EmbeddingError(
                f"a certified float32 pass needs whole float32 products, {precision} is set: "
                "call torch.set_float32_matmul_precision('highest')"
            )


def _refuse_emulation(device: str) -> None:
    """Refuses a CUDA device whose matrix products are put together from shorter ones.

    Every proof rests on one axiom: a sum of n products errs by at most gamma_n times the sum of
    their absolute values, entry by entry, in any order. Native products keep it, with or without
    fused operations. cuBLAS of CUDA 13.0.2 and later can emulate float64 by integers that share
    one scale a row, and float32 by bfloat16, where small numbers beside large ones are lost. torch
    has no switch for it; these variables, which cuBLAS reads, turn it on.
    """
    if torch.device(device).type != "cuda":
        return
    for name in _EMULATION:
        if os.environ.get(name, "0") not in ("", "0"):
            raise EmbeddingError(
                f"{name}={os.environ[name]:.20} lets CUDA compute with fewer digits than were "
                "proved; unset it, or embed on the CPU"
            )
