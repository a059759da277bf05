"""The published network computes what the published code computes; wave-96 what it is said to."""

import numpy as np
import pytest
import torch
from paths import COMPACT_V0, DATA

from benchmarks.network import NaiveWave
from model.convert import convert_official, read_official
from model.embedder import DEFAULT_CHECKPOINT, Embedder
from model.nets.checkpoint import read_checkpoint
from model.nets.network import build_network
from model.nets.presets import PRESETS
from model.nets.published import published_scalings
from model.nets.sll import ConvBlock, LinearBlock

WIDE, SHORT = 1e-10, 1e-6


@pytest.fixture(scope="module")
def oracle() -> dict[str, np.ndarray]:
    with np.load(DATA / "official_tiny.npz") as arrays:
        return dict(arrays)


@pytest.fixture(scope="module")
def embedder(tmp_path_factory) -> Embedder:
    target = tmp_path_factory.mktemp("oracle") / "tiny.safetensors"
    convert_official(DATA / "official_tiny.pt", target)
    return Embedder.load(target)


@pytest.fixture(scope="module")
def short(tmp_path_factory) -> Embedder:
    target = tmp_path_factory.mktemp("oracle") / "tiny.safetensors"
    convert_official(DATA / "official_tiny.pt", target)
    return Embedder.load(target, arithmetic="float32")


def far(found: np.ndarray, wanted: np.ndarray, norms: np.ndarray) -> float:
    return float((np.linalg.norm((found - wanted).reshape(len(norms), -1), axis=1) / norms).max())


@pytest.mark.parametrize("part", ["input", "tri_ref", "tri_left", "tri_right"])
def test_embeddings_agree_in_both_arithmetics(oracle, embedder, short, part):
    x = oracle[f"{part}_u8"] / 255.0
    name = "embed" if part == "input" else part.replace("tri", "tri_embed")
    wanted = oracle[f"{name}_f64"]
    norms = np.linalg.norm(wanted, axis=1)
    assert far(embedder.embed_pixels(x), wanted, norms) <= WIDE
    assert far(short.embed_pixels(x), wanted, norms) <= SHORT
    if part == "input":
        assert far(embedder.embed_pixels(x), oracle["embed_from_taps_f64"], norms) <= WIDE
        assert far(short.embed_pixels(x), oracle["embed_f32"], norms) <= SHORT


def test_every_tap_agrees(oracle, embedder):
    x = torch.tensor(oracle["input_u8"] / 255.0)
    norms = np.linalg.norm(oracle["embed_f64"], axis=1)
    taps = {}
    with torch.inference_mode():
        for layer in embedder.network.layers:
            x = layer(x)
            taps.setdefault(type(layer).__name__, []).append(x.numpy().copy())
    assert far(taps["SumPool"][1], oracle["after_pool_f64"], norms) <= WIDE
    for j in (1, 2):
        assert far(taps["LinearBlock"][j - 1], oracle[f"after_linear{j}_f64"], norms) <= WIDE
    assert far(taps["Truncate"][0], oracle["embed_f64"], norms) <= WIDE


def test_the_folded_scaling_agrees_and_is_never_the_larger(oracle, embedder):
    blocks = list(embedder.network.layers)
    scalings = [block.scaling for block in blocks if isinstance(block, ConvBlock | LinearBlock)]
    names = ["conv0", "conv1", "conv2", "linear1", "linear2"]
    for name, scaling in zip(names, scalings, strict=True):
        wanted = oracle[f"t_{name}_f64"]
        assert np.allclose(1.0 / scaling, wanted, rtol=WIDE, atol=0.0)
        assert np.allclose(1.0 / scaling, oracle[f"t_{name}_f32"], rtol=SHORT, atol=0.0)
        assert (1.0 / scaling <= wanted * (1 + 1e-15)).all()


def test_scale_free_radii_agree(oracle, embedder):
    """r = |<h(ref), u>| / |u| with u the difference of the two sides' unit vectors."""
    sides = [embedder.embed_pixels(oracle[f"tri_{side}_u8"] / 255.0) for side in ("left", "right")]
    left, right = (side / np.linalg.norm(side, axis=1, keepdims=True) for side in sides)
    reference, u = embedder.embed_pixels(oracle["tri_ref_u8"] / 255.0), left - right
    radii = np.abs((reference * u).sum(axis=1)) / np.linalg.norm(u, axis=1)
    assert np.allclose(radii, oracle["scale_free_radius_f64"], rtol=1e-9)
    right_is_closer = (reference * u).sum(axis=1) < 0
    assert np.array_equal(right_is_closer == (oracle["target"] > 0.5), oracle["correct_nobias_f64"])


def test_the_identity_case_has_the_valid_radius_and_flips_just_beyond_it(oracle):
    """Every bias at -100: the network is linear, and the published radius is not valid."""
    weights = read_official(DATA / "official_tiny.pt")
    weights |= {key: np.full_like(weights[key], -100) for key in weights if "bias" in key}
    config = PRESETS["tiny"]
    weights |= published_scalings(config, weights)
    network = build_network(config, weights)
    triplet = int(oracle["id_index"])
    x = oracle["tri_ref_u8"][triplet] / 255.0
    pictures = [oracle[f"tri_{side}_u8"][triplet] / 255.0 for side in ("left", "right")]
    pictures += [x, x + oracle["id_delta_f64"]]
    with torch.inference_mode():
        left, right, here, moved = network(torch.tensor(np.stack(pictures))).numpy()
    assert np.allclose(here, oracle["id_embed_f64"][0], atol=1e-12)
    u = left / np.linalg.norm(left) - right / np.linalg.norm(right)
    radius = abs(here @ u) / np.linalg.norm(u) / network.prove().lipschitz_bound
    assert radius == pytest.approx(float(oracle["id_exact_radius"]), rel=1e-9)
    assert radius < np.linalg.norm(oracle["id_delta_f64"]) < oracle["id_claimed_radius_nobias"]
    assert np.sign(here @ u) != np.sign(moved @ u)


def test_the_first_wave_checkpoint_reproduces_its_trainer():
    embedder = Embedder.load(COMPACT_V0)
    with np.load(DATA / "compact_v0.npz") as arrays:
        x, wanted = arrays["input_u8"] / 255.0, arrays["embed_f64"]
    found = embedder.embed_pixels(x)
    assert far(found, wanted, np.linalg.norm(wanted, axis=1)) <= WIDE
    # The trainer summed in another order: both lie within E of the real-arithmetic embedding.
    assert np.linalg.norm(found - wanted, axis=1).max() <= 2 * embedder.forward_error
    assert embedder.lipschitz_bound == pytest.approx(0.9974086947, abs=1e-9)


def test_wave_96_is_the_network_of_its_description():
    embedder = Embedder.load()
    weights = read_checkpoint(DEFAULT_CHECKPOINT).weights
    x = np.random.default_rng(0).integers(256, size=(2, 3, 96, 96)) / 255.0
    wanted = NaiveWave(PRESETS["wave-96"], weights)(torch.tensor(x)).numpy()
    assert np.linalg.norm(embedder.embed_pixels(x) - wanted, axis=1).max() <= (
        2 * embedder.forward_error
    )


def test_wave_96_claims_a_proved_bound_just_above_its_norm():
    embedder = Embedder.load()
    assert 0.99 < embedder.lipschitz_bound <= 1.0
    assert 0.0 < embedder.forward_error < 1e-8
