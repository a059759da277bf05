"""Whole runs of small networks: averaging, the best against the last, refusals, records."""

import json
import multiprocessing
from typing import Any

import numpy as np
import pytest
import torch
from image_files import encoded, photo
from threadpoolctl import threadpool_info, threadpool_limits
from train_tools import QUICK, SMALL, LinearTeacher, Shown, outcome, quick, train

from model.data.triplets import Triplet
from model.errors import DataError, RetrievalError, TrainingError
from model.nets.checkpoint import load_checkpoint
from model.train.batches import batches
from model.train.distill import DistillTask
from model.train.distributed import World
from model.train.finetune import FinetuneTask
from model.train.run_folder import RunFolder
from model.train.sll_student import SllStudent
from model.train.task import student_of


class Scripted:
    """A task whose losses and scores are written down."""

    examples = 4

    def __init__(self, scores: list[float], losses: dict[int, float] | None = None) -> None:
        self.scores, self.losses = scores, losses or {}
        self._asked = iter(scores)

    def identity(self) -> dict[str, Any]:
        return {"kind": "scripted"}

    def batch(self, step: int, rank: int, world: int) -> dict[str, torch.Tensor]:  # noqa: ARG002
        inputs = torch.from_numpy(np.random.default_rng(step).random((2, 3, 32, 32))).float()
        return {"step": torch.tensor(step), "inputs": inputs}

    def loss(self, student, batch):
        loss = student(batch["inputs"]).square().mean()
        return loss * self.losses.get(int(batch["step"]), 1.0), {"one": 1}

    def validate(self, student):  # noqa: ARG002
        return {"score": next(self._asked)}


def run(task, out, config=QUICK, student=None):
    said = out.with_name(f"{out.name}-said")
    with said.open("w") as stream:
        checkpoint = train(student or SllStudent.fresh(SMALL, 0), task, config, out, stream=stream)
    return checkpoint, said.read_text()


def test_distillation_learns_and_leaves_a_record(tmp_path):
    config = QUICK.with_changes({"steps": 30, "validate_every": 10})
    student, task = quick("distill", config)
    before = task.validate(student.eval())["score"]
    checkpoint, said = run(task, tmp_path, config, student)
    record = checkpoint.training
    assert record["scores"]["score"] > 0.5 * before  # an error, negated
    assert record["config"] == config.to_json()
    assert record["data"]["training_pictures"] == 10
    assert record["data"]["targets"]["teacher"] == "linear"
    assert record["step"] == 30
    assert set(record["versions"]) == {"python", "torch", "numpy", "lipsim-retrieval"}
    assert "step 30 of 30" in said
    report = json.loads((tmp_path / "report.json").read_text())
    assert report["best"]["fingerprint"] == checkpoint.fingerprint
    assert report["best"]["lipschitz_estimate"] <= report["best"]["lipschitz_bound"] <= 1 + 1e-6
    loaded = load_checkpoint(tmp_path / "best.safetensors")
    found = task.validate(student_of(loaded.config, loaded.weights).eval())
    assert found["score"] == pytest.approx(record["scores"]["score"], rel=1e-5)


def test_the_best_validation_is_kept_when_the_last_is_worse_and_both_are_named(tmp_path):
    # Validated at steps 4 and 8; then the last.
    _, said = run(Scripted([0.9, 0.3, 0.2]), tmp_path)
    report = json.loads((tmp_path / "report.json").read_text())
    assert (report["best"]["step"], report["last"]["step"]) == (4, 12)
    assert (report["best"]["scores"], report["last"]["scores"]) == ({"score": 0.9}, {"score": 0.2})
    assert report["best"]["fingerprint"] != report["last"]["fingerprint"]
    assert "best.safetensors has the weights of step 4, which validated best" in said
    assert "last.safetensors those of the last step, which a published recipe keeps" in said
    state = RunFolder(tmp_path).load_best()
    assert state is not None
    kept = load_checkpoint(tmp_path / "best.safetensors").weights["linear.1.weight"]
    assert np.array_equal(kept, state.weights["linear.1.weight"].numpy())


def test_the_last_is_kept_when_it_is_the_best(tmp_path):
    run(Scripted([0.1, 0.2, 0.3]), tmp_path)
    report = json.loads((tmp_path / "report.json").read_text())
    assert report["best"] == report["last"]
    best, last = ((tmp_path / f"{name}.safetensors").read_bytes() for name in ("best", "last"))
    assert best == last


def test_what_is_kept_is_the_average_of_the_weights(tmp_path):
    plain = QUICK.with_changes({"ema_decay": 0, "validate_every": 0})
    averaged = QUICK.with_changes({"ema_decay": 0.8, "validate_every": 0})
    run(quick("distill", plain)[1], tmp_path / "plain", plain)
    run(quick("distill", averaged)[1], tmp_path / "averaged", averaged)
    states = [RunFolder(tmp_path / name).load_state() for name in ("plain", "averaged")]
    assert states[0] is not None
    assert states[1] is not None
    name = "linear.1.weight"
    assert torch.equal(states[0]["student"][name], states[1]["student"][name])
    kept = load_checkpoint(tmp_path / "averaged" / "best.safetensors").weights[name]
    assert np.array_equal(kept, states[1]["average"][name].numpy())
    assert not np.array_equal(kept, states[1]["student"][name].numpy())


def test_a_loss_of_nan_names_its_step_and_keeps_the_last_good_state(tmp_path):
    with pytest.raises(TrainingError, match=r"step 9: the loss is nan .* lower learning_rate"):
        run(Scripted([0.1, 0.2], losses={8: float("nan")}), tmp_path)
    state = RunFolder(tmp_path).load_state()
    assert state is not None
    assert state["step"] == 8  # of the validation
    assert all(bool(value.isfinite().all()) for value in state["student"].values())
    assert not (tmp_path / "best.safetensors").exists()


def test_a_run_killed_while_it_validates_validates_that_step_again(tmp_path):
    class Killed(Scripted):
        def validate(self, _):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(Killed([]), tmp_path)
    _, said = run(Scripted([0.9, 0.3, 0.2]), tmp_path)
    assert "going on from step 4" in said
    assert outcome(tmp_path)["validations"] == [(4, 0.9), (8, 0.3)]
    assert outcome(tmp_path)["best"][0] == 4


def test_every_step_and_every_average_ends_on_the_set_where_the_bound_holds(tmp_path):
    class Positive(SllStudent):
        """Its biases must not be negative."""

        @torch.no_grad()
        def constrain(self):
            for block in self.linear.values():
                block.bias.clamp_(min=0)

    task = quick("distill", QUICK)[1]
    run(task, tmp_path, QUICK, Positive.fresh(SMALL, 0))
    state = RunFolder(tmp_path).load_state()
    assert state is not None
    assert float(state["student"]["linear.1.bias"].min()) == 0.0
    assert float(state["average"]["linear.1.bias"].min()) < 0.0  # it began with all draws
    kept = load_checkpoint(tmp_path / "last.safetensors").weights["linear.1.bias"]
    assert kept.min() == 0.0


def test_a_score_of_nan_is_refused(tmp_path):
    with pytest.raises(TrainingError, match="step 4: validation gave score nan"):
        run(Scripted([float("nan")]), tmp_path)


def test_gradients_are_clipped_and_their_norm_is_logged_as_it_was(tmp_path):
    config = QUICK.with_changes({"grad_clip_norm": 1e-9, "optimizer": "adamw", "steps": 2})
    student = SllStudent.fresh(SMALL, 0)
    before = {name: value.clone() for name, value in student.state_dict().items()}
    task = quick("distill", config)[1]
    run(task, tmp_path, config, student)
    lines = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert all(line["gradient_norm"] > 1e-3 for line in lines if line["kind"] == "train")
    state = RunFolder(tmp_path).load_state()
    assert state is not None
    moved = max(
        float((state["student"][name] - value).abs().max()) for name, value in before.items()
    )
    # Adam divides by |g| + 1e-8, so steps of gradients of 1e-9 are at most a tenth of the rate.
    assert 0 < moved < 0.11 * 2 * config.learning_rate


def test_a_run_limited_by_time_ends_cleanly_in_that_time(tmp_path):
    config = QUICK.with_changes({"steps": 0, "minutes": 0.01, "validate_every": 0})
    _, said = run(quick("distill", config)[1], tmp_path, config)
    report = json.loads((tmp_path / "report.json").read_text())
    assert 0.5 < report["seconds"] < 10
    assert report["last"]["step"] >= 1
    rates = [
        json.loads(line)["learning_rate"]
        for line in (tmp_path / "metrics.jsonl").read_text().splitlines()
    ]
    assert rates[-1] < rates[len(rates) // 2]
    assert "left" in said


def test_a_run_without_an_end_is_refused(tmp_path):
    with pytest.raises(TrainingError, match="set steps, epochs or minutes"):
        run(Scripted([]), tmp_path, QUICK.with_changes({"steps": 0}))


def test_a_state_of_another_network_is_refused(tmp_path):
    nothing = {name: {} for name in ("student", "optimizer", "average")}
    RunFolder(tmp_path).save_state({"step": 1, "seconds": 0.0, **nothing})
    with pytest.raises(TrainingError, match=r"state\.pt is damaged: RuntimeError.*Missing"):
        run(Scripted([]), tmp_path)


@pytest.mark.parametrize(("greedy", "workers"), [("loss", 0), ("batch", 0), ("batch", 1)])
def test_a_step_that_finds_no_memory_says_what_to_set(tmp_path, greedy, workers):
    class Greedy(Scripted):
        def loss(self, student, batch):
            if greedy == "loss":
                torch.empty(10**15)
            return super().loss(student, batch)

        def batch(self, step, rank, world):
            if greedy == "batch":
                np.empty(10**15)
            return super().batch(step, rank, world)

    config = QUICK.with_changes({"workers": workers})
    with pytest.raises(TrainingError, match=r"step of batch_size 4 does not fit .* a smaller one"):
        run(Greedy([]), tmp_path, config)


def test_an_error_that_is_not_about_memory_is_not_taken_for_one(tmp_path):
    class Broken(Scripted):
        def loss(self, *_):
            raise RuntimeError("shapes do not match")

    with pytest.raises(RuntimeError, match="shapes do not match"):
        run(Broken([]), tmp_path)


def test_short_arithmetic_trains_to_about_the_same_place(tmp_path):
    config = QUICK.with_changes({"precision": "bfloat16"})
    run(quick("distill", config)[1], tmp_path / "short", config)
    run(quick("distill", QUICK)[1], tmp_path / "full")
    short, full = (outcome(tmp_path / name)["losses"] for name in ("short", "full"))
    assert short != full
    assert short == pytest.approx(full, rel=0.05)


def test_the_teacher_of_a_step_is_as_short_as_the_student_and_that_of_a_validation_never():
    seen = []

    class Noting(LinearTeacher):
        def embed(self, x):
            found = super().embed(x)
            seen.append(found.dtype)
            return found.float()

    config, shown = QUICK.with_changes({"precision": "bfloat16"}), Shown(6)
    task = DistillTask(config, shown, shown, Noting(), input_size=32)
    student = SllStudent.fresh(SMALL, 0)
    task.loss(student, task.batch(0, 0, 1))
    task.validate(student.eval())
    assert seen == [torch.bfloat16, torch.float32, torch.float32]  # validated in two parts


def test_batches_made_by_other_processes_are_the_same_and_their_errors_arrive_whole():
    task = quick("distill", QUICK)[1]

    def taken(workers: int) -> list[dict[str, torch.Tensor]]:
        config = QUICK.with_changes({"steps": 6, "workers": workers})
        return list(batches(task, World(), 3, config, device="cpu"))

    for ours, theirs in zip(taken(0), taken(1), strict=True):
        assert all(torch.equal(ours[name], theirs[name]) for name in ours)

    class Bad(Scripted):
        def batch(self, *_):
            raise DataError("pictures/007.png: truncated")

    with pytest.raises(DataError, match=r"^pictures/007\.png: truncated$"):
        list(batches(Bad([]), World(), 0, QUICK.with_changes({"workers": 1}), device="cpu"))


def test_a_task_that_cannot_be_pickled_has_worker_processes_on_every_python():
    """From Python 3.14 on, worker processes are no forks unless they are asked to be."""
    task = quick("distill", QUICK)[1]
    task.unpicklable = lambda: None
    before = multiprocessing.get_start_method()
    multiprocessing.set_start_method("forkserver", force=True)
    try:
        config = QUICK.with_changes({"workers": 1, "steps": 1})
        (batch,) = batches(task, World(), 0, config, device="cpu")
    finally:
        multiprocessing.set_start_method(before, force=True)
    assert set(batch) == {"square", "mirrored", "order", "amounts"}


def test_a_worker_has_one_thread_and_sends_pictures_in_8_bits():
    class Counting(DistillTask):
        def batch(self, step, rank, world):
            threads = [one["num_threads"] for one in threadpool_info()]
            made = super().batch(step, rank, world)
            return made | {"threads": torch.tensor([*threads, torch.get_num_threads()])}

    shown, config = Shown(6), QUICK.with_changes({"framing": "center-crop", "workers": 1})
    task = Counting(config, shown, shown, LinearTeacher(), input_size=32)
    with threadpool_limits(2, user_api="blas"):
        batch = next(batches(task, World(), 0, config, device="cpu"))
    assert set(batch["threads"].tolist()) == {1}
    assert batch["square"].dtype == torch.uint8


def test_batches_are_moved_to_the_device():
    made = batches(Scripted([]), World(), 0, QUICK, device="meta")
    assert all(value.is_meta for value in next(made).values())


def test_a_teacher_with_a_larger_input_sees_it_and_the_student_sees_it_shrunk():
    class Large(LinearTeacher):
        input_size = 64

        def embed(self, x):
            assert x.shape[-1] == 64
            return super().embed(torch.nn.functional.avg_pool2d(x, 2))

    shown = Shown(6, side=64)
    task = DistillTask(QUICK, shown, shown, Large(), input_size=32)
    student = SllStudent.fresh(SMALL, 0)
    loss, details = task.loss(student, task.batch(0, 0, 1))
    assert bool(loss.isfinite())
    assert set(details) == {"embedding_norm"}
    assert task.validate(student.eval())["score"] < 0


def triplets(root, count: int, split: str) -> list[Triplet]:
    """One side is the reference darkened, the other upside down; people prefer the latter."""
    made = []
    for i in range(count):
        pixels = {"ref": photo(40, 44, i), "dark": photo(40, 44, i) // 2}
        pixels["flipped"] = photo(40, 44, i)[::-1]
        for name, value in pixels.items():
            (root / f"{split}{i}{name}.png").write_bytes(encoded(value, "PNG"))
        sides = ("dark", "flipped") if i % 2 else ("flipped", "dark")
        files = [root / f"{split}{i}{name}.png" for name in ("ref", *sides)]
        made.append(Triplet(str(i), *files, float(i % 2), 6, split))
    return made


@pytest.mark.parametrize(("objective", "margin"), [("hinge", 0.4), ("radius", 1.0)])
def test_fine_tuning_learns_what_people_chose(tmp_path, objective, margin):
    changes = {"objective": objective, "margin": margin, "steps": 24, "learning_rate": 0.01}
    more = {"task": "finetune", "schedule": "triangular", "validate_every": 0}
    config = QUICK.with_changes({**changes, **more})
    task = FinetuneTask(
        config, triplets(tmp_path, 12, "train"), triplets(tmp_path, 6, "val"), input_size=32
    )
    student = SllStudent.fresh(SMALL, 1)
    before = task.validate(student.eval())
    _, said = run(task, tmp_path / "run", config, student)
    after = json.loads((tmp_path / "run" / "report.json").read_text())["best"]["scores"]
    assert after["score"] > before["score"]
    assert 1 >= after["natural"] >= after["certified_0.141"] >= after["certified_1.000"] >= 0
    losses = outcome(tmp_path / "run")["losses"]
    assert np.mean(losses[-5:]) < np.mean(losses[:5])
    assert "natural" in said


def test_a_triplet_with_a_bad_picture_is_refused_by_name_before_the_first_step(tmp_path):
    good, bad = triplets(tmp_path, 3, "train"), triplets(tmp_path, 3, "val")
    bad[1].left.write_bytes(b"not a picture")
    task = FinetuneTask(QUICK, good, bad, input_size=32)
    with pytest.raises(DataError, match=bad[1].left.name):
        task.check()
    with pytest.raises(TrainingError, match="got 3 and 0"):
        FinetuneTask(QUICK, good, [], input_size=32)


def test_validation_pictures_are_decoded_once(tmp_path):
    task = FinetuneTask(
        QUICK, triplets(tmp_path, 3, "train"), triplets(tmp_path, 6, "val"), input_size=32
    )
    student = SllStudent.fresh(SMALL, 1).eval()
    first = task.validate(student)
    for path in tmp_path.glob("val*"):
        path.unlink()
    assert task.validate(student) == first


def test_a_vote_that_was_changed_is_other_data(tmp_path):
    made = triplets(tmp_path, 2, "train")
    task = FinetuneTask(QUICK, made, made, input_size=32)
    changed = [made[0], Triplet(**{**vars(made[1]), "vote": 0.25})]
    other = FinetuneTask(QUICK, changed, made, input_size=32)
    unlike = {k for k, v in task.identity().items() if other.identity()[k] != v}
    assert unlike == {"training_sha256"}


def test_every_error_of_a_run_is_one_of_ours():
    assert issubclass(TrainingError, RetrievalError)
