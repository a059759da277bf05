"""Every check, in the order of its line: what a new part of the service brings is one line here."""

from collections.abc import Iterator
from functools import partial

from model.pixels.decode import DecodeLimits
from service.decoding.worker import memory_of_one_image
from service.doctor.access import check_address, check_keys
from service.doctor.certificate import check_certificate
from service.doctor.decoding import check_decoding
from service.doctor.findings import Check, Finding, Line, examine
from service.doctor.indexes import check_data_dir, check_indexes
from service.doctor.libraries import (
    check_faiss,
    check_floors,
    check_python,
    check_torch,
    check_tracing,
)
from service.doctor.machine import (
    check_clock,
    check_disk,
    check_memory,
    check_open_files,
    check_threads,
)
from service.doctor.model import Model, check_model
from service.doctor.redis import check_redis
from service.settings import Settings


def checks_of(settings: Settings) -> list[Check]:
    """The checks of one deployment; each takes plain values, and the model is loaded once."""
    model = Model(settings.checkpoint, settings.arithmetic)
    data_dir = settings.data_dir
    host = settings.host
    has_keys, may_lack_keys = settings.keys_file is not None, settings.allow_no_keys
    # What may be large; formats take no more or less of it.
    largest = DecodeLimits(
        max_image_bytes=settings.max_image_bytes, max_pixels=settings.max_image_pixels
    )
    memory = partial(
        check_memory,
        settings.workers,
        image_bytes=memory_of_one_image(largest),
        body_bytes=settings.max_body_bytes_held,
        data_dir=data_dir,
    )

    def decoding() -> Iterator[Finding]:
        # The limits themselves may be refused: HEIF without its library.
        limits = DecodeLimits(formats=settings.allowed_formats)
        return check_decoding(limits)

    def redis() -> Iterator[Finding]:
        url = settings.redis_url
        return check_redis(
            None if url is None else url.get_secret_value(),
            has_secret=settings.cache_secret is not None,
            timeout_s=settings.redis_timeout_s,
        )

    return [
        Check("python", check_python),
        Check("libraries", check_floors),
        Check("torch", check_torch),
        Check("faiss", check_faiss),
        Check("threads", partial(check_threads, settings.workers, settings.threads_per_worker)),
        Check("open files", partial(check_open_files, settings.max_connections)),
        Check("memory", memory),
        Check("disk", partial(check_disk, data_dir)),
        Check("clock", partial(check_clock, data_dir)),
        Check("keys", partial(check_keys, settings.keys_file)),
        Check(
            "address", partial(check_address, host, has_keys=has_keys, may_lack_keys=may_lack_keys)
        ),
        Check("tracing", partial(check_tracing, wanted=settings.tracing)),
        Check("decoding", decoding),
        Check("redis", redis),
        Check("model", partial(check_model, model)),
        Check("data", partial(check_data_dir, data_dir)),
        Check("index", partial(check_indexes, data_dir, model)),
        Check("certificate", partial(check_certificate, model)),
    ]


def examine_all(checks: list[Check]) -> Iterator[Line]:
    """Every line, as soon as its check is done."""
    for check in checks:
        yield from examine(check)
