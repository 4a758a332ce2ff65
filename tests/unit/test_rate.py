"""`max_per_minute`: in no 60 seconds more than so many."""

import random

from daemon.engine.rate import WINDOW_SECONDS, Rate


def test_never_more_in_any_window() -> None:
    """Whenever somebody asks, and takes all the room that there is: no window holds more."""
    chance = random.Random(4)  # noqa: S311 - to be repeated, not to be secret
    rate, now, starts = Rate(7), 0.0, []
    for _ in range(2_000):
        now += chance.choice([0.01, 1.0, 9.0, 30.0, 61.0]) * chance.random()
        for _ in range(rate.room(now)):
            rate.started(now)
            starts.append(now)
    assert len(starts) > 500
    for start in starts:
        assert sum(start <= at < start + WINDOW_SECONDS for at in starts) <= 7


def test_all_at_once_and_then_none() -> None:
    """The whole minute's worth may go at once; there is room again when it is a minute old."""
    rate = Rate(3)
    for _ in range(3):
        rate.started(10.0)
    assert (rate.room(10.0), rate.room(69.9), rate.opens_at) == (0, 0, 70.0)
    assert rate.room(70.0) == 3


def test_what_a_former_run_started_counts() -> None:
    """Starts before this run take their room until they are a minute old, in whatever order."""
    rate = Rate(3)
    rate.restore([5.0, -50.0])
    assert rate.room(6.0) == 1
    assert rate.room(10.0) == 2
    assert rate.room(65.0) == 3
