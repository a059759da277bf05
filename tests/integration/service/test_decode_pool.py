import asyncio
import hashlib
import importlib.util
import os
import signal
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path

import numpy as np
import pytest
from service_helpers import draw_picture, encode

from model.errors import (
    DependencyError,
    EmptyImageError,
    ImageDecodeError,
    ImageFormatError,
    ImageSizeError,
)
from model.pixels.decode import DecodeLimits, decode_image
from model.pixels.network_input import network_input
from service.decoding.pool import DecodePool
from service.decoding.query_image import QueryImage
from service.errors import DecodeTimeoutError, OverloadedError
from service.observability.metrics import Metrics
from service.observability.stopwatch import Stopwatch

SIZE = 64
Story = Callable[[DecodePool], Awaitable[None]]


def run(story: Story, *, processes: int = 1, timeout_s: float = 20.0) -> None:
    """Tell a story with real decode processes, and see that none is left."""

    others.clear()
    others.update(children())

    async def whole() -> None:
        pool = DecodePool(
            DecodeLimits(max_side=2000),
            size=SIZE,
            processes=processes,
            timeout_s=timeout_s,
            metrics=Metrics(),
        )
        await pool.start()
        try:
            await story(pool)
        finally:
            await pool.close()
        assert children() == []

    asyncio.run(whole())


others: set[int] = set()
"""Decode processes that another test's server has in this very process."""


def children() -> list[int]:
    """Decode processes of this one, alive; not those of others."""
    found: list[int] = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdecimal():
            try:
                command = (entry / "cmdline").read_bytes()
                parent = int((entry / "stat").read_text().rsplit(")", 1)[1].split()[1])
            except OSError:
                continue
            if parent == os.getpid() and b"service.decoding.worker" in command:
                found.append(int(entry.name))
    return [process for process in found if process not in others]


async def prepare(
    pool: DecodePool, data: bytes, patience_s: float = 20.0, **rest: bool
) -> QueryImage:
    return await pool.prepare(data, watch=Stopwatch(), patience_s=patience_s, **rest)


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP"])
def test_an_image_comes_back_as_this_process_would_have_made_it(kind: str):
    data = encode(draw_picture(1, 301, 203), kind)
    image = decode_image(data)
    wanted = network_input(image, SIZE)

    async def story(pool: DecodePool) -> None:
        found = await prepare(pool, data, wants_pixels=True)
        given = found.input
        # Products may sum in another order where memory lies otherwise; the bound covers that.
        assert np.linalg.norm(given.values - wanted.values) <= 2 * wanted.input_error
        assert (given.gain, given.input_error) == (wanted.gain, wanted.input_error)
        assert (given.height, given.width, found.format) == (203, 301, kind)
        assert found.pixels_sha256 == hashlib.sha256(image.pixels.tobytes()).hexdigest()
        assert (await prepare(pool, data)).pixels_sha256 is None

    run(story)


def test_a_bad_image_is_refused_as_this_process_would_and_the_next_is_served():
    good = encode(draw_picture(2), "JPEG")
    bad = {
        b"": EmptyImageError,
        b"no picture": ImageFormatError,
        good[: len(good) // 2]: ImageDecodeError,
        encode(draw_picture(2, 2001, 2)): ImageSizeError,
    }

    async def story(pool: DecodePool) -> None:
        for data, kind in bad.items():
            with pytest.raises(kind) as wanted:
                decode_image(data, DecodeLimits(max_side=2000))
            with pytest.raises(kind) as found:
                await prepare(pool, data)
            assert str(found.value) == str(wanted.value)
            assert (await prepare(pool, good)).input.width == 160

    run(story)


def test_a_process_that_hangs_is_killed_and_replaced():
    data = encode(draw_picture(3))

    async def story(pool: DecodePool) -> None:
        (first,) = children()
        os.kill(first, signal.SIGSTOP)
        with pytest.raises(DecodeTimeoutError, match="5 s"):
            await prepare(pool, data)
        assert first not in children()
        assert (await prepare(pool, data)).input.width == 160

    run(story, timeout_s=5.0)  # A new process takes a second or two on a busy core.


def test_a_process_that_died_between_images_costs_no_image():
    data = encode(draw_picture(4))

    async def story(pool: DecodePool) -> None:
        for _ in range(3):
            (process,) = children()
            os.kill(process, signal.SIGKILL)
            assert (await prepare(pool, data)).input.width == 160

    run(story)


def test_an_image_that_ends_every_process_is_refused():
    data = encode(draw_picture(5, 1500, 1500))

    async def story(pool: DecodePool) -> None:
        task = asyncio.create_task(prepare(pool, data))
        while not task.done():
            for process in children():
                os.kill(process, signal.SIGSEGV)
            await asyncio.sleep(0.005)
        with pytest.raises(ImageDecodeError, match="ended the program"):
            task.result()
        assert (await prepare(pool, encode(draw_picture(5)))).input.width == 160

    run(story)


def test_who_waits_too_long_for_a_process_is_refused():
    data = encode(draw_picture(6))

    async def story(pool: DecodePool) -> None:
        (process,) = children()
        os.kill(process, signal.SIGSTOP)
        first = asyncio.create_task(prepare(pool, data))
        await asyncio.sleep(0.05)
        with pytest.raises(OverloadedError, match="no decode process"):
            await prepare(pool, data, patience_s=0.1)
        os.kill(process, signal.SIGCONT)
        assert (await first).input.width == 160

    run(story)


def test_a_file_that_nobody_waits_for_is_let_go_and_its_wait_is_no_decoding():
    data = encode(draw_picture(6))
    watch = Stopwatch()

    async def story(pool: DecodePool) -> None:
        (process,) = children()
        os.kill(process, signal.SIGSTOP)
        first = asyncio.create_task(prepare(pool, data))
        await asyncio.sleep(0.05)
        with pytest.raises(OverloadedError):
            await pool.prepare(data, watch=watch, patience_s=0.1)
        gone = asyncio.create_task(prepare(pool, data))
        await asyncio.sleep(0.05)
        gone.cancel()
        await asyncio.gather(gone, return_exceptions=True)
        left = [pool._waiting.get_nowait() for _ in range(2)]
        assert [(turn.question.data, turn.image) for turn in left] == [(b"", None)] * 2
        assert watch.seconds == {}
        os.kill(process, signal.SIGCONT)
        assert (await first).input.width == 160

    run(story)


def test_a_pool_that_is_closed_refuses_in_time():
    async def story(pool: DecodePool) -> None:
        await pool.close()
        with pytest.raises(OverloadedError):
            await prepare(pool, b"", patience_s=0.1)

    run(story)


def test_callers_that_give_up_leave_the_pool_as_it_was():
    data = encode(draw_picture(7, 800, 800))

    async def story(pool: DecodePool) -> None:
        begun = sorted(children())
        for pause in (0.0, 0.001, 0.005, 0.02):
            tasks = [asyncio.create_task(prepare(pool, data)) for _ in range(6)]
            await asyncio.sleep(pause)
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
        found = await asyncio.gather(*(prepare(pool, data) for _ in range(4)))
        assert [image.input.width for image in found] == [800] * 4
        assert sorted(children()) == begun

    run(story, processes=2)


def test_a_process_is_told_nothing_and_may_do_little(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("LIPSIM_SECRET", "of the service")

    async def story(_pool: DecodePool) -> None:
        (process,) = children()
        assert b"LIPSIM_" not in Path(f"/proc/{process}/environ").read_bytes()
        limits = Path(f"/proc/{process}/limits").read_text()
        bounds = {line[:26].strip(): line[26:].split()[0] for line in limits.splitlines()}
        assert bounds["Max file size"] == bounds["Max core file size"] == "0"
        assert int(bounds["Max address space"]) < 4 << 30

    run(story)


def test_ctrl_c_is_not_a_processes_matter_and_its_share_of_the_cores_is_the_services():
    async def story(_pool: DecodePool) -> None:
        (process,) = children()
        assert os.getpgid(process) != os.getpgid(0)
        assert os.getsid(process) == os.getsid(0)

    run(story)


def test_a_process_needs_neither_torch_nor_faiss():
    code = "import service.decoding.worker, sys; print({'torch', 'faiss'} & sys.modules.keys())"
    done = asyncio.run(_output([sys.executable, "-c", code]))
    assert done == b"set()\n"


async def _output(command: list[str]) -> bytes:
    process = await asyncio.create_subprocess_exec(*command, stdout=asyncio.subprocess.PIPE)
    return (await process.communicate())[0]


@pytest.mark.skipif(importlib.util.find_spec("pillow_heif") is not None, reason="HEIF is read here")
def test_a_library_that_decode_processes_cannot_import_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """It was on PYTHONPATH, which they are not handed: the service imports it and they do not."""
    (tmp_path / "pillow_heif.py").write_text("def register_heif_opener(): ...\n")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    limits = DecodeLimits(formats=frozenset({"PNG", "HEIF"}))
    monkeypatch.delitem(sys.modules, "pillow_heif")

    async def story() -> None:
        pool = DecodePool(limits, size=SIZE, processes=2, timeout_s=20, metrics=Metrics())
        try:
            with pytest.raises(DependencyError, match=r"cannot decode HEIF, PNG: .*pillow-heif"):
                await pool.start()
        finally:
            await pool.close()

    asyncio.run(story())
