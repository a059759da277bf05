"""No embedding moves farther along a difference than its network's output scales allow."""

from dataclasses import replace

import numpy as np
import pytest
import torch
import typer
from hypothesis import given, settings
from hypothesis import strategies as st
from small_networks import ONE_COPY, PUBLISHED, WAVE, random_weights
from typer.testing import CliRunner

from model.certificate.metric import output_scales, relative_scales
from model.convert import main
from model.embedder import Embedder
from model.errors import CertificateError, CheckpointError
from model.nets.checkpoint import check_claims, load_checkpoint, save_checkpoint
from model.nets.network import build_network
from model.nets.wave import rotate_head

convert = typer.Typer()
convert.command()(main)

seeds = st.integers(0, 2**32 - 1)


@given(seeds, st.integers(1, 12), st.integers(1, 40), st.floats(0, 8))
@settings(max_examples=200)
def test_scales_bound_the_transposed_map_of_any_difference(seed, rows, columns, decades):
    """Of any matrix, rotated or not, at any condition, whatever dtype it was stored in."""
    rng = np.random.default_rng(seed)
    weight = rng.normal(size=(rows, columns)) * 10.0 ** rng.uniform(-decades, 0, size=(rows, 1))
    for dtype in (np.float64, np.float32):
        stored = weight.astype(dtype)
        scales = output_scales(stored, 1.0)
        exact = stored.astype(np.longdouble)
        for difference in rng.normal(size=(20, rows)) / scales:
            wide = difference.astype(np.longdouble)
            moved = np.sqrt(((exact.T @ wide) ** 2).sum())
            assert moved <= np.sqrt(((scales.astype(np.longdouble) * wide) ** 2).sum())
        assert (output_scales(stored, 2.5) >= 2.5 * scales * (1 - 1e-12)).all()


@pytest.mark.parametrize("condition", [1.0, 1e3, 1e8])
def test_scales_of_orthogonal_rows_are_their_lengths(condition):
    rng = np.random.default_rng(1)
    rows, _ = np.linalg.qr(rng.normal(size=(200, 32)))
    lengths = np.geomspace(1.0, 1.0 / condition, 32)
    weight = lengths[:, None] * rows.T
    np.testing.assert_allclose(output_scales(weight, 1.0), lengths, rtol=1e-9)
    single = output_scales(weight.astype(np.float32), 1.0)
    np.testing.assert_allclose(single, lengths, rtol=1e-6)


@pytest.mark.parametrize("weight", [np.nan, np.inf, 1e-80])
def test_a_weight_that_nothing_can_be_proved_of_is_refused(weight):
    with pytest.raises(CertificateError):
        output_scales(np.array([[1.0, weight], [0.5, 1.0]]), 1.0)


@pytest.mark.parametrize("scale", [-1.0, np.nan, np.inf])
def test_a_scale_that_is_none_is_refused(scale):
    with pytest.raises(CertificateError, match="output_scales"):
        relative_scales(1.0, np.array([1.0, scale]))


def rotated(config, seed):
    """A network, and config and weights of the same behind a rotation."""
    weights = random_weights(config, seed)
    weight, offset = rotate_head(weights["head.weight"], weights["head.offset"])
    turned = {**weights, "head.weight": weight, "head.offset": offset}
    return build_network(config, weights), replace(config, head_dtype="float32"), turned


@pytest.mark.parametrize("shape", [WAVE, ONE_COPY])
@given(seeds)
@settings(max_examples=15)
def test_a_rotated_network_gives_the_same_cosines_and_moves_within_its_scales(shape, seed):
    rng = np.random.default_rng(seed)
    plain, config, weights = rotated(shape, seed % 1000)
    network = build_network(config, weights)
    proof = network.prove()
    size = config.input_size
    x = rng.random((6, 3, size, size))
    near = np.clip(x + rng.normal(size=x.shape) * 10.0 ** rng.uniform(-3, 0), 0.0, 1.0)
    with torch.inference_mode():
        before, after, old = (
            net(torch.tensor(batch)).numpy()
            for net, batch in ((network, x), (network, near), (plain, x))
        )
    np.testing.assert_allclose(before @ before.T, old @ old.T, rtol=1e-5, atol=1e-6)
    moved = np.sqrt(((near - x) ** 2).sum(axis=(1, 2, 3)))
    slack = 2.0 * proof.forward_error
    for step, length in zip(after - before, moved, strict=True):
        # The direction in which this step is longest for its scales, and random ones.
        for difference in (step / proof.output_scales**2, *rng.normal(size=(5, step.size))):
            allowed = length * np.linalg.norm(proof.output_scales * difference)
            assert step @ difference <= allowed + slack * np.linalg.norm(difference)


def test_a_head_that_is_not_rotated_has_the_lipschitz_bound_throughout():
    proof = build_network(WAVE, random_weights(WAVE, 3)).prove()
    assert (proof.output_scales == proof.lipschitz_bound).all()


def test_a_checkpoint_keeps_scales_that_are_proved_again(tmp_path):
    _, config, weights = rotated(WAVE, 4)
    written = save_checkpoint(tmp_path / "x.safetensors", name="x", config=config, weights=weights)
    read = load_checkpoint(tmp_path / "x.safetensors")
    proof = build_network(config, weights).prove()
    assert read.output_scales == written.output_scales
    assert (np.array(read.output_scales) >= proof.output_scales).all()
    np.testing.assert_allclose(read.output_scales, proof.output_scales, rtol=1e-11)


@pytest.mark.parametrize("factor", [0.0, 1.0 - 1e-9, 2.1, np.nan, np.inf])
def test_a_scale_below_what_is_proved_or_far_above_it_is_refused(tmp_path, factor):
    _, config, weights = rotated(WAVE, 5)
    honest = save_checkpoint(tmp_path / "x.safetensors", name="x", config=config, weights=weights)
    proof = build_network(config, weights).prove()
    scales = [honest.output_scales[0] * factor, *honest.output_scales[1:]]
    with pytest.raises(CheckpointError, match=r"output_scales\[0\] .* is claimed"):
        check_claims(replace(honest, output_scales=scales), proof)
    with pytest.raises(CheckpointError, match="5 output_scales wanted, got 4"):
        check_claims(replace(honest, output_scales=honest.output_scales[1:]), proof)
    check_claims(replace(honest, output_scales=None), proof)


def test_convert_rotates_an_older_checkpoint_of_ours_and_no_other(tmp_path):
    old, new = tmp_path / "old.safetensors", tmp_path / "new.safetensors"
    honest = save_checkpoint(
        old, name="x", config=WAVE, weights=random_weights(WAVE, 6), training={"seed": 6}
    )
    done = CliRunner().invoke(convert, [str(old), str(new)])
    assert done.exit_code == 0, done.output
    before, after = Embedder.load(old), Embedder.load(new)
    assert (before.metric, after.metric) == ("isotropic", "head-aware")
    assert load_checkpoint(new).training == {"seed": 6, "rotated_from": honest.fingerprint}
    x = np.random.default_rng(0).random((5, 3, 16, 16))
    one, other = before.embed_pixels(x), after.embed_pixels(x)
    np.testing.assert_allclose(one @ one.T, other @ other.T, rtol=1e-5, atol=1e-6)
    again = CliRunner().invoke(convert, [str(old), str(new)])
    assert (again.exit_code, "--force" in again.output) == (1, True)
    published = tmp_path / "published.safetensors"
    save_checkpoint(published, name="p", config=PUBLISHED, weights=random_weights(PUBLISHED, 0))
    refused = CliRunner().invoke(convert, [str(published), str(tmp_path / "no.safetensors")])
    assert (refused.exit_code, "has no head" in refused.output) == (1, True)
