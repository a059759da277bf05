"""Admission control: which requests are let in, and when the others are told to come back.

A POST meets these bounds, in this order. Each is a fixed number of a deployment's settings, each
refuses before it is used up, and each refusal is a 503 with `Retry-After`, counted by its reason:

1. `connections`: sockets that are open. One too many is answered and closed when it is accepted
   (`http/connections.py`, LIPSIM_MAX_CONNECTIONS).
2. `gate`, the early refusal: while one of the two stages below is full, a POST is refused when its
   headers are read, before it costs a task or a line of the log.
3. `places`, receiving: requests whose bodies arrive or are at work
   (LIPSIM_MAX_CONCURRENT_REQUESTS). A place is held from the route's begin to the answer.
4. `bytes`: what all bodies in hand hold together, counted while they arrive
   (LIPSIM_MAX_BODY_BYTES_HELD).
5. `places`, working: requests that are decoded, embedded or searched, or wait for it
   (LIPSIM_MAX_QUEUE). A place is held from the complete body to the answer; a batch holds one for
   each of its images, all at once or none.
   Requests for tolerances have places of their own beside it, one for each worker,
   and attacks one.
6. `queue_timeout`: the longest wait for a decode process (`decoding/`) or a worker (`work/`),
   LIPSIM_QUEUE_TIMEOUT_S. Time at work is bounded apart, and running out of it is a 504.

GET is never refused here, so that probes and metrics are answered by a full service.

`Retry-After` is the time in which the requests at a stage will have left it, at the speed of those
that left it in the last seconds: a client that comes back then finds a place. Where no stage is
full (connections, bytes, queue_timeout) it is RETRY_AFTER_S.

Draining is not refusal: a service that was told to stop says so in /readyz and closes each
connection after its answer, and answers all the same.
"""

import math
import time
from collections import deque
from collections.abc import Callable, Generator
from contextlib import contextmanager

from anyio import CapacityLimiter

from service.errors import RETRY_AFTER_S, OverloadedError

# Departures that the speed is taken from, at most so many and so old.
_REMEMBERED = 64
_RECENT_S = 10.0
LONGEST_RETRY_S = 60


class Slots:
    """Counts the requests at one stage; refuses one too many, and says when to come back.

    Used on the event loop alone.

    Args:
        capacity: most requests at a time.
        doing: what they do there, for the refusal: "are being received".
    """

    def __init__(
        self, capacity: int, doing: str, *, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self.capacity = capacity
        self._doing = doing
        self._clock = clock
        self._departures: deque[float] = deque(maxlen=_REMEMBERED)
        self.taken = 0

    @property
    def is_full(self) -> bool:
        return self.taken >= self.capacity

    @contextmanager
    def take(self, count: int = 1) -> Generator[None]:
        """Hold one slot for the time of a request, or one for each image of a batch.

        Raises:
            OverloadedError: so many are not free; none is taken then.
        """
        if self.taken + count > self.capacity:
            raise OverloadedError(
                f"{self.taken} requests {self._doing} already"
                + (f", of {self.capacity}; this one counts as {count}" if count > 1 else ""),
                reason="places",
                retry_after_s=self.retry_after_s(),
            )
        self.taken += count
        try:
            yield
            self._departures.extend([self._clock()] * count)
        finally:
            self.taken -= count

    def retry_after_s(self) -> int:
        """Seconds until those there now will have left at the speed of the last ones, in bounds."""
        now = self._clock()
        while self._departures and now - self._departures[0] > _RECENT_S:
            self._departures.popleft()
        if not self._departures:
            return RETRY_AFTER_S
        seconds_each = (now - self._departures[0]) / len(self._departures)
        return max(RETRY_AFTER_S, min(LONGEST_RETRY_S, math.ceil(self.taken * seconds_each)))


class ByteBudget:
    """Counts the bytes of every body in hand; many large ones could fill the memory otherwise."""

    def __init__(self, max_bytes: int) -> None:
        self._max_bytes = max_bytes
        self._held = 0

    def take(self, count: int) -> None:
        """Hold so many bytes more.

        Raises:
            OverloadedError: together with what is held they are too many; none of them is held.
        """
        if self._held + count > self._max_bytes:
            raise OverloadedError(
                f"the requests in hand may hold {self._max_bytes} bytes of bodies together",
                reason="bytes",
            )
        self._held += count

    def give_back(self, count: int) -> None:
        self._held -= count


class Admission:
    """The bounds of one service, and whether it is about to stop."""

    def __init__(
        self, *, max_receiving: int, max_working: int, max_body_bytes: int, workers: int = 1
    ) -> None:
        self.receiving = Slots(max_receiving, "are being received")
        self.working = Slots(max_working, "are in work or waiting")
        self.challenging = Slots(1, "for an attack is in work")
        self.measuring = Slots(workers, "for tolerances are in work")
        self.bodies = ByteBudget(max_body_bytes)
        # Pages of items are made one at a time: they take Python's time, and searches need it.
        self.listing = CapacityLimiter(1)
        self.is_draining = False

    def early_refusal_s(self, method: bytes) -> int | None:
        """Seconds after which to come back, of a request refused early; None: it is let in."""
        full = [stage for stage in (self.receiving, self.working) if stage.is_full]
        if method != b"POST" or not full:
            return None
        return max(stage.retry_after_s() for stage in full)
