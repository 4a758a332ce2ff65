"""The breaker of a step: when it opens, how its probes go, what closes it."""

from daemon.config_steps import Breaker as Settings
from daemon.core.model import Key
from daemon.engine.breaker import Breaker

A, B = Key("w", b"a"), Key("w", b"b")


def opened(after: int = 3, first: float = 1.0, longest: float = 5.0) -> Breaker:
    """One that has opened at 10."""
    breaker = Breaker(Settings(after=after, first=first, max=longest))
    assert [breaker.suffers(A, 10.0) for _ in range(after)] == [False] * (after - 1) + [True]
    return breaker


def test_opens_after_so_many_in_a_row() -> None:
    """Only failures in a row count: an answer begins the count anew."""
    breaker = Breaker(Settings(after=3))
    for _ in range(10):
        assert not breaker.suffers(A, 0.0)
        assert not breaker.suffers(B, 0.0)
        assert not breaker.answers()
    assert breaker.lets_pass(0.0)
    assert opened().is_open


def test_one_probe_at_a_time_at_growing_intervals() -> None:
    """While open nobody passes but one at its time, and each that fails doubles the wait."""
    breaker, now, waits = opened(), 10.0, []
    for _ in range(5):
        assert not breaker.lets_pass(breaker.probe_at - 0.001)
        waits.append(breaker.probe_at - now)
        now = breaker.probe_at
        assert breaker.lets_pass(now)
        breaker.probe(B)
        assert not breaker.lets_pass(now + 1000)
        assert not breaker.suffers(B, now)
        breaker.ended(B)
    assert waits == [1.0, 2.0, 4.0, 5.0, 5.0]


def test_stragglers_do_not_count_as_probes() -> None:
    """What was started before it opened, and fails after, does not put the next probe off."""
    breaker = opened()
    for _ in range(9):
        assert not breaker.suffers(B, 10.5)
    assert breaker.probe_at == 11.0


def test_any_answer_closes() -> None:
    """Somebody was there: all pass, and the next failures are counted from none."""
    breaker = opened()
    assert breaker.answers()
    assert breaker.lets_pass(10.0)
    assert not breaker.answers()
    assert not breaker.suffers(A, 11.0)


def test_probe_that_said_nothing_leaves_its_place() -> None:
    """A probe that was not even started, or was interrupted, makes room for another at once."""
    breaker = opened()
    breaker.probe(A)
    breaker.ended(B)
    assert not breaker.lets_pass(11.0)
    breaker.ended(A)
    assert breaker.lets_pass(11.0)


def test_wait_that_was_asked_for() -> None:
    """Who is asked to come back later does, but within the longest interval."""
    breaker = opened(after=1)
    breaker.probe(A)
    breaker.suffers(A, 20.0, after=4.0)
    assert breaker.probe_at == 24.0
    breaker.suffers(A, 30.0, after=1e9)
    assert breaker.probe_at == 35.0


def test_reopening_begins_with_the_first_interval() -> None:
    """A breaker that opens again is as patient as the first time."""
    breaker = opened(after=1)
    breaker.probe(A)
    breaker.suffers(A, 11.0)
    breaker.answers()
    assert breaker.suffers(A, 20.0)
    assert breaker.probe_at == 21.0
