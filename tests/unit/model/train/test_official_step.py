"""Acceptance: one step of lipsim-small is the published step, by a reference of the formulas alone.

The reference knows nothing of the student: float64, einsum and explicit shifts, T as written in the
published code (each convolution's exp(-q) G exp(q) included, though q cancels).
"""

import dataclasses
import sys

import pytest
import torch
from torch.utils.checkpoint import checkpoint
from train_tools import Shown, train

from model.nets.presets import PRESETS, PublishedConfig
from model.teachers.precomputed import PrecomputedEmbeddings
from model.train.config import load_recipe
from model.train.distill import DistillTask
from model.train.run_folder import RunFolder
from model.train.sll_student import SllStudent
from model.train.views import two_views

REDUCED = PublishedConfig(3, 5, 2, 2, 7, 12, input_size=32)


def shifted(x: torch.Tensor, down: int, right: int) -> torch.Tensor:
    """x at (row + down, column + right), zeros beyond the edges."""
    size = x.shape[-1]
    padded = torch.nn.functional.pad(x, (2, 2, 2, 2))
    return padded[..., 2 + down : 2 + down + size, 2 + right : 2 + right + size]


def conv_scaling(kernel: torch.Tensor, q: torch.Tensor) -> torch.Tensor:
    """sum over j, u, v of |exp(-q_i) G_ijuv exp(q_i)|, G the full correlation of the kernels."""
    gram = torch.nn.functional.conv2d(kernel, kernel, padding=2)
    weighted = torch.exp(-q)[:, None, None, None] * gram * torch.exp(q)[:, None, None, None]
    return weighted.abs().sum(dim=(1, 2, 3))


TAPS = [(a, b) for a in range(3) for b in range(3)]


def conv_block(x, kernel, bias, q) -> torch.Tensor:
    """x - 2 W^T T^-1 relu(W x + b), convolutional."""
    inner = bias + sum(
        torch.einsum("ic,ncyx->niyx", kernel[:, :, a, b], shifted(x, a - 1, b - 1)) for a, b in TAPS
    )
    s = inner.clamp(min=0) / conv_scaling(kernel, q)[:, None, None]
    return x - 2 * sum(
        torch.einsum("ic,niyx->ncyx", kernel[:, :, a, b], shifted(s, 1 - a, 1 - b)) for a, b in TAPS
    )


def linear_block(x, a, bias, q) -> torch.Tensor:
    """x - 2 A^T T^-1 relu(A x + b)."""
    gram = torch.einsum("in,jn->ij", a, a)
    scaling = (torch.exp(-q)[:, None] * gram * torch.exp(q)[None]).abs().sum(1)
    inner = torch.einsum("in,bn->bi", a, x) + bias
    return x - 2 * torch.einsum("in,bi->bn", a, inner.clamp(min=0) / scaling)


def embed(config: PublishedConfig, w: dict[str, torch.Tensor], x: torch.Tensor) -> torch.Tensor:
    """The published forward pass; each block runs again for its gradient, to save memory."""
    empty = x.new_zeros(len(x), config.channels - 3, *x.shape[2:])
    x = torch.cat([x, empty], dim=1)
    for i in range(config.depth):
        block = [w[f"convs.{i}.{part}"] for part in ("kernel", "bias", "q")]
        x = checkpoint(conv_block, x, *block, use_reentrant=False)
    for _ in range(2):
        n, c, side, _ = x.shape
        x = x.reshape(n, c, side // 4, 4, side // 4, 4).sum(dim=(3, 5)) / 4
    x = x.reshape(len(x), -1)
    for j in range(1, config.linear_depth + 1):
        block = [w[f"linear.{j}.{part}"] for part in ("weight", "bias", "q")]
        x = checkpoint(linear_block, x, *block, use_reentrant=False)
    return x[:, : config.embedding_dim]


def published_loss(config, w, plain, edited, targets) -> torch.Tensor:
    """The mean over both views of the root of the mean squared error over batch and dimensions."""
    errors = [embed(config, w, view) - targets for view in (plain, edited)]
    return sum(error.square().mean().sqrt() for error in errors) / 2


def reference_step(config, student, plain, edited, targets):
    """Loss and every gradient, in float64."""
    w = {
        name: value.detach().double().clone().requires_grad_()
        for name, value in student.state_dict().items()
    }
    loss = published_loss(config, w, plain.double(), edited.double(), targets.double())
    loss.backward()
    return float(loss.detach()), {name: value.grad for name, value in w.items()}


def task_for(config: PublishedConfig, batch_size: int, targets: torch.Tensor) -> DistillTask:
    """The real task of the real recipe; only its teacher is a table."""

    class Table(PrecomputedEmbeddings):
        def __init__(self):
            self.name, self.dim, self.record = "table", config.embedding_dim, {}

        def rows(self, ids):
            return targets[[int(one[:3]) for one in ids]].numpy()

    shown = Shown(batch_size + 1, side=config.input_size)
    recipe = load_recipe("lipsim-small").with_changes({"batch_size": batch_size})
    return DistillTask(recipe, shown, shown, Table(), input_size=config.input_size)


def check(
    config: PublishedConfig,
    batch_size: int,
    dtype: torch.dtype,
    *,
    loss_within: float,
    gradient_within: float,
) -> None:
    """Loss and gradients of the recipe's own loss against the reference's."""
    random = torch.Generator().manual_seed(5)
    targets = torch.rand(batch_size + 1, config.embedding_dim, generator=random)
    task = task_for(config, batch_size, targets)
    batch = task.batch(0, 0, 1)
    batch["square"] = batch["square"] / 255
    batch |= {name: batch[name].to(dtype) for name in ("square", "amounts", "targets")}
    student = SllStudent.fresh(config, seed=2)
    wanted_loss, wanted = reference_step(config, student, *two_views(batch), batch["targets"])
    student = student.to(dtype)
    loss, _ = task.loss(student, batch)
    loss.backward()
    assert float(loss.detach()) == pytest.approx(wanted_loss, rel=loss_within)
    for name, parameter in student.named_parameters():
        if name.startswith("convs") and name.endswith("q"):  # it cancels, so nobody trains it
            assert float(wanted[name].abs().max()) <= 1e-12 * wanted_loss
            continue
        off = (parameter.grad.double() - wanted[name]).norm()
        # In float32 a small gradient is the difference of large ones: the whole is the measure.
        whole = sum(float(value.norm()) ** 2 for value in wanted.values()) ** 0.5
        scale = float(wanted[name].norm()) if dtype == torch.float64 else whole
        assert float(off) <= gradient_within * scale, name


@pytest.mark.parametrize(
    ("dtype", "loss_within", "gradient_within"),
    [(torch.float64, 1e-12, 1e-10), (torch.float32, 1e-6, 1e-5)],
)
def test_loss_and_gradient_are_the_published_ones(dtype, loss_within, gradient_within):
    check(REDUCED, 6, dtype, loss_within=loss_within, gradient_within=gradient_within)


def test_loss_and_gradient_are_the_published_ones_at_the_true_depth():
    """`small` but for its resolution and the width of its linear blocks."""
    shape = dataclasses.replace(PRESETS["small"], features=64, embedding_dim=128, input_size=32)
    check(shape, 2, torch.float64, loss_within=1e-12, gradient_within=1e-10)


def test_the_references_own_gradient_is_a_gradient():
    """Or two equal mistakes would agree: differences along random directions."""
    student = SllStudent.fresh(REDUCED, seed=2)
    random = torch.Generator().manual_seed(1)
    plain, edited = torch.rand(2, 3, 3, 32, 32, generator=random, dtype=torch.float64)
    views = plain, edited, torch.rand(3, 12, generator=random, dtype=torch.float64)
    _, gradient = reference_step(REDUCED, student, *views)
    w = {name: value.double() for name, value in student.state_dict().items()}
    for name, value in w.items():
        direction = torch.randn(value.shape, generator=random, dtype=torch.float64)
        ends = [
            float(published_loss(REDUCED, {**w, name: value + step * direction}, *views))
            for step in (1e-6, -1e-6)
        ]
        found = float((gradient[name] * direction).sum())
        assert (ends[0] - ends[1]) / 2e-6 == pytest.approx(found, rel=1e-5, abs=1e-8), name


def test_the_trainer_takes_the_published_adam_step(tmp_path):
    """Adam's first step is lr g / (|g| + 1e-8), lr the first of the warm-up: 0.01 / 2000."""
    recipe = load_recipe("lipsim-small").with_changes(
        {"batch_size": 4, "steps": 1, "workers": 0, "tensorboard": False, "estimate_steps": 2}
    )
    targets = torch.rand(5, 12, generator=torch.Generator().manual_seed(5))
    task = task_for(REDUCED, 4, targets)
    student = SllStudent.fresh(REDUCED, seed=2)
    before = {name: value.clone() for name, value in student.state_dict().items()}
    batch = task.batch(0, 0, 1)
    _, gradient = reference_step(REDUCED, student, *two_views(batch), batch["targets"])
    with (tmp_path / "said").open("w") as stream:
        train(student, task, recipe, tmp_path / "run", stream=stream)
    state = RunFolder(tmp_path / "run").load_state()
    assert state is not None
    for name, value in state["student"].items():
        g = gradient[name]
        wanted = before[name].double() - 0.01 / 2000 * g / (g.abs() + 1e-8)
        if name.startswith("convs") and name.endswith("q"):
            wanted = before[name].double()
        moved = g.abs() > 1e-5  # below, float32's rounding of a gradient decides its sign
        off = (value.double() - wanted)[moved].abs().max() if moved.any() else torch.zeros(())
        assert float(off) <= 1e-6 * float(before[name].abs().max()), name


if __name__ == "__main__":  # 63 M parameters: minutes and 7 GB, see docs/training.md
    check(PRESETS["small"], 1, torch.float64, loss_within=1e-12, gradient_within=1e-10)
    sys.stdout.write("small: loss within 1e-12, every gradient within 1e-10\n")
