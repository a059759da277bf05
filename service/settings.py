"""Settings of one deployment: each is an environment variable `LIPSIM_<NAME>`."""

import math
import re
from collections.abc import Iterable
from functools import lru_cache
from ipaddress import ip_network
from pathlib import Path
from typing import Annotated, Any, Literal, Self, cast

from limits import RateLimitItem, parse
from pydantic import (
    AfterValidator,
    DirectoryPath,
    Field,
    SecretStr,
    ValidationError,
    field_validator,
    model_validator,
)
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict
from redis.asyncio.connection import parse_url

from model.cli.threads import usable_cores
from model.pixels.decode import MOST_PIXELS, DecodeLimits, format_names

PACKAGE = "lipsim-retrieval"

MEBIBYTE = 1024 * 1024

_IMAGES = DecodeLimits()
# Whoever holds a record can try guesses against it at leisure: a short one would be found.
_SHORTEST_SECRET = 32

_REDIS_SCHEMES = ("redis", "rediss", "unix")
# Stricter than the library, which reads the first of several rates and drops the others silently.
_RATE = re.compile(r"[1-9][0-9]{0,8}/([1-9][0-9]{0,4} ?)?(second|minute|hour|day)s?")


# As browsers send it: in small letters and without a path.
_ORIGIN = re.compile(r"https?://([a-z0-9.-]+|\[[0-9a-f:]+\])(:[0-9]{1,5})?")


@lru_cache(maxsize=256)
def parse_rate(text: str) -> RateLimitItem:
    """A rate like `600/minute` or `1000/5 minutes`.

    Raises:
        ValueError: it is not of that form.
    """
    if _RATE.fullmatch(text) is None:
        raise ValueError(
            "a rate is like 600/minute or 1000/5 minutes, of second, minute, hour, day"
        )
    return parse(text)


def _listed(text: str) -> list[str]:
    """What stands between commas."""
    return [part.strip() for part in text.split(",") if part.strip()]


def _check_rate(text: str) -> str:
    parse_rate(text)
    return text


Rate = Annotated[str, AfterValidator(_check_rate)]


class Settings(BaseSettings):
    """What an operator may choose; names carry their unit, `python -m service settings` prints all.

    A relative path is relative to the working directory. Only what puts a service together reads
    this class (`__main__`, `app`, `lifecycle`, `http.server`, the routes' limits): everything below
    takes plain arguments.
    """

    model_config = SettingsConfigDict(env_prefix="LIPSIM_", frozen=True, extra="ignore")

    data_dir: Path = Field(
        default=Path("data"), description="Directory that holds the indexes (`indexes/NAME/...`)."
    )
    checkpoint: Path | None = Field(
        default=None, description="Weight file (safetensors); empty: the one shipped with us."
    )
    host: str = Field(default="127.0.0.1", description="Address to listen on.")
    port: int = Field(default=8000, ge=0, le=65535, description="Port; 0 takes a free one.")
    examples_dir: DirectoryPath | None = Field(
        default=None,
        description="Folder of pictures that the page offers to try, for whoever may ask; empty: "
        "none.",
    )
    keys_file: Path | None = Field(
        default=None,
        description="File of the API keys, made by `python -m service key NAME`; empty: no keys.",
    )
    allow_no_keys: bool = Field(
        default=False,
        description="Whether other machines may be served without keys: for a service behind a "
        "proxy that authenticates.",
    )
    rate_limit: Rate | None = Field(
        default=None,
        description="Requests of each key, like 600/minute; without keys, of each client address; "
        "more is 429. Empty: no bound.",
    )
    trusted_proxies: str = Field(
        default="",
        description="Addresses and networks of proxies whose X-Forwarded-For is believed, "
        "comma-separated; empty: none.",
    )
    cors_origins: str = Field(
        default="",
        description="Origins whose pages may ask from a browser, like https://app.example.org, "
        "comma-separated; *: any; empty: none.",
    )
    log_level: Literal["debug", "info", "warning", "error"] = Field(
        default="info", description="Least severe log line that is written, to stderr."
    )
    log_format: Literal["json", "console"] = Field(
        default="json",
        description="json: one object a line, for machines; console: for people at a terminal.",
    )
    tracing: bool = Field(
        default=False,
        description="Send traces by OpenTelemetry, which its own OTEL_* variables set up; needs "
        "the `otel` extra.",
    )
    arithmetic: Literal["float64", "float32"] = Field(
        default="float64",
        description="float64: radii hold for the program; float32: for real arithmetic only.",
    )
    max_image_bytes: int = Field(
        default=_IMAGES.max_image_bytes, gt=0, description="Largest encoded image; more is 413."
    )
    max_batch_bytes: int = Field(
        default=64 * MEBIBYTE,
        gt=0,
        description="Largest body of a batch of searches, JSON too; more is 413. At most "
        "max_body_bytes_held counts.",
    )
    max_image_pixels: int = Field(
        default=_IMAGES.max_pixels,
        gt=0,
        le=MOST_PIXELS,
        description=f"Most pixels of one image, at most {MOST_PIXELS}; more is 422.",
    )
    max_image_side: int = Field(
        default=_IMAGES.max_side,
        gt=0,
        description="Longest side of one image, in pixels; longer is 422.",
    )
    allowed_formats: Annotated[frozenset[str], NoDecode] = Field(
        default=_IMAGES.formats,
        description="Image formats that are decoded, comma-separated; BMP, TIFF and (with the "
        "`heic` extra) HEIF may be added.",
    )
    truncated: Literal["refuse", "accept"] = Field(
        default="refuse",
        description="A JPEG that ends early: refuse (422), or accept: decode it as far as it goes, "
        "the rest gray, and say `truncated: true`. A build of the gallery should be told the same.",
    )
    default_k: int = Field(default=10, ge=1, description="Results of a search that names no k.")
    max_k: int = Field(default=1000, ge=1, description="Most results that one search may ask for.")
    tolerance_cpu_s: float = Field(
        default=5.0,
        gt=0,
        description="CPU time that one request for tolerances may take, looked at between edits; "
        "what was not looked at by then is said (`complete: false`).",
    )
    challenge: bool = Field(
        default=False,
        description="Whether /v1/challenge may be asked: attacks on single results, for showing "
        "what a radius means; with keys it needs the scope admin.",
    )
    index_poll_interval_s: float = Field(
        default=2.0, gt=0, description="Seconds between two looks for a new index version."
    )
    cache_bytes: int = Field(
        default=64 * MEBIBYTE,
        ge=0,
        description="Memory for the embeddings of files seen before, per process; 0: none.",
    )
    filter_cache_bytes: int = Field(
        default=16 * MEBIBYTE,
        ge=0,
        description="Memory for the sets of items that filters passed, one bit an item.",
    )
    cache_secret: SecretStr | None = Field(
        default=None,
        description="At least 32 characters, the same on every replica, to keep embeddings in "
        "Redis too (`openssl rand -hex 32`); without it Redis is not used for embeddings.",
    )
    cache_ttl_s: int = Field(
        default=7 * 24 * 3600,
        ge=1,
        le=366 * 24 * 3600,
        description="How long Redis keeps an embedding.",
    )
    redis_url: SecretStr | None = Field(
        default=None,
        description="Redis for what replicas share (`redis://`, `rediss://`, `unix://`); empty: "
        "none.",
    )
    redis_timeout_s: float = Field(
        default=0.1,
        gt=0,
        le=1.0,
        description="Longest wait for Redis, after which the answer is made without it.",
    )
    workers: int = Field(
        default_factory=lambda: min(1024, max(1, math.ceil(usable_cores()))),
        ge=1,
        le=1024,
        description="Processes that decode, and threads that embed and search; default: one of "
        "each for each core that the process may use (its affinity, its container's limit).",
    )
    max_batch: int = Field(
        default=16, ge=1, description="Most requests whose images share one pass of the network."
    )
    threads_per_worker: int = Field(
        default=1, ge=1, le=1024, description="Threads that torch and FAISS use inside one worker."
    )
    max_queue: int = Field(
        default=128, ge=1, description="Requests in work or waiting for it; more is 503."
    )
    max_concurrent_requests: int = Field(
        default=256, ge=1, description="Requests whose bodies may be held at once; more is 503."
    )
    max_body_bytes_held: int = Field(
        default=512 * MEBIBYTE,
        gt=0,
        description="Bytes of bodies that all requests may hold together; more is 503. At least "
        "four times max_image_bytes.",
    )
    queue_timeout_s: float = Field(
        default=10.0, gt=0, description="Longest wait for work to begin; longer is 503."
    )
    decode_timeout_s: float = Field(
        default=10.0, gt=0, description="Longest decoding of one image; longer is 504."
    )
    request_timeout_s: float = Field(
        default=30.0,
        gt=0,
        description="Longest embedding and search once begun; longer is 504.",
    )
    max_connections: int = Field(
        default=512,
        ge=1,
        description="Open connections, idle ones too; more is 503. Where the soft limit on open "
        "files less 128 is smaller, that counts.",
    )
    header_timeout_s: float = Field(
        default=10.0,
        gt=0,
        description="Longest time request headers may take; then the connection is closed.",
    )
    body_timeout_s: float = Field(
        default=30.0, gt=0, description="Longest time a body may take to arrive; longer is 408."
    )
    answer_timeout_s: float = Field(
        default=30.0,
        gt=0,
        description="Longest time a client may take to read 32 KiB of an answer, or what is left "
        "of less; then the connection is closed.",
    )
    drain_delay_s: float = Field(
        default=0.0,
        ge=0,
        description="Time between a signal to stop, from which /readyz says no, and the end of "
        "accepting; as long as your load balancer takes to notice.",
    )
    shutdown_timeout_s: int = Field(
        default=30, ge=0, description="Time that requests in flight get to finish at shutdown."
    )

    @field_validator("allowed_formats", mode="before")
    @classmethod
    def _split_formats(cls, value: object) -> object:
        return format_names(value.split(",")) if isinstance(value, str) else value

    @field_validator("cache_secret")
    @classmethod
    def _check_secret(cls, value: SecretStr | None) -> SecretStr | None:
        if value is not None and len(value.get_secret_value()) < _SHORTEST_SECRET:
            raise ValueError(f"must have at least {_SHORTEST_SECRET} characters")
        return value

    @field_validator("redis_url")
    @classmethod
    def _check_redis_url(cls, value: SecretStr | None) -> SecretStr | None:
        if value is not None:
            check_url(value.get_secret_value())
        return value

    @field_validator(
        *("checkpoint", "examples_dir", "keys_file", "rate_limit", "cache_secret", "redis_url"),
        mode="before",
    )
    @classmethod
    def _empty_is_none(cls, value: object) -> object:
        return None if value == "" else value

    @field_validator("cors_origins")
    @classmethod
    def _check_origins(cls, value: str) -> str:
        for origin in _listed(value):
            if origin != "*" and not _ORIGIN.fullmatch(origin):
                raise ValueError(f"an origin is like https://app.example.org, got {origin!r}")
        return value

    @field_validator("trusted_proxies")
    @classmethod
    def _check_proxies(cls, value: str) -> str:
        for part in _listed(value):
            ip_network(part)
        return value

    @model_validator(mode="after")
    def _check_together(self) -> Self:
        if self.max_body_bytes_held < 4 * self.max_image_bytes:
            # Less would refuse, forever, the largest body that a route takes: two images in base64.
            raise ValueError(
                f"max_body_bytes_held must be at least 4 * max_image_bytes = "
                f"{4 * self.max_image_bytes}, got {self.max_body_bytes_held}"
            )
        if self.default_k > self.max_k:
            raise ValueError(f"default_k {self.default_k} must not exceed max_k {self.max_k}")
        return self

    @property
    def allowed_origins(self) -> list[str]:
        return _listed(self.cors_origins)

    @property
    def batch_limit_bytes(self) -> int:
        """Largest body of a batch that can ever be taken."""
        return min(self.max_batch_bytes, self.max_body_bytes_held)

    @property
    def decode_limits(self) -> DecodeLimits:
        return DecodeLimits(
            max_image_bytes=self.max_image_bytes,
            max_pixels=self.max_image_pixels,
            max_side=self.max_image_side,
            formats=self.allowed_formats,
            accept_truncated=self.truncated == "accept",
        )


def given_options(**options: object) -> dict[str, Any]:
    """The settings that a command line has: those that are not None."""
    return {name: value for name, value in options.items() if value is not None}


def problems_of(error: ValidationError) -> list[str]:
    """What is not allowed, a line for each setting."""
    return [
        f"{'.'.join(variable_name(str(part)) for part in problem['loc']) or 'settings'}: "
        f"{problem['msg']}"
        for problem in error.errors()
    ]


def variable_name(name: str) -> str:
    return f"{Settings.model_config.get('env_prefix', '')}{name}".upper()


def unknown_variables(environment: Iterable[str]) -> list[str]:
    """Those named like a setting that are none: a misspelt one does nothing, and nobody knows."""
    known = {variable_name(name) for name in Settings.model_fields}
    named = (name for name in environment if name.upper().startswith(variable_name("")))
    return sorted(name for name in named if name.upper() not in known)


def shown(value: object) -> str:
    """A value as an operator would write it; an empty string for none."""
    if isinstance(value, frozenset):
        return ",".join(sorted(map(str, cast("frozenset[object]", value))))
    return "" if value is None else str(value)


def shown_default(name: str) -> str:
    """The default of one setting as an operator would write it; an empty string for none."""
    if name == "workers":
        return "one per usable core"
    value = Settings.model_fields[name].get_default()
    return shown(value)


def check_url(url: str) -> None:
    """Refuse what is no Redis URL.

    Raises:
        ValueError: it is none; the message does not repeat it, as it may hold a password.
    """
    scheme = url.partition("://")[0]
    if scheme not in _REDIS_SCHEMES:
        raise ValueError(f"must begin with one of {', '.join(f'{s}://' for s in _REDIS_SCHEMES)}")
    try:
        parse_url(url)
    except ValueError:
        raise ValueError("has a part that cannot be read") from None
