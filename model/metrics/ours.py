# pyright: basic
# torch's types are loose.
"""A checkpoint of ours as a metric."""

import numpy as np
from jaxtyping import Float, Float64
from torch import Tensor

from model.embedder import Embedder
from model.metrics.metric import DifferentiableMetric


class EmbedderMetric(DifferentiableMetric):
    """The embedder that the service runs, in float64, with what is proved of it."""

    def __init__(self, embedder: Embedder) -> None:
        self.embedder = embedder
        self.name = embedder.name
        self.dim = embedder.dim
        self.input_size = embedder.input_size
        self.lipschitz_bound = embedder.lipschitz_bound
        self.forward_error = embedder.forward_error
        self.output_scales = embedder.output_scales

    def network(self, x: Float[Tensor, "B 3 S S"]) -> Float[Tensor, "B D"]:
        """Raw embeddings of network inputs; x must be float64."""
        return self.embedder.network(x)

    def embed_squares(self, x: Float64[np.ndarray, "N 3 S S"]) -> Float64[np.ndarray, "N D"]:
        return self.embedder.embed_pixels(x)
