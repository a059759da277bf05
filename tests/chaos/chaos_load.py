"""Clients that ask all the time, and the judge of what they were told."""

import json
import threading
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from itertools import count
from typing import NamedTuple, Self

import httpx
import numpy as np

K = 5


class Gist(NamedTuple):
    """What matters of an answer; `reach` and `slack` are how far rounding may move its numbers."""

    version: str
    size: int
    sha256: str
    ids: tuple[str, ...]
    distances: tuple[float, ...]
    radii: tuple[float | None, ...]
    slack: float
    reach: float


Truths = list[Gist]
"""The right answers of one gallery, in the order of the queries."""


def search(client: httpx.Client, query: bytes, *, index: str = "default") -> httpx.Response:
    data = {"k": str(K), "index": index}
    return client.post("/v1/search", files={"image": query}, data=data)


def gist_of(answer: dict) -> Gist:
    """The gist of a search's answer.

    An embedding is computed up to the forward error E, whatever it shares a batch with, so that
    two right ones differ by 2 E at most: over their norm as an angle, over the constants as a
    radius.
    """
    results, certificate = answer["results"], answer["certificate"]
    query, model = answer["query"], answer["model"]
    error = 2 * model["forward_error"]
    return Gist(
        version=answer["index"]["version"],
        size=answer["index"]["size"],
        sha256=query["sha256"],
        ids=tuple(result["id"] for result in results),
        distances=tuple(result["distance"] for result in results),
        radii=(
            *(result["certified_radius"] for result in results),
            *(certificate[f"{what}_radius"] for what in ("top1", "set", "order")),
        ),
        slack=error / query["embedding_norm"] + 1e-12,
        reach=2 * error / (query["gain"] * model["lipschitz_bound"]) + 1e-9,
    )


def is_right(said: Gist, truth: Gist) -> bool:
    """Whether an answer is the undisturbed one but for its version's name and for rounding."""
    return (
        (said.size, said.sha256, said.ids) == (truth.size, truth.sha256, truth.ids)
        and np.allclose(said.distances, truth.distances, rtol=0, atol=truth.slack)
        and [r is None for r in said.radii] == [r is None for r in truth.radii]
        and np.allclose(
            [r for r in said.radii if r is not None],
            [r for r in truth.radii if r is not None],
            rtol=1e-9,
            atol=truth.reach,
        )
    )


@dataclass(frozen=True)
class Asked:
    """One request: what was asked, when, and what came; status 0 is a connection that broke."""

    query: int
    begun: float
    seconds: float
    status: int
    gist: Gist | None
    problem: str = ""


@dataclass(frozen=True)
class Tally:
    """What became of a number of requests."""

    statuses: Counter[int]
    wrong: list[Asked]
    seconds: list[float]
    problems: Counter[str]

    @property
    def requests(self) -> int:
        return self.statuses.total()

    @property
    def longest_s(self) -> float:
        return max(self.seconds, default=0.0)

    @property
    def p99_s(self) -> float:
        return float(np.percentile(self.seconds, 99)) if self.seconds else 0.0

    @property
    def is_flawless(self) -> bool:
        return set(self.statuses) == {200} and not self.wrong

    def __str__(self) -> str:
        said = ", ".join(f"{number} x {status}" for status, number in sorted(self.statuses.items()))
        return (
            f"{self.requests} requests: {said}; {len(self.wrong)} wrong; "
            f"p99 {self.p99_s:.2f} s, longest {self.longest_s:.2f} s"
        )


TruthOf = Callable[[Asked], Gist]
"""For `Load.tally`: which answer would have been right."""


class Load:
    """Some clients in threads of this process, each asking again after a short pause.

    Args:
        url: of the service.
        queries: asked in turn.
        clients: so many at a time.
        pause_s: between an answer and the next question of one client.
        keeps_connections: whether a client asks again on the connection of its last answer.
    """

    def __init__(
        self,
        url: str,
        queries: list[bytes],
        *,
        clients: int = 3,
        pause_s: float = 0.03,
        keeps_connections: bool = True,
    ) -> None:
        self.asked: list[Asked] = []
        self._url, self._queries = url, queries
        self._pause_s, self._keeps_connections = pause_s, keeps_connections
        self._turns = count()
        self._stop = threading.Event()
        self._threads = [threading.Thread(target=self._ask_on) for _ in range(clients)]

    def __enter__(self) -> Self:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def stop(self) -> None:
        """Ask no more, and wait for the answers that are due."""
        self._stop.set()
        for thread in self._threads:
            thread.join()

    def wait_for_more(self, number: int = 30, within_s: float = 60.0) -> None:
        """Go on for so many requests more."""
        enough, deadline = len(self.asked) + number, time.monotonic() + within_s
        while len(self.asked) < enough:
            assert time.monotonic() < deadline, f"no {number} answers in {within_s} s"
            time.sleep(0.02)

    def tally(self, truth_of: TruthOf, *, since: float = 0.0, until: float = float("inf")) -> Tally:
        """What became of the requests that began in a time, by `time.monotonic`."""
        asked = [one for one in list(self.asked) if since <= one.begun < until]
        return Tally(
            statuses=Counter(one.status for one in asked),
            wrong=[one for one in asked if one.gist and not is_right(one.gist, truth_of(one))],
            seconds=[one.seconds for one in asked],
            problems=Counter(one.problem for one in asked if one.problem),
        )

    def _ask_on(self) -> None:
        limits = httpx.Limits(max_keepalive_connections=1 if self._keeps_connections else 0)
        with httpx.Client(base_url=self._url, timeout=60, limits=limits) as client:
            while not self._stop.is_set():
                self.asked.append(self._ask(client, next(self._turns) % len(self._queries)))
                # Who finds nobody does not knock without a pause.
                self._stop.wait(self._pause_s if self.asked[-1].status else 0.1)

    def _ask(self, client: httpx.Client, query: int) -> Asked:
        begun, status, gist, problem = time.monotonic(), 0, None, ""
        try:
            response = search(client, self._queries[query])
            status = response.status_code
            if status == 200:
                gist = gist_of(response.json())
            else:
                problem = _code_of(response)
        except httpx.TransportError as error:
            problem = repr(error)
        return Asked(query, begun, time.monotonic() - begun, status, gist, problem)


def always(truths: Truths) -> TruthOf:
    """All answers come from one gallery."""
    return lambda asked: truths[asked.query]


def _code_of(response: httpx.Response) -> str:
    try:
        return response.json()["code"]
    except json.JSONDecodeError:
        return "(no problem document)"
