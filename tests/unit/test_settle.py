"""Quiet times and the next look, as tables of cases."""

import pytest

from daemon.core.model import Fingerprint
from daemon.core.settle import (
    BACKSTOP_US,
    PROBE_FIRST_US,
    PROBE_LONGEST_US,
    Look,
    is_quiet,
    look_again_at,
)

SECOND = 1_000_000
QUIET = 2 * SECOND
NOW = 1_000 * SECOND


def written(us: int, changed: int = 0) -> Fingerprint:
    """A file whose content was set at `us` and whose ctime is `changed`, or the same."""
    return Fingerprint(1, us * 1000, (changed or us) * 1000, 7, 1)


@pytest.mark.parametrize(
    ("quiet", "closed", "settled", "evidence"),
    [
        (True, True, True, "quiet+lease"),
        (True, None, True, "quiet"),
        (True, False, False, "quiet"),
        (False, True, False, "quiet+lease"),
        (False, None, False, "quiet"),
        (False, False, False, "quiet"),
    ],
)
def test_settled(*, quiet: bool, closed: bool | None, settled: bool, evidence: str) -> None:
    """Settled is quiet and not known to be open for writing; the evidence names what was known."""
    look = Look("file", written(NOW), quiet=quiet, closed=closed)
    assert (look.settled, look.evidence) == (settled, evidence)


@pytest.mark.parametrize(
    ("marked", "settled", "evidence"),
    [
        (True, True, "quiet+lease+marker"),
        (False, False, "quiet+lease"),
        (None, True, "quiet+lease"),
    ],
)
def test_marked(*, marked: bool | None, settled: bool, evidence: str) -> None:
    """Where a file needs a marker it has not settled without; the evidence names one."""
    look = Look("file", written(NOW), quiet=True, closed=True, marked=marked)
    assert (look.settled, look.evidence) == (settled, evidence)


def test_without_its_marker_it_is_not_polled() -> None:
    """The marker brings the file back; a minute later it is looked at in case it came unseen."""
    for quiet in (True, False):
        look = Look("file", written(NOW), quiet=quiet, closed=False, marked=False)
        assert look_again_at(look, NOW, QUIET) == NOW + BACKSTOP_US


IS_QUIET = {
    "just written": (written(NOW), None, False),
    "a microsecond too early": (written(NOW - QUIET + 1), None, False),
    "exactly the quiet time": (written(NOW - QUIET), None, True),
    "long ago": (written(1), None, True),
    "an old mtime set on it just now": (written(1, NOW - 1), None, False),
    "a new mtime, an old ctime": (written(NOW, 1), None, False),
    "in the future": (written(NOW + SECOND), None, False),
    "stood all the time": (written(NOW), written(NOW), True),
    "in the future, stood all the time": (written(NOW + SECOND), written(NOW + SECOND), True),
    "stood, but was another": (written(NOW), written(NOW - 1), False),
    "same content, ctime moved": (written(5, NOW), written(5, NOW - 1), False),
}


@pytest.mark.parametrize(("seen", "stood", "quiet"), IS_QUIET.values(), ids=IS_QUIET)
def test_is_quiet(*, seen: Fingerprint, stood: Fingerprint | None, quiet: bool) -> None:
    """Quiet is what stood for the quiet time, or what the kernel last touched that long ago."""
    assert is_quiet(seen, NOW, QUIET, stood) is quiet


AGAIN = {
    "nothing there": (Look("absent"), NOW + QUIET),
    "just written": (Look("file", written(NOW)), NOW + QUIET + 1),
    "written a while ago": (Look("file", written(NOW - SECOND)), NOW + SECOND + 1),
    "its ctime is later": (Look("file", written(1, NOW - SECOND)), NOW + SECOND + 1),
    "in the future": (Look("file", written(NOW + 900 * SECOND)), NOW + QUIET),
    "open since just now": (Look("file", written(NOW), quiet=True), NOW + PROBE_FIRST_US),
    "open for 4 s": (Look("file", written(NOW - 4 * SECOND), quiet=True), NOW + SECOND // 2),
    "open for an hour": (
        Look("file", written(NOW - 900 * SECOND), quiet=True),
        NOW + PROBE_LONGEST_US,
    ),
    "open, and in the future": (
        Look("file", written(NOW + SECOND), quiet=True),
        NOW + PROBE_FIRST_US,
    ),
}


@pytest.mark.parametrize(("look", "at"), AGAIN.values(), ids=AGAIN)
def test_look_again_at(look: Look, at: int) -> None:
    """The next look comes when the quiet time ends, or soon where only a writer is waited for."""
    assert look_again_at(look, NOW, QUIET) == at


@pytest.mark.parametrize("quiet", [0, 20_000, PROBE_FIRST_US, 300_000, SECOND, 60 * SECOND])
def test_the_last_close_is_found_out_in_time(quiet: int) -> None:
    """However long a file has been open, its next probe is due within the quiet time and 100 ms.

    Past an age of eight times the longest wait it is that wait: 50 ms, the quiet time, or 1 s.
    """
    waits = [
        look_again_at(Look("file", written(NOW - age), quiet=True), NOW, quiet) - NOW
        for age in (0, quiet, 7 * quiet, 8 * SECOND, 900 * SECOND)
    ]
    assert waits == sorted(waits)
    assert waits[0] == PROBE_FIRST_US
    assert waits[-1] == min(PROBE_LONGEST_US, max(PROBE_FIRST_US, quiet)) < quiet + 100_000


def test_the_next_look_finds_it_quiet() -> None:
    """A file that stays as it is has settled at the very time for which the look was planned."""
    for nanoseconds in range(0, QUIET * 1000, 76_543_211):
        then = NOW * 1000 - nanoseconds
        seen = Fingerprint(1, then, then, 7, 1)
        at = look_again_at(Look("file", seen), NOW, QUIET)
        assert at > NOW
        assert is_quiet(seen, at, QUIET, None)
