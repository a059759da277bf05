"""Settings that change how a step is computed, or what is kept, and not what is learnt."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from train_tools import QUICK, SMALL, outcome, quick, train

from model.nets.checkpoint import load_checkpoint
from model.train.sll_student import SllStudent


def run(out, **changes):
    """A quick run with some settings changed."""
    config = QUICK.with_changes(changes)
    with out.with_name(f"{out.name}-said").open("w") as stream:
        train(*quick("distill", config), config, out, stream=stream)
    return outcome(out)


def gradients(task_name: str, parts: int) -> dict[str, torch.Tensor]:
    student, task = quick(task_name, QUICK)
    student.parts = parts
    task.loss(student, task.batch(0, 0, 1))[0].backward()
    return {name: p.grad for name, p in student.named_parameters() if p.grad is not None}


@pytest.mark.parametrize(("task", "within"), [("distill", 1e-5), ("contrast", 1e-12)])
@pytest.mark.parametrize("parts", [2, 3])
def test_the_gradient_of_a_batch_in_parts_is_that_of_the_whole_batch(task, parts, within):
    """A root over the batch, and a loss of all pairs: neither is a sum over its parts."""
    whole, found = gradients(task, 1), gradients(task, parts)
    assert set(found) == set(whole)
    for name, value in whole.items():
        assert float((found[name] - value).norm()) <= within * float(value.norm()), name


def test_no_activation_is_kept_for_the_gradient_of_a_part():
    def kept(parts: int) -> int:
        student, sizes = SllStudent.fresh(SMALL, 0), []
        student.parts = parts
        x = torch.rand(4, 3, SMALL.input_size, SMALL.input_size)
        with torch.autograd.graph.saved_tensors_hooks(
            lambda t: (sizes.append(t.numel()), t)[1], lambda t: t
        ):
            student(x).sum()
        return sum(size for size in sizes if size >= x.numel() // 3)

    assert kept(4) == 0 < kept(1)


def test_a_run_in_parts_takes_the_same_steps(tmp_path):
    whole, parts = run(tmp_path / "whole"), run(tmp_path / "parts", accumulate=2)
    assert parts["losses"] == pytest.approx(whole["losses"], rel=1e-4)


# In a process of its own: the checker of types that tests run under cannot be traced. And by the
# tracer alone: what is made of the trace on a processor takes a minute to build.
COMPILED = """
import sys
from pathlib import Path
from torch import nn
from torch._dynamo.utils import counters
from test_train_settings import run
traced = nn.Module.compile
nn.Module.compile = lambda self: traced(self, backend="eager")
run(Path(sys.argv[1]), steps=4, validate_every=2, compile=True)
assert counters["frames"]["total"] == counters["frames"]["ok"] == 1, counters["frames"]
"""


def test_a_compiled_student_takes_the_same_steps_and_is_measured_as_it_is(tmp_path):
    plain = run(tmp_path / "plain", steps=4, validate_every=2)
    paths = os.pathsep.join([*sys.path, str(Path(__file__).parent)])
    command = [sys.executable, "-c", COMPILED, str(tmp_path / "compiled")]
    subprocess.run(command, check=True, env={**os.environ, "PYTHONPATH": paths})
    assert outcome(tmp_path / "compiled")["losses"] == pytest.approx(plain["losses"], rel=1e-5)


def test_checkpoints_on_the_way_stay_and_may_be_asked_for_later(tmp_path):
    kept = run(tmp_path / "kept", keep_every=5)
    names = sorted(path.name for path in (tmp_path / "kept").glob("step-*"))
    assert names == ["step-10.safetensors", "step-5.safetensors"]
    early, late = (load_checkpoint(tmp_path / "kept" / name) for name in reversed(names))
    assert (early.training["step"], late.training["step"]) == (5, 10)
    assert early.lipschitz_bound <= 1.0 + 1e-6
    assert early.fingerprint != late.fingerprint
    assert run(tmp_path / "none") == kept
    assert run(tmp_path / "none", keep_every=3) == kept  # no other run
