import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from model.pixels.resize import resize_operator

sides = st.integers(1, 80)


@given(height=sides, width=sides, size=st.integers(1, 24), seed=st.integers(0, 2**32 - 1))
def test_no_change_of_an_upload_grows_by_more_than_the_gain(height, width, size, seed):
    operator = resize_operator(height, width, size)
    delta = np.random.default_rng(seed).standard_normal((height, width, 3))
    # 20 steps of power iteration, so that the change is near the worst and not merely random.
    for _ in range(20):
        mapped = operator.apply_real(delta)
        delta = np.einsum("ih,cij,jw->hwc", operator.rows, mapped, operator.columns, optimize=True)
        delta /= np.linalg.norm(delta)
    assert np.linalg.norm(operator.apply_real(delta)) <= operator.gain * (1 + 1e-13)


@given(height=sides, width=sides, size=st.integers(1, 24), seed=st.integers(0, 2**32 - 1))
def test_apply_stays_within_the_input_error_of_a_longer_arithmetic(height, width, size, seed):
    operator = resize_operator(height, width, size)
    pixels = np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)
    rows, columns = (m.astype(np.longdouble) for m in (operator.rows, operator.columns))
    plane = pixels.astype(np.longdouble) / 255
    exact = np.stack([rows @ plane[..., c] @ columns.T for c in range(3)])
    assert np.linalg.norm(operator.apply(pixels) - exact) <= operator.input_error


@given(height=sides, width=sides, size=st.integers(1, 24))
def test_a_flat_picture_stays_flat_and_values_stay_in_range(height, width, size):
    operator = resize_operator(height, width, size)
    white = operator.apply(np.full((height, width, 3), 255, dtype=np.uint8))
    np.testing.assert_allclose(white, 1.0, rtol=0, atol=1e-14)
    assert (operator.rows >= 0).all()
    assert (operator.columns >= 0).all()


@given(height=sides, width=sides, size=st.integers(1, 24), seed=st.integers(0, 2**32 - 1))
def test_mirroring_the_upload_mirrors_the_input(height, width, size, seed):
    pixels = np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)
    operator = resize_operator(height, width, size)
    mirrored = operator.apply(np.ascontiguousarray(pixels[::-1, ::-1]))[:, ::-1, ::-1]
    np.testing.assert_allclose(mirrored, operator.apply(pixels), rtol=0, atol=1e-13)
