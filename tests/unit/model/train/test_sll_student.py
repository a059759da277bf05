"""The trainable published network: the official outputs, T in every pass, gradients everywhere."""

import numpy as np
import pytest
import torch
from paths import DATA
from train_tools import SMALL

from model.convert import convert_official
from model.nets.network import build_network, tensor_specs
from model.nets.presets import PRESETS
from model.nets.published import published_scalings
from model.train import sll_student
from model.train.sll_student import SllStudent, initial_weights, inverse


def inputs(count: int = 3, side: int = 32) -> torch.Tensor:
    return torch.from_numpy(np.random.default_rng(0).random((count, 3, side, side)))


def test_the_official_code_gives_these_embeddings(tmp_path):
    official = convert_official(DATA / "official_tiny.pt", tmp_path / "tiny.safetensors")
    with np.load(DATA / "official_tiny.npz") as arrays:
        pixels, wanted = arrays["input_u8"] / 255.0, arrays["embed_f64"]
    student = SllStudent(official.config, official.weights).double()
    with torch.no_grad():
        found = student(torch.from_numpy(pixels)).numpy()
    off = np.linalg.norm(found - wanted, axis=1) / np.linalg.norm(wanted, axis=1)
    assert off.max() <= 1e-10


def test_what_is_exported_is_what_was_trained_and_goes_back():
    student = SllStudent.fresh(SMALL, 3)
    weights = student.export()
    specs = tensor_specs(SMALL)
    assert {k: (v.shape, str(v.dtype)) for k, v in weights.items()} == specs
    network = build_network(SMALL, weights)
    with torch.no_grad():
        exported, trained = network(inputs()), student(inputs().float()).double()
    assert float((exported - trained).norm() / exported.norm()) < 1e-6
    again = SllStudent(SMALL, weights).export()
    assert all(np.array_equal(again[name], value) for name, value in weights.items())


def test_the_t_of_a_pass_is_the_t_that_is_proved():
    weights = initial_weights(SMALL, 5)
    student, proved = SllStudent(SMALL, weights), published_scalings(SMALL, weights)
    for i, block in enumerate(student.convs):
        found = block.scaling().detach().double().numpy()
        assert found == pytest.approx(proved[f"convs.{i}.scaling"], rel=1e-6)
    for j, block in student.linear.items():
        found = block.scaling().detach().double().numpy()
        assert found == pytest.approx(proved[f"linear.{j}.scaling"], rel=1e-6)


def test_every_parameter_is_taught_but_the_dead_q():
    student = SllStudent.fresh(SMALL, 1)
    student(inputs().float()).square().sum().backward()
    for name, parameter in student.named_parameters():
        dead = name.startswith("convs") and name.endswith("q")
        assert parameter.requires_grad is not dead
        assert dead or float(parameter.grad.abs().max()) > 0, name


def test_a_convolution_keeps_its_input_and_its_inner_values_for_the_gradient_and_no_more():
    """Its cost on an accelerator is that of passing over activations."""
    block = SllStudent.fresh(SMALL, 1).convs[0]
    x, kept = torch.rand(2, SMALL.channels, 32, 32, requires_grad=True), {}
    with torch.autograd.graph.saved_tensors_hooks(
        lambda t: kept.setdefault(t.data_ptr(), t), lambda t: t
    ):
        out = x + block(x)
    activations = sorted(t.shape[1] for t in kept.values() if t.shape[-1] == 32)
    assert activations == sorted([SMALL.channels, SMALL.inner])
    assert out.shape == x.shape


def test_a_row_of_zeros_is_left_out_and_harms_no_gradient():
    weights = initial_weights(SMALL, 2)
    weights["linear.1.weight"][2] = 0
    weights["convs.0.kernel"][1] = 0
    student = SllStudent(SMALL, weights | published_scalings(SMALL, weights))
    student(inputs().float()).square().sum().backward()
    for name, parameter in student.named_parameters():
        assert parameter.grad is None or bool(parameter.grad.isfinite().all()), name
    assert inverse(torch.tensor([0.0, 4.0])).tolist() == [0.0, 0.25]


def test_no_step_of_training_leaves_the_safe_side():
    """After wild steps the Jacobian's largest singular value is still at most 1."""
    student = SllStudent.fresh(SMALL, 4)
    optimizer = torch.optim.SGD(student.parameters(), lr=0.05)
    for _ in range(25):
        optimizer.zero_grad()
        (-student(inputs().float()).square().sum()).backward()
        torch.nn.utils.clip_grad_norm_(student.parameters(), 1.0)
        optimizer.step()
    student.double().requires_grad_(requires_grad=False)
    jacobian = torch.func.jacrev(lambda x: student(x[None])[0])(inputs(1)[0]).reshape(8, -1)
    assert 0.01 < float(torch.linalg.svdvals(jacobian)[0]) <= 1.0 + 1e-12


def test_short_arithmetic_is_for_products_while_training_alone():
    student = SllStudent.fresh(SMALL, 6)
    exact = student(inputs().float())
    student.bfloat16 = True
    short = student(inputs().float())
    assert short.dtype == torch.float32
    assert 1e-5 < float((short - exact).detach().norm() / exact.detach().norm()) < 0.05
    with student.arithmetic(exact):
        assert all(block.scaling().dtype == torch.float32 for block in student.convs)
        scaling = student.linear["1"].scaling()
    assert torch.equal(scaling, student.linear["1"].scaling())
    short.square().sum().backward()
    assert all(p.grad is None or p.grad.dtype == torch.float32 for p in student.parameters())
    student.eval()
    assert torch.equal(student(inputs().float()), exact)


def test_a_fresh_student_computes_no_scaling_that_it_throws_away(monkeypatch):
    """In float64 T costs more than a step of training, and a student computes its own."""
    monkeypatch.delattr(sll_student, "published_scalings")
    assert set(dict(SllStudent.fresh(SMALL, 0).named_parameters())) == set(
        initial_weights(SMALL, 0)
    )


def test_initial_draws_are_xavier_normal_and_repeat():
    config = PRESETS["tiny"]
    weights = initial_weights(config, 0)
    again = initial_weights(config, 0)
    assert all(np.array_equal(again[name], value) for name, value in weights.items())
    assert not np.array_equal(initial_weights(config, 1)["linear.1.q"], weights["linear.1.q"])
    spread = np.sqrt(2 / (config.width + config.features))
    assert weights["linear.1.weight"].std() == pytest.approx(spread, rel=0.02)
    kernels = np.concatenate([weights[f"convs.{i}.kernel"].ravel() for i in range(config.depth)])
    fans = 9 * (config.channels + config.inner)
    assert kernels.std() == pytest.approx(np.sqrt(2 / fans), rel=0.1)
    biases = np.concatenate([weights[f"linear.{j}.bias"].ravel() for j in (1, 2)])
    assert 0.9 < np.abs(biases).max() * np.sqrt(config.width) <= 1.0
    assert weights["linear.1.q"].std() == pytest.approx(1.0, abs=0.3)
