"""Times the stages of a training step side by side: `python benchmarks/training.py`.

Wall time, the options of a stage in turn, the median of several rounds after one to warm up. With
`--device cuda --preset small --batch 32 --compile` it measures an accelerator.
"""

import argparse
import copy
import statistics
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path

import torch
from pixels import encoded, photo

from model.data.pictures import open_pictures
from model.nets.presets import PRESETS
from model.teachers.load import load_teacher
from model.train.batches import batches
from model.train.config import TrainConfig, load_recipe
from model.train.copies.head_student import HeadStudent
from model.train.copies.objective import copies_loss
from model.train.copies.wave_student import WaveStudent, initial_weights
from model.train.distill import DistillTask
from model.train.distributed import World
from model.train.run_folder import RunFolder
from model.train.state import TrainingState
from model.train.student import Student
from model.train.task import fresh_student
from model.train.views import two_views

Passes = Mapping[str, Callable[[], object]]
Loss = Callable[[Student], torch.Tensor]
_PICTURES, _BATCHES = 64, 20


def report(
    stage: str, pictures: int, passes: Passes, arguments: argparse.Namespace, steps: int = 1
) -> None:
    """A line for each option of a stage; a pass is of so many steps of so many pictures."""
    times: dict[str, list[float]] = {name: [] for name in passes}
    for turn in range(arguments.rounds + 1):
        for name, run in passes.items():
            start = time.perf_counter()
            run()
            if arguments.device.startswith("cuda"):
                torch.cuda.synchronize()
            if turn:
                times[name].append((time.perf_counter() - start) / steps)
    for name, found in times.items():
        middle = statistics.median(found)
        numbers = f"{1e3 * middle:>10.1f}{1 / middle:>10.2f}{pictures / middle:>12.1f}"
        print(f"{stage:<14}{name:<20}{numbers}")


def step_of(student: Student, loss: Loss, device: str, **options: object) -> Callable[[], None]:
    """A step of a copy of a student, with the optimizer that a run has."""
    student = copy.deepcopy(student).to(device).train()
    nowhere = RunFolder(Path("nowhere"))
    state = TrainingState(student, None, TrainConfig(), nowhere, device=device, world=World())
    if options.pop("compiled", False):
        student.compile()
    for name, value in options.items():
        setattr(student, name, value)

    def step() -> None:
        state.optimizer.zero_grad(set_to_none=True)
        loss(student).backward()
        state.optimizer.step()
        student.constrain()

    return step


def bench_distillation(arguments: argparse.Namespace, folder: Path) -> None:
    """Teacher, pictures on their way, and the step of a published network."""
    device = arguments.device
    for number in range(_PICTURES):
        (folder / f"{number}.jpg").write_bytes(encoded(photo(375, 500), "JPEG"))
    pictures = open_pictures(folder)
    teacher = load_teacher(arguments.teacher, weights=arguments.teacher_weights, device=device)
    config = TrainConfig(batch_size=arguments.batch, preset=arguments.preset)
    student = fresh_student(config, teacher.dim)
    size = student.config.input_size
    task = DistillTask(config, pictures, pictures, teacher, input_size=size)

    def many(workers: int) -> Callable[[], object]:
        made = batches(task, World(), 0, config.with_changes({"workers": workers}), device=device)
        return lambda: [next(made) for _ in range(_BATCHES)]

    batch = next(batches(task, World(), 0, config, device=device))
    views = two_views(batch)[0]
    short = torch.autocast(views.device.type, torch.bfloat16)
    with torch.no_grad():
        passes = {"float32": lambda: teacher.embed(views)}
        passes |= {"bfloat16": short(passes["float32"])}
        report(f"teacher {teacher.input_size}", len(views), passes, arguments)
        batch["targets"] = teacher.embed(views)
    passes = {f"{count} workers": many(count) for count in (0, arguments.workers)}
    report("data path", len(views), passes, arguments, _BATCHES)
    report("two views", len(views), {"float32": lambda: two_views(batch)}, arguments)

    def step(**options: object) -> Callable[[], None]:
        return step_of(student, lambda one: task.loss(one, batch)[0], device, **options)

    passes = {"float32": step(), "bfloat16": step(bfloat16=True), "accumulate 2": step(parts=2)}
    if arguments.compile:
        passes |= {"bfloat16, compiled": step(bfloat16=True, compiled=True)}
    report(f"{arguments.preset} {size}", len(views), passes, arguments)


def bench_wave_head(arguments: argparse.Namespace) -> None:
    """The step of the default model: its head, on features that are held."""
    config, recipe = PRESETS["wave-96"], load_recipe("wave-96")
    front = WaveStudent(config, initial_weights(config))
    random, kept = torch.Generator().manual_seed(0), recipe.copies.head_basis
    rows = torch.randn(recipe.batch_size, 15, kept, generator=random).to(arguments.device)
    dim, width = front.head.shape
    head = torch.eye(dim, kept), torch.zeros(dim)
    student = HeadStudent(front, torch.eye(width, kept), torch.zeros(width), *head)

    def loss(one: Student) -> torch.Tensor:
        queries, keys = one.head(rows[:, -1]), one.head(rows[:, :-1])
        return copies_loss(recipe.copies, queries, keys, None, one.metric())[0]

    passes = {"float32": step_of(student, loss, arguments.device)}
    report("wave-96 head", len(rows), passes, arguments)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--preset", default="tiny", help="published size of the student")
    for name, default in (("batch", 8), ("workers", 2), ("rounds", 5)):
        parser.add_argument(f"--{name}", type=int, default=default)
    parser.add_argument("--teacher", default="efficientnet-lite0")
    parser.add_argument("--teacher-weights", type=Path)
    parser.add_argument("--compile", action="store_true")
    arguments = parser.parse_args()
    print(f"{'stage':<14}{'option':<20}{'ms':>10}{'steps/s':>10}{'pictures/s':>12}")
    with tempfile.TemporaryDirectory() as folder:
        bench_distillation(arguments, Path(folder))
    bench_wave_head(arguments)


if __name__ == "__main__":
    main()
