"""What all requests may hold together: places and bytes, refused before they are used up."""

import math
import time
from collections import deque
from collections.abc import Callable, Generator
from contextlib import contextmanager

from service.errors import OverloadedError

# Departures that the speed is taken from, at most so many and so old.
_REMEMBERED = 64
_RECENT_S = 10.0
_LONGEST_RETRY_S = 60


class Places:
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
        """Whether the next one would be refused."""
        return self.taken >= self.capacity

    @contextmanager
    def take(self) -> Generator[None]:
        """Hold one place for the time of a request.

        Raises:
            OverloadedError: every place is taken.
        """
        if self.is_full:
            raise OverloadedError(
                f"{self.capacity} requests {self._doing} already",
                reason="places",
                retry_after_s=self.retry_after_s(),
            )
        self.taken += 1
        try:
            yield
            self._departures.append(self._clock())
        finally:
            self.taken -= 1

    def retry_after_s(self) -> int:
        """Seconds until those there now will have left, at the speed of the last ones; 1 to 60."""
        now = self._clock()
        while self._departures and now - self._departures[0] > _RECENT_S:
            self._departures.popleft()
        if not self._departures:
            return 1
        seconds_each = (now - self._departures[0]) / len(self._departures)
        return max(1, min(_LONGEST_RETRY_S, math.ceil(self.taken * seconds_each)))


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
        """Let so many bytes go."""
        self._held -= count
