"""What can go wrong with Redis. No client ever hears of it, so none of these is in the error tree.

RedisTrouble
├── RedisAwayError      no answer in time, or none that is Redis's: as if there were no Redis
└── RedisRefusedError   a living Redis says no: it is full, read-only, or holds another type
"""


class RedisTrouble(Exception):  # noqa: N818 - the root of two errors; each of them is named one.
    """A command had no effect that anybody may rely on."""


class RedisAwayError(RedisTrouble):
    """Redis did not answer, or is not asked for a while because it did not."""


class RedisRefusedError(RedisTrouble):
    """Redis answered that it will not do this."""
