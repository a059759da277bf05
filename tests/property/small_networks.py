"""Small random networks of both architectures, and a reference in extended precision."""

import numpy as np

from model.nets.network import tensor_specs
from model.nets.presets import EmbedderConfig, PublishedConfig, WaveConfig
from model.nets.published import published_scalings
from model.nets.wave import filter_matrix, quadrature_filters

PUBLISHED = PublishedConfig(2, 4, 3, 2, 6, 3, input_size=16)
WAVE = WaveConfig(((12, 12), (24,)), 5, input_size=16, shift=2)
ONE_COPY = WaveConfig(((12, 12), (24,)), 5, input_size=16, shift=0, head_dtype="float32")

# sym4, as published by Daubechies; rounded here to 16 digits.
SYM4 = np.array(
    [
        -0.07576571478927333,
        -0.02963552764599851,
        0.49761866763201545,
        0.8037387518059161,
        0.29785779560527736,
        -0.09921954357684722,
        -0.012603967262037833,
        0.0322231006040427,
    ]
)


def random_weights(config: EmbedderConfig, seed: int, spread: float = 1.0) -> dict[str, np.ndarray]:
    """Weights of a config: orthonormal maps for a wavelet network, Gaussian ones otherwise."""
    random = np.random.default_rng(seed)
    weights: dict[str, np.ndarray] = {}
    for name, (shape, dtype) in tensor_specs(config).items():
        if name == "wavelet.lowpass":
            weights[name] = SYM4.copy()
        elif "maps" in name and name.endswith("weight"):
            square = np.linalg.qr(random.standard_normal((shape[1], shape[1])))[0]
            weights[name] = np.ascontiguousarray(square[: shape[0]]).astype(dtype)
        elif name == "head.weight":
            weights[name] = (random.standard_normal(shape) / shape[1] ** 0.5).astype(dtype)
        elif not name.endswith("scaling"):
            weights[name] = (random.standard_normal(shape) * spread).astype(dtype)
    if isinstance(config, PublishedConfig):
        weights |= published_scalings(config, weights)
    return weights


def reference(config: EmbedderConfig, weights: dict[str, np.ndarray], x: np.ndarray) -> np.ndarray:
    """The embedding of one input in extended precision, from the formulas and stored numbers."""
    wide = {name: value.astype(np.longdouble) for name, value in weights.items()}
    if isinstance(config, PublishedConfig):
        return _published(config, wide, x.astype(np.longdouble))
    return _wave(config, wide, x.astype(np.longdouble))


def _published(config: PublishedConfig, wide: dict[str, np.ndarray], x: np.ndarray) -> np.ndarray:
    x = np.concatenate([x, np.zeros((config.channels - 3, *x.shape[1:]), x.dtype)])
    for i in range(config.depth):
        kernel, side = wide[f"convs.{i}.kernel"], x.shape[1]
        padded = np.pad(x, ((0, 0), (1, 1), (1, 1)))
        inner = wide[f"convs.{i}.bias"][0] * np.ones((1, side, side), x.dtype)
        for a in range(3):
            for b in range(3):
                window = padded[:, a : a + side, b : b + side]
                inner = inner + np.einsum("ic,cyx->iyx", kernel[:, :, a, b], window)
        s = np.maximum(inner, 0) * _inverse(wide[f"convs.{i}.scaling"])[:, None, None]
        spread = np.pad(s, ((0, 0), (1, 1), (1, 1)))
        for a in range(3):
            for b in range(3):
                window = spread[:, 2 - a : 2 - a + side, 2 - b : 2 - b + side]
                x = x - 2 * np.einsum("ic,iyx->cyx", kernel[:, :, a, b], window)
    for _ in range(2):
        channels, side, _ = x.shape
        x = x.reshape(channels, side // 4, 4, side // 4, 4).sum(axis=(2, 4)) / 4
    flat = x.ravel()
    for j in range(1, config.linear_depth + 1):
        weight = wide[f"linear.{j}.weight"]
        inner = np.einsum("fn,n->f", weight, flat) + wide[f"linear.{j}.bias"][0]
        s = np.maximum(inner, 0) * _inverse(wide[f"linear.{j}.scaling"])
        flat = flat - 2 * np.einsum("fn,f->n", weight, s)
    return flat[: config.embedding_dim]


def _wave(config: WaveConfig, wide: dict[str, np.ndarray], x: np.ndarray) -> np.ndarray:
    by, side = config.shift, config.input_size
    padded = np.pad(x - np.longdouble(0.5), ((0, 0), (by, by), (by, by)))
    moves = ((0, 0), (-by, 0), (by, 0), (0, -by), (0, by)) if by else ((0, 0),)
    mean = np.zeros(config.head_inputs, np.longdouble)
    for down, right in moves:
        window = (slice(None), slice(by + down, by + down + side), slice(by + right, None))
        mean = mean + _wave_features(config, wide, padded[window][:, :, :side]).ravel()
    head = np.einsum("dn,n->d", wide["head.weight"], mean / len(moves))
    return head - wide["head.offset"]


def _wave_features(config: WaveConfig, wide: dict[str, np.ndarray], x: np.ndarray) -> np.ndarray:
    filters = quadrature_filters(wide["wavelet.lowpass"].astype(np.float64))
    for s, maps in enumerate(config.maps):
        channels, side, _ = x.shape
        axis = filter_matrix(filters, side).astype(np.longdouble)
        bands = np.einsum("oy,cyx,px->cop", axis, x, axis)
        half = side // 2
        bands = bands.reshape(channels, 2, half, 2, half).transpose(1, 3, 0, 2, 4)
        x = bands.reshape(4 * channels, half, half)
        for j in range(len(maps)):
            x = np.einsum("oi,iyx->oyx", wide[f"stages.{s}.maps.{j}.weight"], x)
            bias = wide[f"stages.{s}.maps.{j}.bias"][:, None, None]
            x = np.concatenate([x[:channels], np.abs(x[channels:] + bias)])
    return x


def _inverse(scaling: np.ndarray) -> np.ndarray:
    return np.divide(1, scaling, out=np.zeros_like(scaling), where=scaling > 0)
