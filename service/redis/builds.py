"""What builders tell of their progress, believed as far as it can do no harm: it is shown."""

from pydantic import ValidationError

from index_builder.build.shared_progress import progress_key
from service.redis.errors import RedisTrouble
from service.redis.link import RedisLink
from service.schemas.indexes import BuildProgress

_MOST_BYTES = 1024


async def running_build(link: RedisLink | None, index: str) -> BuildProgress | None:
    """How far a build of this index is; None if none runs, or nothing sound is said of it."""
    if link is None:
        return None
    try:
        told = await link.ask(b"GETRANGE", progress_key(index), 0, _MOST_BYTES - 1)
        return BuildProgress.model_validate_json(told) if isinstance(told, bytes) else None
    except (RedisTrouble, ValidationError):
        return None
