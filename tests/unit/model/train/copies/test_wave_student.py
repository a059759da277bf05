"""The trained wavelet network is the served one, at every step."""

import numpy as np
import pytest
import torch

from model.embedder import DEFAULT_CHECKPOINT
from model.errors import CheckpointError
from model.nets.checkpoint import load_checkpoint
from model.nets.network import build_network
from model.nets.presets import PRESETS
from model.train.copies import head_task
from model.train.copies.head_student import HeadStudent
from model.train.copies.wave_student import (
    HEAD_NORM,
    WaveStudent,
    initial_weights,
    nearest_orthonormal,
    orthonormalised,
    scale_head,
)
from model.train.proof import check_same

_CONFIG = PRESETS["wave-96"]
_FEATURES = 13_824


@pytest.fixture(scope="module")
def shipped():
    return load_checkpoint(DEFAULT_CHECKPOINT)


def _inputs(count=2, seed=0):
    return torch.from_numpy(np.random.default_rng(seed).random((count, 3, 96, 96)))


def test_a_student_of_the_shipped_weights_is_the_shipped_network(shipped):
    student = WaveStudent(shipped.config, shipped.weights)
    network = build_network(shipped.config, shipped.weights)
    with torch.no_grad():
        found, wanted = student(_inputs().float()).double(), network(_inputs())
    assert torch.allclose(found, wanted, rtol=0, atol=1e-4 * float(wanted.norm()))


def test_the_scattering_start_is_proved_to_be_1_lipschitz():
    weights = initial_weights(_CONFIG)
    student = WaveStudent(_CONFIG, weights)
    network = build_network(_CONFIG, student.export())
    assert network.prove().lipschitz_bound <= 1.0 + 1e-6
    check_same(student, network)


def test_whatever_a_step_does_the_student_comes_back_to_a_provable_network(shipped):
    student = WaveStudent(shipped.config, shipped.weights)
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in student.parameters():
            parameter.add_(torch.randn(parameter.shape, generator=generator), alpha=0.05)
    stretched = build_network(shipped.config, _unprojected(student))
    assert stretched.prove().lipschitz_bound > 1.5
    student.constrain()
    network = build_network(shipped.config, student.export())
    assert network.prove().lipschitz_bound <= 1.0 + 1e-6
    check_same(student, network)


def test_a_student_that_was_not_put_back_is_told_from_its_export(shipped):
    student = WaveStudent(shipped.config, shipped.weights)
    with torch.no_grad():
        student.maps[2].mul_(1.1)
    with pytest.raises(CheckpointError, match="must be the trained one"):
        check_same(student, build_network(shipped.config, student.export()))


def test_a_head_in_a_basis_is_the_head_it_stands_for(shipped):
    front = WaveStudent(shipped.config, shipped.weights)
    generator = torch.Generator().manual_seed(2)
    basis = torch.linalg.qr(torch.randn(_FEATURES, 40, generator=generator))[0]
    mix, offset = torch.randn(140, 40, generator=generator), torch.arange(140.0) / 140
    student = HeadStudent(front, basis, torch.full((_FEATURES,), 0.1), mix, offset)
    student.constrain()
    network = build_network(shipped.config, student.export())
    assert network.prove().lipschitz_bound <= 1.0 + 1e-6
    check_same(student, network)
    assert [name for name, p in student.named_parameters() if p.requires_grad] == ["mix", "offset"]


def test_a_projection_is_the_nearest_orthonormal_map():
    weight = torch.randn(3, 5, generator=torch.Generator().manual_seed(4), dtype=torch.float64)
    orthonormal = nearest_orthonormal(weight)
    assert torch.allclose(orthonormal @ orthonormal.T, torch.eye(3, dtype=torch.float64))
    u, _, v = torch.linalg.svd(weight, full_matrices=False)
    assert torch.allclose(orthonormal, u @ v)


@pytest.mark.parametrize("scale", [1e-3, 1.0, 50.0])
def test_a_head_is_scaled_to_its_norm_with_its_offset(scale):
    before = scale * torch.randn(3, 5, generator=torch.Generator().manual_seed(6))
    weight, offset = before.clone(), torch.full((3,), scale)
    scale_head(weight, offset)
    assert float(torch.linalg.matrix_norm(weight, 2)) == pytest.approx(HEAD_NORM, rel=1e-6)
    assert torch.allclose(weight / offset[0], before / scale, rtol=1e-5)


@pytest.mark.parametrize("shape", [(64, 64), (96, 192), (192, 96)])
@pytest.mark.parametrize("step", [0.0, 1e-3, 0.05, 1.0])
def test_products_alone_give_the_nearest_orthonormal_map_however_far_a_step_went(shape, step):
    noise = torch.randn(shape, generator=torch.Generator().manual_seed(5))
    weight = torch.eye(*shape) + step * noise
    wanted = nearest_orthonormal(weight.double()).float()
    assert torch.allclose(orthonormalised(weight), wanted, rtol=0, atol=2e-5)


def test_a_map_of_dependent_rows_becomes_orthonormal_too():
    found = orthonormalised(torch.ones(4, 8))
    assert torch.allclose(found @ found.T, torch.eye(4), rtol=0, atol=1e-6)


def test_a_small_step_is_undone_without_a_decomposition(shipped, monkeypatch):
    student = WaveStudent(shipped.config, shipped.weights)
    with torch.no_grad():
        for weight in student.maps:
            weight.add_(torch.randn_like(weight), alpha=1e-4)
    monkeypatch.delattr(torch.linalg, "svd")
    student.constrain()
    for weight in student.maps:
        short = weight if weight.shape[0] <= weight.shape[1] else weight.T
        assert torch.allclose(short @ short.T, torch.eye(len(short)), rtol=0, atol=2e-6)


def test_features_are_computed_where_the_front_is(shipped, monkeypatch):
    """No accelerator is needed to see that: this device computes nothing."""
    devices = []
    monkeypatch.setattr(
        WaveStudent, "features", lambda _, x: (devices.append(x.device), x.flatten(1))[1]
    )
    front = WaveStudent(shipped.config, shipped.weights).to("meta")
    head_task._features_of(front, _inputs(2).numpy())
    assert devices == [torch.device("meta")]


def _unprojected(student):
    weights = student.export()
    for name, weight in zip(
        (n for n in weights if ".maps." in n and n.endswith("weight")), student.maps, strict=True
    ):
        weights[name] = weight.detach().numpy()
    return weights


def test_a_map_that_is_nearly_orthonormal_is_projected_in_float64(monkeypatch):
    svd, seen = torch.linalg.svd, []
    monkeypatch.setattr(torch.linalg, "svd", lambda x, **o: (seen.append(x.dtype), svd(x, **o))[1])
    noise = torch.randn(192, 192, generator=torch.Generator().manual_seed(0))
    found = nearest_orthonormal(torch.eye(192) + 1e-4 * noise)
    assert seen == [torch.float64]
    assert found.dtype == torch.float32
    assert torch.allclose(found @ found.T, torch.eye(192), rtol=0, atol=1e-6)
