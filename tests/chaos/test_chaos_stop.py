"""The service is stopped, and killed, while it is asked."""

import signal
import time

import httpx
from chaos_load import Load, always
from chaos_world import Claim, World
from service_helpers import Server, StartServer, run_builder, wait_for

# As docs/deployment.md says: it ends by the signal that it was sent.
STOPPED = -signal.SIGTERM


def is_draining(server: Server) -> bool:
    return httpx.get(f"{server.url}/readyz", timeout=60).status_code == 503


def test_told_to_stop_under_load_it_answers_all_that_it_took(
    world: World,
    start_server: StartServer,
    claim: Claim,
):
    row = claim(
        "SIGTERM under load, LIPSIM_DRAIN_DELAY_S=8",
        "clients that stop when /readyz says so lose nothing; it ends by SIGTERM",
    )
    server = start_server(world.data_dir, drain_delay_s=8, cache_bytes=0)
    server.wait_ready()
    with Load(server.url, world.queries, clients=12, pause_s=0.0) as load:
        load.wait_for_more(200)
        server.process.send_signal(signal.SIGTERM)
        told = time.monotonic()
        wait_for(lambda: is_draining(server))
        load.wait_for_more(12)
    exit_code = server.process.wait(60)
    tally = load.tally(always(world.truths["default"]))
    after = load.tally(always(world.truths["default"]), since=told)
    row.happened = f"{tally}; {after.requests} of them after the signal; exit code {exit_code}"
    assert after.requests >= 12
    assert tally.is_flawless, tally.problems
    assert exit_code == STOPPED


def test_told_to_stop_at_once_it_answers_what_it_has_in_hand(
    world: World,
    start_server: StartServer,
    claim: Claim,
):
    row = claim(
        "SIGTERM under load, no delay",
        "what was in hand is answered; who comes later finds nobody; it ends by SIGTERM",
    )
    server = start_server(world.data_dir, cache_bytes=0)
    server.wait_ready()
    with Load(server.url, world.queries, clients=12, pause_s=0.0) as load:
        load.wait_for_more(200)
        # Taken is what was sent some time ago and has no answer yet: each client waits for one.
        server.process.send_signal(signal.SIGSTOP)
        time.sleep(1.0)
        told = time.monotonic()
        server.process.send_signal(signal.SIGTERM)
        server.process.send_signal(signal.SIGCONT)
        exit_code = server.process.wait(60)
    before = load.tally(always(world.truths["default"]), until=told)
    late = load.tally(always(world.truths["default"]), since=told)
    row.happened = f"{before}; sent after the signal: {late}; exit code {exit_code}"
    assert exit_code == STOPPED
    assert before.is_flawless, before.problems
    assert not late.wrong
    assert set(late.statuses) <= {0, 200}


def test_killed_under_load_it_comes_back_with_the_same_answers(
    world: World,
    start_server: StartServer,
    claim: Claim,
):
    row = claim(
        "SIGKILL under load, three times, and a new start",
        "the index is intact; the same answers",
    )
    sent = lost = 0
    for _ in range(3):
        server = start_server(world.data_dir, cache_bytes=0)
        server.wait_ready()
        with Load(server.url, world.queries, clients=6, pause_s=0.0) as load:
            load.wait_for_more(30)
            assert server.stop(signal.SIGKILL) == -signal.SIGKILL
        tally = load.tally(always(world.truths["default"]))
        sent, lost = sent + tally.requests, lost + tally.statuses[0]
        assert not tally.wrong
        assert set(tally.statuses) <= {0, 200}
        for name in ("default", "a", "b"):
            run_builder("verify", "--data-dir", world.data_dir, "--index", name)
    server = start_server(world.data_dir, cache_bytes=0)
    server.wait_ready()
    with Load(server.url, world.queries) as load:
        load.wait_for_more(60)
    tally = load.tally(always(world.truths["default"]))
    row.happened = (
        f"{sent} requests before the kills, {lost} of them without an answer, 0 wrong; index "
        f"verified 3 times; then {tally}"
    )
    assert tally.is_flawless, tally.problems
