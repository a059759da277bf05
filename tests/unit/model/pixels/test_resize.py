from concurrent.futures import ThreadPoolExecutor
from fractions import Fraction

import numpy as np
import pytest
import torch

from model.errors import EmbeddingError
from model.pixels import resize
from model.pixels.resize import _build, _ResizeCache, resize_operator

# 1 / gain to 224 x 224 as published for torch's antialiased bilinear resize, squashed.
PUBLISHED = [
    (112, 112, 0.50),
    (64, 64, 0.29),
    (32, 32, 0.14),
    (223, 223, 0.995),
    (224, 224, 1.0),
    (225, 225, 1.004),
    (448, 448, 1.998),
    (896, 896, 3.99),
    (1792, 1792, 7.97),
    (256, 256, 1.14),
    (336, 336, 1.50),
    (333, 500, 1.82),
    (480, 640, 2.47),
    (720, 1280, 4.27),
    (1080, 1920, 6.41),
    (3024, 4032, 15.5),
    (17, 1000, 0.58),
]
PUBLISHED_64 = [(224, 224, 3.49), (480, 640, 8.63), (1080, 1920, 22.4)]
SIZES = [
    (1, 1),
    (1, 30_000),
    (30_000, 1),
    (2, 3),
    (17, 1000),
    (64, 64),
    (63, 65),
    (100, 64),
    (192, 192),
    (333, 500),
    (1080, 1920),
    (2049, 31),
]


def random_pixels(height, width, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def torch_resize(pixels, size):
    image = torch.from_numpy(pixels.astype(np.float64)).permute(2, 0, 1)[None]
    resized = torch.nn.functional.interpolate(
        image, size=(size, size), mode="bilinear", antialias=True, align_corners=False
    )
    return resized[0].numpy()


@pytest.mark.parametrize(("height", "width", "expected"), PUBLISHED)
def test_the_gain_to_224_is_the_published_one(height, width, expected):
    digits = len(str(expected).split(".")[1])
    assert abs(1 / resize_operator(height, width, 224).gain - expected) <= 0.5001 * 10**-digits


@pytest.mark.parametrize(("height", "width", "expected"), PUBLISHED_64)
def test_the_gain_to_64_is_the_published_one(height, width, expected):
    digits = len(str(expected).split(".")[1])
    assert abs(1 / resize_operator(height, width, 64).gain - expected) <= 0.5001 * 10**-digits


@pytest.mark.parametrize(("height", "width"), SIZES)
def test_the_result_is_torchs_antialiased_bilinear(height, width):
    pixels = random_pixels(height, width)
    ours = resize_operator(height, width, 64).apply(pixels)
    assert ours.dtype == np.float64
    assert ours.shape == (3, 64, 64)
    assert ours.flags.c_contiguous
    np.testing.assert_allclose(ours, torch_resize(pixels, 64) / 255, rtol=0, atol=5e-15)


@pytest.mark.parametrize("length", [1, 7, 63, 64, 65, 129, 500, 1920, 20_000])
def test_the_weights_are_torchs_to_1e_15(length):
    seen = torch.arange(0, length, 997 if length > 2000 else 1)  # a few pixels of a long side
    basis = torch.nn.functional.one_hot(seen, length).double()
    resized = torch.nn.functional.interpolate(
        basis[None, :, None], size=(1, 64), mode="bilinear", antialias=True, align_corners=False
    )
    expected = resized[0, :, 0].numpy().T
    columns = resize_operator(1, length, 64).columns[:, seen.numpy()]
    np.testing.assert_allclose(columns, expected, rtol=0, atol=1e-15)


@pytest.mark.parametrize(("height", "width"), SIZES)
def test_apply_is_the_dense_product_of_its_own_matrices(height, width):
    operator = resize_operator(height, width, 24)
    pixels = random_pixels(height, width, seed=1)
    dense = np.einsum(
        "ih,hwc,jw->cij", operator.rows, pixels / 255, operator.columns, optimize=True
    )
    np.testing.assert_allclose(operator.apply(pixels), dense, rtol=1e-12, atol=0)


@pytest.mark.parametrize("size", [1, 2, 5, 64, 224])
def test_the_identity_size_is_the_identity_and_its_gain_is_one(size):
    operator = resize_operator(size, size, size)
    pixels = random_pixels(size, size)
    assert 1.0 <= operator.gain <= 1.0 + 1e-14
    np.testing.assert_array_equal(operator.apply(pixels), pixels.transpose(2, 0, 1) / 255.0)


@pytest.mark.parametrize(("height", "width"), SIZES)
def test_the_gain_is_not_below_the_norm_and_the_worst_image_reaches_it(height, width):
    operator = resize_operator(height, width, 64)
    left, down = np.linalg.svd(operator.rows, full_matrices=False)[1:]
    right, across = np.linalg.svd(operator.columns, full_matrices=False)[1:]
    assert operator.gain >= left[0] * right[0] * (1 - 1e-14)
    worst = np.zeros((height, width, 3))
    worst[..., 1] = np.outer(down[0], across[0])
    stretched = np.linalg.norm(operator.apply_real(worst)) / np.linalg.norm(worst)
    assert stretched >= 0.999 * operator.gain
    assert stretched <= operator.gain * (1 + 1e-13)
    assert stretched >= (1 - 1e-10) * operator.gain


@pytest.mark.parametrize(
    ("height", "width", "size"), [(1, 1, 2), (5, 7, 3), (9, 4, 5), (3, 2, 6), (26, 25, 4)]
)
def test_the_input_error_bounds_the_distance_to_exact_arithmetic(height, width, size):
    operator = resize_operator(height, width, size)
    for pixels in (
        random_pixels(height, width, seed=2),
        np.full((height, width, 3), 255, dtype=np.uint8),
    ):
        computed = operator.apply(pixels)
        rows = [[Fraction(float(w)) for w in row] for row in operator.rows]
        columns = [[Fraction(float(w)) for w in row] for row in operator.columns]
        squared = Fraction(0)
        for channel in range(3):
            plane = [[Fraction(int(v), 255) for v in row] for row in pixels[..., channel]]
            half = [
                [sum(a * plane[h][w] for h, a in enumerate(row) if a) for w in range(width)]
                for row in rows
            ]
            for i in range(size):
                for j in range(size):
                    exact = sum(a * half[i][w] for w, a in enumerate(columns[j]) if a)
                    squared += (Fraction(float(computed[channel, i, j])) - exact) ** 2
        assert squared <= Fraction(operator.input_error) ** 2


def test_the_input_error_is_small_and_grows_with_the_upload():
    errors = [resize_operator(n, n, 64).input_error for n in (64, 256, 1024, 4096)]
    assert errors == sorted(errors)
    assert 0 < errors[0] < 1e-12
    assert errors[-1] < 1e-10


def test_pixels_of_another_size_are_refused():
    with pytest.raises(EmbeddingError, match=r"\(5, 6, 3\) were wanted, \(6, 5, 3\) came"):
        resize_operator(5, 6, 4).apply(random_pixels(6, 5))


@pytest.mark.parametrize("sides", [(0, 5, 4), (5, 0, 4), (5, 5, 0), (-1, 5, 4)])
def test_a_side_below_one_is_refused(sides):
    with pytest.raises(ValueError, match="at least 1"):
        resize_operator(*sides)


def test_a_view_of_a_larger_array_is_resized_like_its_copy():
    view = random_pixels(90, 120)[10:70, ::2]
    operator = resize_operator(60, 60, 16)
    np.testing.assert_array_equal(operator.apply(view), operator.apply(view.copy()))


def test_equal_calls_share_one_operator_and_many_threads_get_equal_ones():
    assert resize_operator(301, 203, 16) is resize_operator(301, 203, 16)
    sizes = [(10 + n % 7, 11 + n % 5) for n in range(200)]
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(lambda s: resize_operator(*s, 16), sizes))
    for (height, width), operator in zip(sizes, found, strict=True):
        assert (operator.height, operator.width) == (height, width)
        assert operator.gain == _build(height, width, 16).gain


def test_the_cache_is_bounded_by_memory_and_forgets_the_least_recently_used():
    one = _build(50, 50, 16).nbytes
    cache = _ResizeCache(max_bytes=int(3.5 * one))
    first = cache.get(50, 50, 16)
    cache.get(50, 50, 15)
    cache.get(50, 50, 14)
    assert cache.get(50, 50, 16) is first
    cache.get(50, 50, 17)
    cache.get(50, 50, 18)
    assert cache.nbytes <= 3.5 * one
    assert cache.get(50, 50, 16) is not None
    huge = cache.get(1, 20_000, 16)
    assert huge.nbytes > 3.5 * one
    assert cache.get(1, 20_000, 16) is huge


def test_resizing_alone_proves_no_gain(monkeypatch):
    """Training meets thousands of sizes, and each proof is two eigen-solves."""

    def refuse(matrix):
        raise AssertionError(f"a norm of {matrix.shape} was proved")

    monkeypatch.setattr(resize, "nonnegative_norm_bound", refuse)
    operator = _build(50, 70, 16)
    assert operator.apply(np.full((50, 70, 3), 255, dtype=np.uint8)).max() <= 1.0 + 1e-12
    with pytest.raises(AssertionError, match="was proved"):
        _ = operator.gain
