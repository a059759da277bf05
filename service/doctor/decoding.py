"""The decode processes: one is started, and must decode a small picture of each allowed format."""

import asyncio
import io
from collections.abc import Iterator

from PIL import Image

from model.pixels.decode import DecodeLimits
from service.decoding.pool import DecodePool
from service.doctor.findings import Finding, failed, ok, warning
from service.observability.metrics import Metrics
from service.observability.stopwatch import Stopwatch

_WIDTH, _HEIGHT = 24, 16
_NETWORK_SIDE = 64
_PATIENCE_S = 30.0


def check_decoding(limits: DecodeLimits) -> Iterator[Finding]:
    """Every allowed format goes in as a file and comes out as an image of the right size."""
    samples: dict[str, bytes] = {}
    for name in sorted(limits.formats):
        try:
            samples[name] = draw_sample(name)
        except (OSError, KeyError, ValueError) as error:
            yield warning(
                f"no {name} could be written to try with ({error})",
                f"this Pillow lacks {name}: drop it from LIPSIM_ALLOWED_FORMATS or install another",
            )
    problems = asyncio.run(_decode(samples, limits))
    for name, problem in problems.items():
        yield failed(
            f"{name}: {problem}", f"drop {name} from LIPSIM_ALLOWED_FORMATS, or repair Pillow"
        )
    fine = [name for name in samples if name not in problems]
    if fine:
        yield ok(f"a decode process starts and decodes {', '.join(fine)}")


def draw_sample(name: str) -> bytes:
    """A small picture in one format; HEIF needs the `heic` extra, as decoding it does."""
    picture = Image.linear_gradient("L").resize((_WIDTH, _HEIGHT)).convert("RGB")
    buffer = io.BytesIO()
    picture.save(buffer, name)
    return buffer.getvalue()


async def _decode(samples: dict[str, bytes], limits: DecodeLimits) -> dict[str, str]:
    """What is wrong, by format."""
    pool = DecodePool(
        limits, size=_NETWORK_SIDE, processes=1, timeout_s=_PATIENCE_S, metrics=Metrics()
    )
    problems: dict[str, str] = {}
    try:
        await pool.start()
        for name, data in samples.items():
            try:
                image = await pool.prepare(data, watch=Stopwatch(), patience_s=_PATIENCE_S)
            except Exception as error:  # Of whatever kind: the other formats are tried too.
                problems[name] = str(error)
                continue
            size = (image.input.width, image.input.height)
            if size != (_WIDTH, _HEIGHT) or image.format != name:
                problems[name] = f"decoded as {image.format} {size}"
    finally:
        await pool.close()
    return problems
