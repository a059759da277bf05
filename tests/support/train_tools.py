"""Shared by the tests of training: small real students, tasks and pictures, and a process to kill.

Run as a script it waits for orders, one JSON object a line, and forks a run of one or more
processes for each: the libraries are then loaded once, and a run is a process that can be killed.
"""

import contextlib
import importlib
import json
import os
import random
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Generator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from image_files import encoded, photo
from paths import GALLERY, ROOT
from torch import Tensor

from model.data.pictures import FolderPictures, Picture
from model.errors import RetrievalError
from model.nets.checkpoint import Checkpoint
from model.nets.presets import PublishedConfig
from model.train import trainer
from model.train.commands import TASKS
from model.train.config import TrainConfig, load_recipe
from model.train.copies.material import gathered
from model.train.distill import DistillTask
from model.train.distributed import gather_rows, joined
from model.train.losses import cosine_hinge, radius_hinge
from model.train.sampling import Part, example_at, view_generator
from model.train.sll_student import SllStudent
from model.train.student import Student
from model.train.task import Sources, Task

SMALL = PublishedConfig(2, 4, 3, 2, 6, 8, input_size=32)
QUICK = TrainConfig(
    recipe="quick",
    steps=12,
    batch_size=4,
    learning_rate=0.01,
    beta1=0.5,
    warmup_steps=2,
    grad_clip_norm=10.0,
    ema_decay=0.8,
    validate_every=4,
    save_every=3,
    log_every=1,
    validation_examples=4,
    framing="resize",
    tensorboard=False,
    estimate_steps=5,
)


_DRAWINGS = GALLERY / "clipart"


class LinearTeacher:
    """A seeded linear map of 8 x 8 block means: a teacher that costs nothing."""

    name = "linear"
    dim = SMALL.embedding_dim
    input_size = SMALL.input_size
    record: Mapping[str, str] = {"seed": "0"}

    def __init__(self) -> None:
        weights = np.random.default_rng(0).standard_normal((192, self.dim)) / 14
        self._weights = torch.from_numpy(weights).float()

    def embed(self, x: Tensor) -> Tensor:
        return torch.nn.functional.avg_pool2d(x, 4).flatten(1) @ self._weights.to(x)


class Shown:
    """Pictures in memory."""

    name = "shown"

    def __init__(self, count: int, side: int = 40) -> None:
        self._pictures = [
            Picture(f"{i:03d}.png", None, encoded(photo(side, side + i, i), "PNG"))
            for i in range(count)
        ]
        self.ids = [picture.id for picture in self._pictures]
        self.labels = [None] * count

    def __len__(self) -> int:
        return len(self._pictures)

    def __getitem__(self, index: int) -> Any:
        return self._pictures[index]


class ContrastTask:
    """Every kind of loss: over all rows at once, a sum over rows, and a mean over them."""

    examples = 16

    def __init__(self, config: TrainConfig) -> None:
        self._config = config

    def identity(self) -> dict[str, Any]:
        return {"kind": "contrast"}

    def batch(self, step: int, rank: int, world: int) -> dict[str, Tensor]:
        each = self._config.batch_size // world
        rows = []
        for place in range(rank * each, (rank + 1) * each):
            position = step * self._config.batch_size + place
            random = view_generator(self._config.seed, position)
            base = np.random.default_rng(example_at(0, self.examples, position))
            picture = base.random((3, 32, 32))
            rows.append([picture, np.clip(picture + 0.1 * random.standard_normal(()), 0, 1)])
        return {"pairs": torch.from_numpy(np.array(rows))}

    def loss(self, student: Student, batch: dict[str, Tensor]) -> tuple[Tensor, dict[str, Any]]:
        queries, keys = student(batch["pairs"][:, 0]), student(batch["pairs"][:, 1])
        inverted = student(1.0 - batch["pairs"][:, 0])
        vote = (queries[:, 0] > 0).to(queries)
        judged = cosine_hinge(queries, keys, inverted, vote, 0.5)
        judged = judged + radius_hinge(queries, keys, inverted, vote, 0.5)
        queries, keys = gather_rows(queries), gather_rows(keys)
        likeness = queries @ torch.nn.functional.normalize(keys, dim=1).T
        contrast = torch.nn.functional.cross_entropy(likeness, torch.arange(len(queries)))
        return contrast + 0.1 * judged, {"contrast": contrast}

    def validate(self, student: Student) -> dict[str, float]:
        return {"score": -float(self.loss(student, self.batch(10_000, 0, 1))[0])}


class Slow:
    """A task whose batches take a while, so that a process can be killed between two steps."""

    def __init__(self, task: Any, seconds: float) -> None:
        self._task, self._seconds = task, seconds
        self.examples = task.examples

    def __getattr__(self, name: str) -> Any:
        return getattr(self._task, name)

    def batch(self, step: int, rank: int, world: int) -> Any:
        time.sleep(self._seconds)
        return self._task.batch(step, rank, world)


def quick(name: str, config: TrainConfig, seed: int = 0) -> tuple[SllStudent, Any]:
    """A fresh small student and one of two tasks."""
    student = SllStudent.fresh(SMALL, seed)
    if name == "contrast":
        # In float64: Adam makes whole steps of gradients that are only rounding.
        return student.double(), ContrastTask(config)
    shown = Shown(14)
    training, validation = Part(shown, range(10)), Part(shown, range(10, 14))
    teacher, side = LinearTeacher(), SMALL.input_size
    return student, DistillTask(config, training, validation, teacher, input_size=side)


def train(student: Student, task: Task, config: TrainConfig, out: Path, **where: Any) -> Checkpoint:
    """Trains what is built already."""
    return trainer.train(config, out, lambda: (student, task), **where)


def drawings(folder: Path, count: int) -> Path:
    """The folder, with so many of the bundled drawings in it."""
    for path in sorted(_DRAWINGS.glob("*.webp"))[:count]:
        shutil.copy(path, folder)
    return folder


def small_recipe(name: str, **changes: Any) -> TrainConfig:
    """A recipe on edited copies, of a few steps over pictures that say nothing of themselves."""
    small: dict[str, Any] = {"input_size": 64}  # the smallest that four levels of wavelets take
    small |= {"batch_size": 8, "views": 2, "warmup_steps": 1, "save_every": 1, "estimate_steps": 4}
    unsaid = {"train_split": "", "validation_split": "", "kind_weights": "", "tensorboard": False}
    return load_recipe(name).with_changes({**small, **unsaid, **changes})


def built(config: TrainConfig, pictures: Path, work: Path = ROOT / "nowhere",
          **sources: Path) -> tuple[Student, Task]:  # fmt: skip
    """The student and the task of a config, over a folder of pictures."""
    return TASKS[config.task](config, Sources(pictures, work=work, **sources))


def check_dealing(task: Task) -> None:
    """The batch of two processes is the batch of one."""
    whole, halves = task.batch(3, 0, 1), [task.batch(3, rank, 2) for rank in (0, 1)]
    for name, rows in whole.items():
        assert np.array_equal(rows, np.concatenate([half[name] for half in halves]))


def outcome(out: Path) -> dict[str, Any]:
    """What a finished run must reproduce: its last loss and the fingerprints it wrote."""
    lines = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    steps = [line["step"] for line in lines if line["kind"] == "train"]
    report = json.loads((out / "report.json").read_text())
    return {
        "steps": steps,
        "losses": [line["loss"] for line in lines if line["kind"] == "train"],
        "validations": [(line["step"], line["score"]) for line in lines if "score" in line],
        "best": (report["best"]["step"], report["best"]["fingerprint"]),
        "last": report["last"]["fingerprint"],
    }


class Forge:
    """The waiting process, and the runs it forks."""

    def __init__(self) -> None:
        root = ROOT
        self._process = subprocess.Popen(
            [sys.executable, str(Path(__file__).resolve())],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            cwd=root,
            env={**os.environ, "PYTHONPATH": str(root), "OMP_NUM_THREADS": "1"},
        )

    def start(self, out: Path, *, task: str = "distill", size: int = 1, pause: float = 0.0,
              **changes: Any) -> list[int]:  # fmt: skip
        """Forks the processes of a run; gives their ids."""
        order = {"out": str(out), "task": task, "size": size, "pause": pause, "changes": changes}
        return self._ask(order)["pids"]

    def wait(self) -> dict[str, Any]:
        """Exit codes (negative: killed by that signal), messages and seconds, by rank."""
        return self._ask({"wait": True})

    def close(self) -> None:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.close()
        self._process.wait(timeout=60)
        self._process.stdout.close()

    def _ask(self, order: dict[str, Any]) -> dict[str, Any]:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps(order) + "\n")
        self._process.stdin.flush()
        return json.loads(self._process.stdout.readline())


@contextlib.contextmanager
def forge() -> Generator[Forge]:
    forged = Forge()
    try:
        yield forged
    finally:
        forged.close()


def look_through(data: Path, work: Path) -> dict[str, Any]:
    """What the task `copies` reads before its first step, and what it finds."""
    read, real = [], FolderPictures.__getitem__

    def noted(pictures: FolderPictures, index: int) -> Picture:
        read.append(pictures.ids[index])
        return real(pictures, index)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(FolderPictures, "__getitem__", noted)
        material = gathered(small_recipe("wave-96"), Sources(data, work), None)
    return {"read": sorted(read), "found": [material.contents, list(material.kinds)]}


def free_port() -> int:
    """One below those that the system gives to connections: it is taken seconds later."""
    while True:
        port = random.randrange(20_000, 30_000)
        with socket.socket() as probe, suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return port


def _child(order: dict[str, Any], rank: int, port: int) -> int:
    """One process of a run: 0 done, 1 refused, 130 interrupted, as the command line says it."""
    out = Path(order["out"])
    out.mkdir(parents=True, exist_ok=True)
    if order["size"] > 1:
        os.environ |= {"RANK": str(rank), "WORLD_SIZE": str(order["size"])}
        os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    with (out / f"messages-{rank}").open("w") as stream:
        try:
            if order["task"] == "look through":
                with joined("cpu"):
                    found = look_through(out / "data", out)
                (out / f"{rank}.json").write_text(json.dumps(found))
                return 0
            config = QUICK.with_changes(order["changes"])
            student, task = quick(order["task"], config)
            with joined("cpu") as device:
                slow = Slow(task, order["pause"])
                train(student, slow, config, out, device=device, stream=stream)
        except KeyboardInterrupt:
            return 130
        except RetrievalError as exc:
            stream.write(f"error: {exc}\n")
            return 1
    return 0


def _serve() -> None:
    running: list[tuple[int, Path]] = []
    started = 0.0
    for line in sys.stdin:
        order = json.loads(line)
        if order.get("wait"):
            codes = [os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) for pid, _ in running]
            texts = [path.read_text() if path.exists() else "" for _, path in running]
            answer = {"codes": codes, "messages": texts, "seconds": time.monotonic() - started}
        else:
            port = free_port()
            running, started = [], time.monotonic()
            for rank in range(order["size"]):
                pid = os.fork()
                if not pid:
                    signal.signal(signal.SIGINT, signal.default_int_handler)
                    os.dup2(2, 1)  # stdout carries answers alone
                    os._exit(_child(order, rank, port))
                running.append((pid, Path(order["out"]) / f"messages-{rank}"))
            answer = {"pids": [pid for pid, _ in running]}
        sys.stdout.write(json.dumps(answer) + "\n")
        sys.stdout.flush()


if __name__ == "__main__":
    torch.set_num_threads(1)
    importlib.import_module("torch._dynamo")  # an optimizer's first step would, in every fork
    _serve()
