"""Times the networks against naive ones, side by side in one run: `python benchmarks/network.py`.

Ratios of process CPU time, one thread, interleaved, minimum of several rounds. Decode and resize
are timed elsewhere; this is the network alone.
"""

import argparse
import time
from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from model.embedder import DEFAULT_CHECKPOINT
from model.nets.checkpoint import read_checkpoint
from model.nets.network import Network, build_network
from model.nets.presets import PRESETS, PublishedConfig, WaveConfig
from model.nets.published import published_scalings, published_specs
from model.nets.sll import ConvBlock, LinearBlock
from model.nets.wave import quadrature_filters


def best_times(passes: dict[str, Callable[[], object]], rounds: int) -> dict[str, float]:
    """Least CPU seconds of each pass over so many interleaved rounds, after one to warm up."""
    best = dict.fromkeys(passes, float("inf"))
    for step in range(rounds + 1):
        for name, run in passes.items():
            start = time.process_time()
            run()
            if step:
                best[name] = min(best[name], time.process_time() - start)
    return best


class NaiveWave:
    """The wavelet network as its description reads: a pass a copy, convolutions per channel."""

    def __init__(self, config: WaveConfig, weights: dict[str, np.ndarray]) -> None:
        self.config = config
        self.weights = {key: torch.tensor(value).double() for key, value in weights.items()}
        low, high = torch.tensor(quadrature_filters(weights["wavelet.lowpass"]))
        pairs = ((low, low), (low, high), (high, low), (high, high))
        self.bank = torch.stack([torch.outer(rows, columns) for rows, columns in pairs])

    def __call__(self, x: Tensor) -> Tensor:
        """Raw embeddings of a batch."""
        by, centred = self.config.shift, x - 0.5
        moves = ((0, 0), (by, 0), (-by, 0), (0, by), (0, -by))[: 5 if by else 1]
        features = [self._features(_moved(centred, right, down)) for right, down in moves]
        mean = torch.stack(features).mean(dim=0)
        return mean @ self.weights["head.weight"].T - self.weights["head.offset"]

    def _features(self, x: Tensor) -> Tensor:
        for stage, maps in enumerate(self.config.maps):
            channels = x.shape[1]
            bank = self.bank.repeat(channels, 1, 1)[:, None]
            bands = functional.conv2d(x, bank, stride=2, padding=3, groups=channels)
            bands = bands.unflatten(1, (channels, 4)).transpose(1, 2).flatten(1, 2)
            for j in range(len(maps)):
                weight = self.weights[f"stages.{stage}.maps.{j}.weight"]
                bias = self.weights[f"stages.{stage}.maps.{j}.bias"]
                bands = functional.conv2d(bands, weight[:, :, None, None])
                folded = (bands[:, channels:] + bias[:, None, None]).abs()
                bands = torch.cat([bands[:, :channels], folded], dim=1)
            x = bands
        return x.flatten(1)


def _moved(x: Tensor, right: int, down: int) -> Tensor:
    """The image moved, zeros moved in."""
    return functional.pad(x, (right, -right, down, -down))


class RebuildingNetwork(nn.Module):
    """The same network, but T of each block is rebuilt in each pass, as the official code does."""

    def __init__(self, network: Network) -> None:
        super().__init__()
        self.network = network
        blocks = [block for block in network.layers if isinstance(block, ConvBlock)]
        self.kernels = [torch.tensor(block.kernel, dtype=network.dtype) for block in blocks]

    def forward(self, x: Tensor) -> Tensor:
        """Raw embeddings of a batch."""
        kernels = iter(self.kernels)
        for layer in self.network.layers:
            if isinstance(layer, ConvBlock):
                kernel = next(kernels)
                gram = functional.conv2d(kernel, kernel, padding=2)
                layer.inverse_scaling = (1.0 / gram.abs().sum((1, 2, 3)))[:, None, None]
            elif isinstance(layer, LinearBlock):
                ratios = torch.tensor(layer.log_ratios).to(layer.weight.dtype).exp()
                gram = layer.weight @ layer.weight.T
                layer.inverse_scaling = 1.0 / ((gram.abs() @ ratios) / ratios)
            x = layer(x)
        return x


def random_published(config: PublishedConfig) -> dict[str, np.ndarray]:
    """Xavier-normal weights, as the official code draws them, with T."""
    random = np.random.default_rng(0)
    weights: dict[str, np.ndarray] = {}
    for name, (shape, _) in published_specs(config).items():
        if not name.endswith("scaling"):
            fans = np.prod(shape[1:]) + shape[0] * (9 if "kernel" in name else 1)
            spread = 1.0 if name.endswith("q") else np.sqrt(2.0 / fans)
            draw = random.standard_normal(shape, dtype=np.float32)
            weights[name] = draw * np.float32(spread)
    return {**weights, **published_scalings(config, weights)}


def bench_wave() -> None:
    """The default network against the naive one."""
    weights = read_checkpoint(DEFAULT_CHECKPOINT).weights
    config = PRESETS["wave-96"]
    assert isinstance(config, WaveConfig)
    network, naive = build_network(config, weights), NaiveWave(config, weights)
    random = np.random.default_rng(1)
    for images in (1, 8):
        x = torch.tensor(random.random((images, 3, config.input_size, config.input_size)))
        gap = (network(x) - naive(x)).norm(dim=1).max()
        assert gap < 1e-9, f"the two networks differ by {gap}"
        times = best_times({"ours": lambda x=x: network(x), "naive": lambda x=x: naive(x)}, 15)
        ratio = times["ours"] / times["naive"]
        limit = " (at most 0.4)" if images == 1 else ""
        print(
            f"wave-96, float64, batch {images}: {1e3 * times['ours'] / images:.2f} ms an image, "
            f"naive {1e3 * times['naive'] / images:.2f} ms; ratio {ratio:.3f}{limit}"
        )
    report_proof("wave-96", network)


def bench_published(preset: str, rounds: int) -> None:
    """A published size with T folded against one that rebuilds it in each pass."""
    config = PRESETS[preset]
    assert isinstance(config, PublishedConfig)
    weights = random_published(config)
    folded = build_network(config, weights)
    rebuilding = RebuildingNetwork(build_network(config, weights))
    side = config.input_size
    x = torch.tensor(np.random.default_rng(2).random((1, 3, side, side)))
    gap = (folded(x) - rebuilding(x)).norm() / folded(x).norm()
    assert gap < 1e-9, f"the two networks differ by {gap}"
    times = best_times({"folded": lambda: folded(x), "rebuilt": lambda: rebuilding(x)}, rounds)
    print(
        f"{preset}, float64, batch 1: T folded {times['folded']:.3f} s, T rebuilt in each pass "
        f"{times['rebuilt']:.3f} s; ratio {times['rebuilt'] / times['folded']:.2f} (at least 5)"
    )
    report_proof(f"{preset} (random weights)", folded)


def report_proof(name: str, network: Network) -> None:
    """What is proved of a network, and the CPU time of proving it."""
    start = time.process_time()
    proof = network.prove()
    print(
        f"{name}: lipschitz_bound {proof.lipschitz_bound!r}, forward_error "
        f"{proof.forward_error:.3e}, proved in {time.process_time() - start:.2f} s"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--preset", default="small", help="published size to time")
    parser.add_argument("--rounds", type=int, default=3, help="rounds of the published size")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    with torch.inference_mode():
        bench_wave()
        bench_published(arguments.preset, arguments.rounds)


if __name__ == "__main__":
    main()
