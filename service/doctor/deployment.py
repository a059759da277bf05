"""The deployment: who may ask, what is decoded, Redis, the indexes; and the list of all checks."""

import asyncio
import io
import os
from collections.abc import Iterator
from functools import partial
from pathlib import Path

from PIL import Image

from index_builder.errors import IndexModelMismatchError
from index_builder.search.gallery import GalleryIndex, list_indexes
from model.errors import DependencyError, RetrievalError
from model.pixels.decode import DecodeLimits
from service.decoding.pool import DecodePool
from service.decoding.worker import memory_of_one_image
from service.doctor.certificate import Model, check_certificate, check_model, load_model
from service.doctor.checks import Check, Finding, failed, ok, warning
from service.doctor.machine import (
    check_clock,
    check_disk,
    check_faiss,
    check_memory,
    check_open_files,
    check_threads,
    check_torch,
)
from service.errors import KeysFileError, UnsafeBindingError
from service.http.listen_address import check_binding, is_loopback
from service.keys.keys import read_keys
from service.observability.metrics import Metrics
from service.observability.stopwatch import Stopwatch
from service.observability.tracing import tracing_of_environment
from service.redis.link import RedisAwayError, RedisLink
from service.schemas.common import DEFAULT_INDEX
from service.settings import Settings

_BUILD = "python -m index_builder build SOURCE"
_WIDTH, _HEIGHT = 24, 16
_NETWORK_SIDE = 64
_PATIENCE_S = 30.0


def checks_of(settings: Settings) -> dict[str, Check]:
    """The checks of one deployment, in the order of their lines; the model is loaded once."""
    model = partial(load_model, settings.checkpoint, settings.arithmetic)
    data_dir, redis_url = settings.data_dir, settings.redis_url
    return {
        "torch": check_torch,
        "faiss": check_faiss,
        "threads": partial(check_threads, settings.workers, settings.threads_per_worker),
        "open files": partial(check_open_files, settings.max_connections),
        "memory": partial(
            check_memory,
            settings.workers,
            image_bytes=memory_of_one_image(settings.decode_limits),
            body_bytes=settings.max_body_bytes_held,
            data_dir=data_dir,
        ),
        "disk": partial(check_disk, data_dir),
        "clock": partial(check_clock, data_dir),
        "keys": partial(check_keys, settings.keys_file),
        "address": partial(
            check_address,
            settings.host,
            has_keys=settings.keys_file is not None,
            may_lack_keys=settings.allow_no_keys,
        ),
        "tracing": partial(check_tracing, wanted=settings.tracing),
        "decoding": partial(check_decoding, settings.decode_limits),
        "redis": partial(
            check_redis,
            None if redis_url is None else redis_url.get_secret_value(),
            has_secret=settings.cache_secret is not None,
            timeout_s=settings.redis_timeout_s,
        ),
        "model": partial(check_model, model),
        "data": partial(check_data_dir, data_dir),
        "index": partial(check_indexes, data_dir, model),
        "certificate": partial(check_certificate, model),
    }


def check_keys(path: Path | None) -> Finding:
    if path is None:
        return ok("none are set: whoever reaches the service may ask")
    try:
        keys = read_keys(path)
    except KeysFileError as error:
        return failed(
            str(error), "repair it, or make one as the service's user: `python -m service key NAME`"
        )
    if keys:
        return ok(f"{path} holds {len(keys)}")
    return warning(f"{path} holds none: nobody may ask", "`python -m service key NAME`")


def check_address(host: str, *, has_keys: bool, may_lack_keys: bool) -> Finding:
    try:
        check_binding(host, has_keys=has_keys, may_lack_keys=may_lack_keys)
    except UnsafeBindingError as error:
        return failed(f"LIPSIM_HOST={host} without keys", str(error))
    if is_loopback(host):
        return ok(f"{host}: this machine alone")
    if has_keys:
        return ok(f"{host}: other machines too, with keys")
    return ok(f"{host}: other machines too, without keys, as LIPSIM_ALLOW_NO_KEYS says")


def check_tracing(*, wanted: bool) -> Finding:
    """Where traces are wanted, what sends them is there; without it the service does not start."""
    try:
        tracing = tracing_of_environment("doctor") if wanted else None
    except DependencyError as error:
        return failed(str(error), "install the extra `otel`, or drop LIPSIM_TRACING")
    if tracing is None:
        return ok("no traces are sent")
    tracing.close()
    return ok("traces are sent as OTEL_* says")


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
    problems = asyncio.run(_decode_all(samples, limits))
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


async def _decode_all(samples: dict[str, bytes], limits: DecodeLimits) -> dict[str, str]:
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
            size = image.input and (image.input.width, image.input.height)
            if size != (_WIDTH, _HEIGHT) or image.format != name:
                problems[name] = f"decoded as {image.format} {size}"
    finally:
        await pool.close()
    return problems


def check_redis(url: str | None, *, has_secret: bool, timeout_s: float) -> Finding:
    """Ask it once; without it the service serves all the same, so nothing here is a failure."""
    if url is None:
        return ok("none is set: cache and quota are this process's own")
    try:
        refusal = asyncio.run(_refusal_of_a_write(url, timeout_s))
    except (RedisAwayError, ValueError) as error:
        return warning(
            f"does not answer: {error!s:.200}",
            "see that it runs, and LIPSIM_REDIS_URL; until then caches and quotas are local",
        )
    if refusal:
        return warning(
            f"Redis answers, and refuses to write: {refusal:.200}",
            "give it memory and the user the rights that docs/redis.md lists",
        )
    if has_secret:
        return ok("Redis answers and takes what is written")
    return warning(
        "Redis answers, and no embedding is kept there",
        "set LIPSIM_CACHE_SECRET to 32 random characters, the same in every replica",
    )


async def _refusal_of_a_write(url: str, timeout_s: float) -> str | None:
    link = RedisLink(url, timeout_s=timeout_s)
    try:
        return await link.find_refusal()
    finally:
        await link.stop()


def check_data_dir(data_dir: Path) -> Finding:
    """The directory is there, may be read, and holds some index."""
    if not data_dir.is_dir():
        return failed(
            f"{data_dir} is no directory", f"set LIPSIM_DATA_DIR, or make an index: `{_BUILD}`"
        )
    if not os.access(data_dir, os.R_OK | os.X_OK):
        return failed(f"{data_dir} may not be read", "give the service's user the right to read it")
    names = list_indexes(data_dir)
    if not names:
        return warning(f"{data_dir} holds no index", f"only comparing works until `{_BUILD}`")
    if DEFAULT_INDEX not in names:
        return warning(
            f"{data_dir} holds {len(names)}, and none is called {DEFAULT_INDEX!r}",
            "clients must name one",
        )
    return ok(f"{data_dir} holds {len(names)}: {', '.join(names[:10]):.200}")


def check_indexes(data_dir: Path, model: Model) -> Iterator[Finding]:
    """Each index opens, every byte as sealed, and was made by the model in service."""
    loaded = model()
    embedder = None if isinstance(loaded, RetrievalError) else loaded
    for name in list_indexes(data_dir) if data_dir.is_dir() else []:
        try:
            index = GalleryIndex.open(
                data_dir,
                name,
                embedder_fingerprint=embedder and embedder.fingerprint,
                decode_policy=embedder and embedder.decode_policy,
            )
        except IndexModelMismatchError as error:
            yield failed(str(error), "build it again, or set LIPSIM_CHECKPOINT to its model")
            continue
        except RetrievalError as error:
            advice = f"`python -m index_builder verify --index {name}`, then rollback or build"
            yield failed(f"{name}: {error}", advice)
            continue
        says = f"{name} {index.version}: {index.size} entries, dim {index.dim}, hashes right"
        index.close()
        if embedder is None:
            yield warning(f"{says}; the model was refused, so not compared", "see the model")
        else:
            yield ok(f"{says}, made by the model in service")
