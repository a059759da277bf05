"""A thousand slow clients: others are answered, memory is bounded, the slow ones are cut off."""

import resource
import time
from collections.abc import Iterator

import pytest
from chaos_load import Load, always
from chaos_tools import MIB, rss_of
from chaos_world import Claim, World
from service_helpers import Server, StartServer, open_sockets, wait_for
from slow_clients import Crowd

HEADER_S, BODY_S, ANSWER_S = 4, 8, 6
# After its refusal a client that still sends is heard for ten seconds more: docs/http-api.md.
LINGER_S = 10
# Generous: this machine connects, trickles, and asks at the same time.
AIR_S = 30.0
KINDS = {"headers": 400, "body": 400, "answer": 200}
SLOW = sum(KINDS.values())
# An answer that nobody reads is held until its client is cut off: 0.25 MiB each, and some air.
MOST_GROWTH = 150 * MIB


@pytest.fixture(autouse=True)
def _many_files() -> Iterator[None]:
    """Room for the crowd's sockets in this process."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, 8192), hard))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def start(world: World, start_server: StartServer, **settings: object) -> Server:
    server = start_server(
        world.data_dir,
        open_files=4096,
        header_timeout_s=HEADER_S,
        body_timeout_s=BODY_S,
        answer_timeout_s=ANSWER_S,
        cache_bytes=0,
        **settings,
    )
    server.wait_ready()
    return server


def test_a_thousand_slow_clients_hold_up_nobody(
    world: World, start_server: StartServer, claim: Claim
):
    row = claim(
        f"{SLOW} slow clients ({KINDS['headers']} send headers, {KINDS['body']} bodies, a byte a "
        f"second; {KINDS['answer']} read nothing), with room for all",
        f"others are answered in bounded time; memory is bounded; cut off: headers after "
        f"{HEADER_S} s, bodies told 408 after {BODY_S} s and cut off {LINGER_S} s later, those "
        f"who do not read after {ANSWER_S} s",
    )
    server = start(world, start_server, max_connections=2000, max_concurrent_requests=2000)
    with Load(server.url, world.queries) as load:
        load.wait_for_more(60)
        sockets, rss = open_sockets(server), rss_of(server.process.pid)
        with Crowd(server.url, KINDS) as crowd:
            begun = time.monotonic()
            most_held, most_rss = 0, rss

            def is_left(number: int) -> bool:
                """Whether no more of the crowd's connections than that are left."""
                nonlocal most_held, most_rss
                held = open_sockets(server) - sockets
                most_held, most_rss = (
                    max(most_held, held),
                    max(most_rss, rss_of(server.process.pid)),
                )
                return held <= number

            # What is slow at its body is borne longest: once as many are left, no other is.
            wait_for(lambda: is_left(KINDS["body"]), AIR_S)
            unread_s = time.monotonic() - begun
            wait_for(lambda: is_left(0), BODY_S + LINGER_S + AIR_S)
            load.wait_for_more(30)
    tally = load.tally(always(world.truths["default"]))
    row.happened = (
        f"{most_held} held at a time; {crowd.describe('headers')}; {crowd.describe('body')}; all "
        f"that do not read gone after {unread_s:.1f} s; RSS {rss / MIB:.0f} to "
        f"{most_rss / MIB:.0f} MiB at most; others: {tally}"
    )
    assert tally.is_flawless, tally.problems
    assert tally.longest_s < AIR_S
    assert most_held > 0.8 * SLOW
    assert most_rss - rss < MOST_GROWTH
    assert len(crowd.borne("headers")) == KINDS["headers"]
    assert max(crowd.borne("headers")) < HEADER_S + AIR_S
    assert crowd.told("body") == {"408": KINDS["body"]}
    assert max(crowd.borne("body")) < BODY_S + LINGER_S + AIR_S


def test_a_thousand_slow_clients_that_fill_every_place_are_outlived(
    world: World, start_server: StartServer, claim: Claim
):
    row = claim(
        f"{SLOW} slow clients, LIPSIM_MAX_CONNECTIONS=256",
        "others are refused at once (503, or a closed connection) or answered rightly, and all are "
        f"answered again once the slow ones are cut off, {HEADER_S} s later",
    )
    server = start(world, start_server, max_connections=256)
    # A connection for each request: one that is kept would never notice.
    with Load(server.url, world.queries, keeps_connections=False) as load:
        load.wait_for_more(30)
        begun = time.monotonic()
        with Crowd(server.url, {"headers": SLOW}) as crowd:
            wait_for(lambda: len(crowd.borne("headers")) == SLOW, HEADER_S + AIR_S)
            ended = time.monotonic()
            load.wait_for_more(60)
    truth_of = always(world.truths["default"])
    meanwhile = load.tally(truth_of, since=begun, until=ended)
    after = load.tally(truth_of, since=ended)
    row.happened = (
        f"{crowd.told('headers')['503']} slow ones refused, the others gone after "
        f"{max(crowd.borne('headers')):.1f} s; meanwhile {meanwhile}; afterwards {after}"
    )
    assert not meanwhile.wrong
    assert set(meanwhile.statuses) <= {0, 200, 503}
    assert meanwhile.longest_s < HEADER_S + AIR_S
    assert after.is_flawless, after.problems
