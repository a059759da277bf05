"""Metrics: certified baselines keep their bound, hashes are bits, and every name loads."""

import importlib.util
import subprocess
import sys

import imagehash
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from image_files import photo
from PIL import Image

from model.embedder import DEFAULT_CHECKPOINT, Embedder
from model.errors import DependencyError, MetricError
from model.metrics.load import load_metric, named
from model.metrics.metric import DifferentiableMetric, Metric, squares
from model.metrics.pixels import BlockMeans
from model.pixels.resize import resize_operator

CERTIFIED = ("wave-96", "raw", "blockmean16", "blockmean8")
# PDQ's library is compiled at install, so not every machine has it.
HAS_PDQ = importlib.util.find_spec("pdqhash") is not None
HASHES = ("phash", "pdq") if HAS_PDQ else ("phash",)
TEACHERS = ("teacher:efficientnet-lite0", "teacher:efficientnet-lite0@64")
PICTURES = [photo(40, 60), photo(64, 64, 1), photo(130, 90, 2)]


@pytest.fixture(scope="module")
def metrics():
    return {name: load_metric(name) for name in (*CERTIFIED, *HASHES, *TEACHERS)}


@pytest.mark.parametrize("name", [*CERTIFIED, *HASHES, *TEACHERS])
def test_a_metric_keeps_its_interface(metrics, name):
    metric = metrics[name]
    assert isinstance(metric, Metric)
    assert metric.name == name
    vectors = metric.embed(PICTURES)
    assert vectors.dtype == np.float64
    assert vectors.shape == (3, metric.dim)
    assert np.isfinite(vectors).all()
    assert (np.linalg.norm(vectors, axis=1) > 0).all()
    assert metric.embed([]).shape == (0, metric.dim)
    assert isinstance(metric, DifferentiableMetric) == (name not in HASHES)
    assert (metric.lipschitz_bound is None) == (name not in CERTIFIED)


@pytest.mark.parametrize("name", [*CERTIFIED, *HASHES, *TEACHERS])
def test_a_picture_alone_is_embedded_as_among_others(metrics, name):
    metric = metrics[name]
    together = metric.embed(PICTURES)
    alone = np.concatenate([metric.embed([picture]) for picture in PICTURES])
    slack = 2 * metric.forward_error if name in CERTIFIED else 1e-5 * np.abs(together).max()
    assert np.linalg.norm(together - alone, axis=1).max() <= slack


@pytest.mark.parametrize("name", [*CERTIFIED, *TEACHERS])
def test_the_network_is_the_way_that_embed_takes_and_has_gradients(metrics, name):
    metric = metrics[name]
    x = torch.tensor(squares(PICTURES[:2], metric.input_size), requires_grad=True)
    out = metric.network(x)
    assert out.dtype == torch.float64
    np.testing.assert_allclose(
        out.detach().numpy(), metric.embed(PICTURES[:2]), rtol=1e-4, atol=1e-4
    )
    out[:, : metric.dim // 2].sum().backward()
    assert x.grad is not None
    assert torch.isfinite(x.grad).all()
    assert (x.grad.flatten(1).norm(dim=1) > 0).all()


def test_a_square_is_the_certified_resize():
    for one, picture in zip(squares(PICTURES, 64), PICTURES, strict=True):
        assert np.array_equal(one, resize_operator(*picture.shape[:2], 64).apply(picture))


@settings(max_examples=30, deadline=None)
@given(st.sampled_from(CERTIFIED), st.integers(0, 2**32), st.floats(1e-6, 1.0))
def test_a_certified_metric_never_moves_further_than_its_input(name, seed, size):
    metric = _LOADED[name]
    rng = np.random.default_rng(seed)
    x = rng.random((1, 3, metric.input_size, metric.input_size))
    y = np.clip(x + size * rng.standard_normal(x.shape), 0, 1)
    with torch.inference_mode():
        a, b = metric.network(torch.from_numpy(x)), metric.network(torch.from_numpy(y))
    moved = float(torch.linalg.norm(a - b))
    allowed = metric.lipschitz_bound * np.linalg.norm(x - y) * (1 + 1e-12)
    assert moved <= allowed + 2 * metric.forward_error


_LOADED = {name: load_metric(name) for name in CERTIFIED}


@pytest.mark.parametrize(("grid", "side"), [(64, 64), (16, 64), (8, 64), (2, 8), (1, 4)])
def test_the_norm_of_block_means_is_exactly_one(grid, side):
    means = BlockMeans(grid, side)
    basis = torch.eye(3 * side * side, dtype=torch.float64).reshape(-1, 3, side, side)
    if side > 8:  # a row of the picture's blocks holds all there is to see
        basis = basis[: side * side // grid]
    matrix = (means.network(basis) - means.network(torch.zeros_like(basis))).numpy()
    norms = np.linalg.svd(matrix, compute_uv=False)
    assert norms[0] == pytest.approx(1.0, abs=1e-12)
    assert means.lipschitz_bound == 1.0


@pytest.mark.parametrize("grid", [64, 16, 8])
def test_the_forward_error_of_block_means_covers_what_rounding_does(grid):
    means = BlockMeans(grid)
    x = np.random.default_rng(grid).random((1, 3, 64, 64))
    block = 64 // grid
    exact = (x.astype(np.longdouble) - np.longdouble(0.5)).reshape(3, grid, block, grid, block)
    exact = (exact.sum(axis=(2, 4)) / block).ravel()
    error = np.linalg.norm(means.network(torch.from_numpy(x)).numpy()[0] - exact)
    assert error <= means.forward_error < 1e-12


def test_blocks_that_do_not_divide_are_refused():
    for grid in (7, 65):
        with pytest.raises(ValueError, match="blocks"):
            BlockMeans(grid)


def test_a_mean_of_blocks_is_the_mean_times_the_side(metrics):
    picture = np.full((64, 64, 3), 255, np.uint8)
    picture[:8, :8, 1] = 51
    vector = metrics["blockmean8"].embed([picture])[0].reshape(3, 8, 8)
    assert vector[1, 0, 0] == pytest.approx(8 * (0.2 - 0.5), abs=1e-12)
    assert vector[0, 0, 0] == pytest.approx(8 * 0.5, abs=1e-12)


def test_the_cosine_of_hashes_counts_differing_bits(metrics):
    a, b = Image.fromarray(PICTURES[0]), Image.fromarray(PICTURES[2])
    hamming = {"phash": imagehash.phash(a) - imagehash.phash(b)}
    if HAS_PDQ:
        pdqhash = importlib.import_module("pdqhash")
        bits = [pdqhash.compute(PICTURES[place])[0] for place in (0, 2)]
        hamming["pdq"] = int((bits[0] != bits[1]).sum())
    for name in HASHES:
        one, other = metrics[name].embed([PICTURES[0], PICTURES[2]])
        assert set(np.unique(one)) <= {-1.0, 1.0}
        cosine = one @ other / metrics[name].dim
        assert cosine == 1 - 2 * hamming[name] / metrics[name].dim
        assert hamming[name] > 0


def test_a_blank_picture_has_a_hash_too(metrics):
    for name in HASHES:
        assert np.abs(metrics[name].embed([np.zeros((1, 1, 3), np.uint8)])).min() == 1


def test_a_checkpoint_is_named_by_its_path_or_by_its_name():
    embedder = Embedder.load()
    for spec in ("wave-96", str(DEFAULT_CHECKPOINT)):
        metric = load_metric(spec)
        assert metric.lipschitz_bound == embedder.lipschitz_bound
        assert metric.forward_error == embedder.forward_error


@pytest.mark.parametrize("spec", ["", "sift", "teacher:", "teacher:gpt", "Raw", "blockmean7"])
def test_a_strange_name_is_refused_and_the_known_ones_are_said(spec):
    with pytest.raises(MetricError, match=r"known: .*efficientnet-lite0|known: .*blockmean16"):
        load_metric(spec)


@pytest.mark.parametrize("side", ["x", "0", "225", "-1", "6.4"])
def test_a_side_that_is_none_is_refused(side):
    with pytest.raises(MetricError, match="pixels"):
        load_metric(f"teacher:efficientnet-lite0@{side}")


@pytest.mark.parametrize("name", [*CERTIFIED, *HASHES, *TEACHERS])
@pytest.mark.parametrize(
    "bad", [np.zeros((0, 4, 3), np.uint8), np.zeros((4, 4, 3), np.float32)], ids=["empty", "float"]
)
def test_what_is_no_picture_is_refused(metrics, name, bad):
    with pytest.raises((MetricError, TypeError)):
        metrics[name].embed([PICTURES[0], bad])


def test_a_name_stands_before_the_spec_but_a_path_with_an_equals_sign_is_a_path(tmp_path):
    assert named("mine=teacher:x@64") == ("mine", "teacher:x@64")
    assert named("phash") == ("", "phash")
    (tmp_path / "lr=1").mkdir()
    path = tmp_path / "lr=1" / "best.safetensors"
    path.write_bytes(b"x")
    assert named(str(path)) == ("", str(path))
    assert named(f"mine={path}") == ("mine", str(path))


@pytest.mark.parametrize(("name", "library"), [("phash", "imagehash"), ("pdq", "pdqhash")])
def test_a_missing_extra_is_one_clear_line(monkeypatch, name, library):
    monkeypatch.setitem(sys.modules, library, None)
    with pytest.raises(DependencyError, match=rf"{library}.*pip install '") as caught:
        load_metric(name)
    assert "\n" not in str(caught.value)


def test_no_library_of_an_extra_is_imported_before_it_is_needed():
    code = (
        "import sys, model.teachers.load; from model.metrics.load import load_metric;"
        "load_metric('raw');"
        "print([m for m in ('imagehash', 'pdqhash', 'scipy', 'efficientnet_lite_pytorch', 'timm',"
        " 'dreamsim', 'open_clip') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
