"""A watcher that loses events, stands still or dies: everything is tracked, and it is said."""

import os
import select
import signal
from itertools import count
from pathlib import Path
from typing import Any

import pytest

from tests.acceptance.harness import DEADLINE, Line, RunningDaemon
from tests.acceptance.sites import Site
from tests.acceptance.trees import (
    QUEUE_LIMIT,
    agree,
    children,
    family,
    on_disk,
    queue_limit,
    stopped,
    write,
    writing,
)

FILL = """
import os, sys
root, count = os.fsencode(sys.argv[1]), int(sys.argv[2])
for number in range(count):
    with open(b"%s/f%d" % (root, number), "wb", buffering=0) as file:
        file.write(b"x" * (number % 7))
"""
MAY_SET_LIMIT = os.geteuid() == 0 and os.access(QUEUE_LIMIT, os.W_OK)


@pytest.fixture
def tracking(site: Site) -> Site:
    """A site whose one watch only tracks; no periodic scan comes to the rescue."""
    site.configure(site.watch(settle='quiet = "20ms"', reconcile="1h"))
    for folder in ("one", "two"):
        (site.tree / folder).mkdir()
    return site


def watcher(daemon: RunningDaemon) -> int:
    """The process that watches for it. Others may help with a scan meanwhile, and end with it."""
    found = [pid for pid in children(daemon.pid) if b"watch_child" in program_of(pid)]
    assert len(found) == 1, f"watchers below the daemon: {found}"
    return found[0]


def program_of(pid: int) -> bytes:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    except FileNotFoundError:
        return b""


def await_hints(site: Site, daemon: RunningDaemon) -> None:
    """Wait until a watcher tells of new files: while there is none, a scan finds them."""
    for number in count():
        name = f"two/told{number}"
        (site.tree / name).touch()
        daemon.done(name)
        if daemon.of(name)[0]["cause"] == "hint":
            return


def missed(lines: list[Line]) -> dict[str, int]:
    """What scans found and no hint had told, by cause, over all the lines."""
    told: list[dict[str, int]] = [
        line.get("missed", {}) for line in lines if line["event"] == "daemon.reconciled"
    ]
    causes = {cause for counts in told for cause in counts}
    return {cause: sum(counts.get(cause, 0) for counts in told) for cause in causes}


@pytest.mark.skipif(not MAY_SET_LIMIT, reason="only root may set fs.inotify.max_queued_events")
def test_an_overflow_of_the_queue_loses_nothing_and_is_said(tracking: Site) -> None:
    """256 events fit, two processes write 10,000 files each: all are tracked.

    A line says that the queue ran over, another what the scan found that the watcher had not told.
    """
    with queue_limit(256):
        daemon = tracking.start().ready()
    with writing(FILL, tracking.tree / "one", 10_000), writing(FILL, tracking.tree / "two", 10_000):
        pass
    assert len(agree(tracking, daemon)) == 20_000
    overflow = daemon.line("daemon.overflow", watch="w")
    daemon.wait_for(lambda lines: sum(missed(lines).values()) > 0, "files that were missed")
    lines = daemon.stop()
    assert overflow["level"] == "warning"
    assert overflow["reason"]
    assert 0 < sum(missed(lines).values()) <= 20_000
    assert len(daemon.having("discover")) == 20_001


def test_a_daemon_that_stood_still_finds_everything(tracking: Site) -> None:
    """20,000 files while it and its watcher are stopped, more than any queue holds: all tracked."""
    daemon = tracking.start().ready()
    with stopped(*family(daemon.pid)):
        write(FILL, tracking.tree / "one", 20_000)
    assert len(agree(tracking, daemon)) == 20_000
    daemon.wait_for(lambda lines: sum(missed(lines).values()) > 0, "files that were missed")
    daemon.stop()
    assert daemon.having("daemon.overflow") or daemon.having("daemon.watcher_restarted")
    assert len(daemon.having("discover")) == 20_001


def test_changes_and_removals_in_an_overflow_are_found_too(tracking: Site) -> None:
    """Not only what is new: files changed, removed and replaced while events are lost."""
    write(FILL, tracking.tree / "two", 60)
    daemon = tracking.start().ready()
    agree(tracking, daemon)
    with stopped(*family(daemon.pid)):
        write(FILL, tracking.tree / "one", 10_000)
        for number in range(20):
            (tracking.tree / f"two/f{number}").write_text("changed" * 3)
            (tracking.tree / f"two/f{number + 20}").unlink()
            (tracking.tree / f"two/f{number + 40}").rename(tracking.tree / f"two/g{number}")
    rows = agree(tracking, daemon)
    daemon.stop()
    assert len(rows) == 10_040
    assert len(daemon.having("vanish")) == 20 + 1  # and once the file that `agree` lets pass
    assert len(daemon.having("move")) == 20


def test_a_watcher_that_stands_still_is_replaced(tracking: Site) -> None:
    """No canary comes back: a line says so, the next watcher works, the scan finds the rest."""
    daemon = tracking.start().ready()
    blind = watcher(daemon)
    with stopped(blind):
        (tracking.tree / "one/unseen").write_text("x")
        restarted = daemon.line("daemon.watcher_restarted", watch="w")
        daemon.done("one/unseen")
        assert _ends(blind)
    assert restarted["level"] == "warning"
    assert restarted["reason"]
    daemon.wait_for(lambda lines: sum(missed(lines).values()) == 1, "the file that was missed")
    await_hints(tracking, daemon)
    assert watcher(daemon) != blind
    agree(tracking, daemon)
    daemon.stop()


def test_a_watcher_that_is_killed_is_replaced(tracking: Site) -> None:
    """Three times: each time a line says so, and what came meanwhile is found."""
    daemon = tracking.start().ready()
    for turn in range(3):
        os.kill(watcher(daemon), signal.SIGKILL)
        for folder in ("one", "two", f"new{turn}/deep"):
            (tracking.tree / folder).mkdir(parents=True, exist_ok=True)
            (tracking.tree / folder / f"f{turn}").write_text("x")
        daemon.nth(turn + 1, "daemon.watcher_restarted", watch="w")
        daemon.done(*(f"{folder}/f{turn}" for folder in ("one", "two", f"new{turn}/deep")))
        await_hints(tracking, daemon)
    agree(tracking, daemon)
    daemon.stop()


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_no_watcher_outlives_its_daemon(tracking: Site, number: int) -> None:
    """However the daemon ends, the process that watched for it ends too."""
    daemon = tracking.start().ready()
    left = watcher(daemon)
    fd = os.pidfd_open(left)
    try:
        daemon.signal(number)
        daemon.wait()
        assert select.select([fd], [], [], DEADLINE)[0], "the watcher is still there"
    finally:
        os.close(fd)
    assert not tracking.orphans()


def test_the_canary_leaves_no_trace_in_the_watched_tree(tracking: Site) -> None:
    """Nothing is written there, no row or line is about it, and the state folder is left tidy."""
    before = _everything(tracking)
    daemon = tracking.start().ready()
    (tracking.tree / "one/f").write_text("x")
    daemon.done("one/f")
    daemon.stop()
    (tracking.tree / "one/f").unlink()
    assert _everything(tracking) == before
    assert {line["path"] for line in daemon.lines if "from_state" in line} == {"one/f"}
    assert tracking.sql("SELECT directory, name FROM files") == [(b"one", b"f")]


def _everything(site: Site) -> Any:
    return sorted(path for path in site.tree.rglob("*")), on_disk(site.tree)


def _ends(pid: int) -> bool:
    """Wait for the end of a process that somebody else has started."""
    try:
        fd = os.pidfd_open(pid)
    except ProcessLookupError:
        return True
    try:
        return bool(select.select([fd], [], [], DEADLINE)[0])
    finally:
        os.close(fd)
