"""A student whose bound does not hold is not written, whichever way it came to be."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from train_tools import QUICK, SMALL, quick, train

from model.errors import CheckpointError
from model.nets.checkpoint import load_checkpoint
from model.nets.network import NetworkProof, build_network
from model.nets.presets import PRESETS
from model.train import proof
from model.train.copies import wave_student
from model.train.proof import (
    LARGEST_BOUND,
    check_estimate,
    network_estimate,
    probe_inputs,
    write_proved,
)
from model.train.sll_student import SllStudent, TrainableConv, TrainableLinear, initial_weights


def write(student, path):
    return write_proved(student.eval(), path, name="n", training={"a": 1}, estimate_steps=5)


def signed_conv_scaling(self: TrainableConv) -> torch.Tensor:
    """T with its abs() taken out of the sum over j."""
    inner, _, side, _ = self.kernel.shape
    moved = torch.nn.functional.unfold(self.kernel, side, padding=side - 1)
    return (self.kernel.reshape(inner, -1) @ moved).sum(dim=(0, 2)).abs()


def signed_linear_scaling(self: TrainableLinear) -> torch.Tensor:
    ratios = torch.exp(self.q)
    return (((self.weight @ self.weight.T) @ ratios) / ratios).abs()


class Boastful(SllStudent):
    """Its file says the T that it runs with."""

    def export(self):
        weights = super().export()
        for i, block in enumerate(self.convs):
            weights[f"convs.{i}.scaling"] = block.scaling().detach().double().numpy()
        for j, block in self.linear.items():
            weights[f"linear.{j}.scaling"] = block.scaling().detach().double().numpy()
        return weights


def test_a_sound_student_is_written_with_its_record_and_estimate(tmp_path):
    proved = write(SllStudent.fresh(SMALL, 0), tmp_path / "a.safetensors")
    loaded = load_checkpoint(tmp_path / "a.safetensors")
    assert loaded.fingerprint == proved.fingerprint
    estimate = loaded.training["lipschitz_estimate"]
    assert loaded.training == {"a": 1, "lipschitz_estimate": estimate}
    assert 0 < estimate <= loaded.lipschitz_bound <= LARGEST_BOUND


@pytest.mark.parametrize("kind", ["convs", "linear"])
def test_a_layer_without_its_abs_makes_training_refuse_to_write(tmp_path, monkeypatch, kind):
    """The exported T is the true one, so the exported network is not the trained one."""
    if kind == "convs":
        monkeypatch.setattr(TrainableConv, "scaling", signed_conv_scaling)
    else:
        monkeypatch.setattr(TrainableLinear, "scaling", signed_linear_scaling)
    student, task = quick("distill", QUICK)
    with (
        (tmp_path / "said").open("w") as stream,
        pytest.raises(CheckpointError, match=r"must be the trained one.*nothing was written"),
    ):
        train(student, task, QUICK, tmp_path / "run", stream=stream)
    assert not list((tmp_path / "run").glob("*.safetensors"))
    assert not (tmp_path / "run" / "report.json").exists()


@pytest.mark.parametrize("kind", ["convs", "linear"])
def test_nor_does_it_help_to_store_that_t(tmp_path, monkeypatch, kind):
    if kind == "convs":
        monkeypatch.setattr(TrainableConv, "scaling", signed_conv_scaling)
    else:
        monkeypatch.setattr(TrainableLinear, "scaling", signed_linear_scaling)
    student = Boastful(SMALL, initial_weights(SMALL, 0))
    with pytest.raises(CheckpointError, match="must be proved of a trained network, got"):
        write(student, tmp_path / "a.safetensors")
    assert not list(tmp_path.iterdir())


def test_a_student_that_forgot_a_factor_is_noticed(tmp_path):
    class Half(SllStudent):
        def forward(self, x):
            return super().forward(x) * (1 + 1e-3)

    with pytest.raises(CheckpointError, match=r"of an embedding's norm, but is 0\.001 off"):
        write(Half.fresh(SMALL, 0), tmp_path / "a.safetensors")


def test_a_student_of_nan_is_refused(tmp_path):
    student = SllStudent.fresh(SMALL, 0)
    with torch.no_grad():
        student.linear["1"].bias[0, 0] = float("nan")
    with pytest.raises(CheckpointError):
        write(student, tmp_path / "a.safetensors")
    assert not list(tmp_path.iterdir())


def test_a_measurement_above_the_bound_is_a_contradiction():
    check_estimate(1.0, 1.0)
    check_estimate(1.0 + 1e-15, 1.0)
    for estimate in (1.0 + 1e-9, float("nan")):
        with pytest.raises(
            CheckpointError, match=r"a stretch of .* was found where 1\.0 is proved"
        ):
            check_estimate(estimate, 1.0)


def test_a_proof_that_measurement_contradicts_writes_nothing(tmp_path, monkeypatch):
    """As if the proof had a mistake: the power iteration does not know of it."""
    monkeypatch.setattr(proof, "prove", lambda *_: NetworkProof(1e-3, 1e-9, np.full(2, 1e-3)))
    with pytest.raises(CheckpointError, match=r"was found where 0\.001 is proved"):
        write(SllStudent.fresh(SMALL, 0), tmp_path / "a.safetensors")
    assert not list(tmp_path.iterdir())


@given(st.integers(0, 10**6))
@settings(max_examples=3, deadline=None)
def test_the_estimate_is_the_largest_singular_value_of_the_derivative(seed):
    network = build_network(SMALL, SllStudent.fresh(SMALL, seed).export())
    x = torch.from_numpy(probe_inputs(SMALL)[:1])
    found = network_estimate(network, x.numpy(), steps=60, seed=seed)
    jacobian = torch.autograd.functional.jacobian(network, x).reshape(8, -1)
    largest = float(torch.linalg.svdvals(jacobian)[0])
    assert found <= largest * (1 + 1e-12)
    assert found == pytest.approx(largest, rel=3e-2)


def test_a_wavelet_student_passes_the_same_gate(tmp_path):
    config = PRESETS["wave-96"]
    student = wave_student.WaveStudent(config, wave_student.initial_weights(config))
    proved = write(student, tmp_path / "a.safetensors")
    assert 0.9 < proved.training["lipschitz_estimate"] <= proved.lipschitz_bound <= LARGEST_BOUND
    with torch.no_grad():
        student.maps[2].mul_(1.01)  # no longer orthonormal, which its export would hide
    with pytest.raises(CheckpointError, match="must be the trained one"):
        write(student, tmp_path / "b.safetensors")


def test_probe_inputs_fit_every_preset():
    for config in PRESETS.values():
        x = probe_inputs(config)
        assert x.shape == (3, 3, config.input_size, config.input_size)
        assert 0.0 <= x.min() < 0.3
        assert 0.7 < x.max() <= 1.0
        assert np.isfinite(x).all()
