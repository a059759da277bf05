from service.redis.breaker import CircuitBreaker


class Failing:
    """Commands that fail one after the other."""

    def __init__(self, breaker: CircuitBreaker) -> None:
        self._breaker = breaker
        self._now = 0.0

    def __call__(self) -> bool:
        self._now += 1
        return self._breaker.failed(self._now - 0.5, self._now)


def make() -> CircuitBreaker:
    return CircuitBreaker(failures=3, first_pause_s=0.5, longest_pause_s=8, heartbeat_s=5)


def closed() -> CircuitBreaker:
    breaker = make()
    breaker.probe_succeeded()
    return breaker


def test_nobody_is_asked_before_a_probe_was_answered():
    breaker = make()
    assert breaker.is_open
    breaker.probe_succeeded()
    assert not breaker.is_open
    assert breaker.wait_s == 5


def test_failures_in_a_row_open_it_and_others_do_not():
    breaker = closed()
    fail = Failing(breaker)
    for _ in range(10):
        assert not fail()
        assert not fail()
        breaker.succeeded()
    assert not breaker.is_open
    assert [fail() for _ in range(5)] == [False, False, True, False, False]
    assert breaker.is_open


def test_the_pause_grows_up_to_a_limit_and_begins_short():
    breaker = closed()
    fail = Failing(breaker)
    for _ in range(3):
        fail()
    pauses = [breaker.wait_s]
    for _ in range(6):
        breaker.probe_failed()
        pauses.append(breaker.wait_s)
    assert pauses == [0.5, 1, 2, 4, 8, 8, 8]


def test_one_who_answers_probes_only_is_asked_ever_more_rarely():
    breaker = closed()
    fail = Failing(breaker)
    pauses = []
    for _ in range(4):
        for _ in range(3):
            fail()
        pauses.append(breaker.wait_s)
        breaker.probe_succeeded()
    assert pauses == [0.5, 1, 2, 4]
    breaker.probe_succeeded()  # The next heartbeat found it closed still.
    for _ in range(3):
        fail()
    assert breaker.wait_s == 0.5


def test_commands_that_fail_together_are_one_failure():
    breaker = closed()
    assert not any(breaker.failed(begun / 100, 1.0) for begun in range(50))
    assert not any(breaker.failed(1.0 + begun / 100, 2.0) for begun in range(50))
    assert breaker.failed(2.0, 3.0)
