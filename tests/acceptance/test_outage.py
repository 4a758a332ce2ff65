"""What the real daemon stands on is taken away: its log, its database, its disk."""

import fcntl
import os
import sqlite3
import subprocess
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest

from tests.acceptance.harness import RunningDaemon, parse
from tests.acceptance.sites import Effects, Site

REPORT = 'echo "$TREEWARDEN_RELPATH" >"$EFFECTS"'


@pytest.fixture
def effects(site: Site) -> Effects:
    """The site is configured with a handler that reports here."""
    effects = site.effects()
    site.configure(site.watch(f'name = "s"\ncommand = [{site.script("report", REPORT)}]'))
    return effects


def handle(site: Site, effects: Effects, *names: str) -> None:
    """Drop files; wait until each has been handled."""
    for name in names:
        (site.tree / name).touch()
    assert {effects.next().decode() for _ in names} == set(names)


def assert_nothing_missing(site: Site, *daemons: RunningDaemon) -> None:
    """Every transition has its line, in one run or another."""
    told = {
        (line["file_id"], line["version"])
        for daemon in daemons
        for line in daemon.lines
        if line.get("outcome") == "success"
    }
    assert told == set(site.sql("SELECT file_id, version FROM transitions"))


def test_a_closed_stdout_is_only_the_end_of_the_log(site: Site, effects: Effects) -> None:
    """Started with `>&-`: files are handled, nothing is written elsewhere, the lines are owed."""
    daemon = site.start(wrapper=("/bin/sh", "-c", 'exec "$@" >&-', "sh"))
    handle(site, effects, "a", "b")
    daemon.stop()
    assert site.sql("PRAGMA integrity_check") == [("ok",)]
    after = site.start().ready()
    after.done("a", "b")
    after.stop()
    assert_nothing_missing(site, after)


@pytest.mark.parametrize("closed", ["<&- >&- 2>&-", "<&-", "2>&-"])
def test_closed_descriptors_are_not_taken_by_something_else(
    site: Site, effects: Effects, closed: str
) -> None:
    """Whatever of 0, 1 and 2 is missing at the start, the daemon serves and loses nothing."""
    daemon = site.start(wrapper=("/bin/sh", "-c", f'exec "$@" {closed}', "sh"))
    handle(site, effects, "a", "b")
    daemon.stop()
    assert site.sql("PRAGMA integrity_check") == [("ok",)]
    after = site.start().ready()
    after.stop()
    assert_nothing_missing(site, daemon, after)


def test_a_reader_that_goes_away_is_only_the_end_of_the_log(site: Site, effects: Effects) -> None:
    """EPIPE: files are handled all the same, and the next run writes the lines."""
    read, write = os.pipe()
    daemon = site.start(stdout=write)
    os.close(write)
    handle(site, effects, "before")
    os.close(read)
    handle(site, effects, "after1")
    handle(site, effects, "after2")
    daemon.stop()
    after = site.start().ready()
    after.done("after1", "after2")
    after.stop()
    # What was in the pipe when its reader went is gone with it; the rest is told.
    names = "SELECT f.id FROM files f WHERE name LIKE 'after%'"
    wanted = set(site.sql(f"SELECT file_id, version FROM transitions WHERE file_id IN ({names})"))  # noqa: S608
    assert wanted <= {(line.get("file_id"), line.get("version")) for line in after.lines}


@contextmanager
def small_pipe(*, blocking: bool) -> Iterator[tuple[int, int]]:
    """A pipe of one page, so that a few lines fill it."""
    read, write = os.pipe()
    fcntl.fcntl(write, fcntl.F_SETPIPE_SZ, 4096)
    os.set_blocking(write, blocking)
    try:
        yield read, write
    finally:
        os.close(read)


@pytest.mark.parametrize("blocking", [True, False])
def test_a_stalled_reader_stops_no_handler(site: Site, effects: Effects, *, blocking: bool) -> None:
    """With the pipe full, files are handled; when the reader reads on, it gets every line once.

    Also where the other end has made the pipe non-blocking.
    """
    with small_pipe(blocking=blocking) as (read, write):
        daemon = site.start(stdout=write)
        os.close(write)
        handle(site, effects, *(f"a{number}" for number in range(60)))
        handle(site, effects, "last")
        daemon.process.stdout = os.fdopen(os.dup(read), "rb")
        daemon.read()
        daemon.done("last", *(f"a{number}" for number in range(60)))
        daemon.stop()
    assert_nothing_missing(site, daemon)
    keys = [
        (line["file_id"], line["version"])
        for line in daemon.lines
        if "version" in line and "file_id" in line
    ]
    assert len(keys) == len(set(keys))


def test_a_reader_that_stays_away_does_not_keep_it_from_stopping(
    site: Site, effects: Effects
) -> None:
    """SIGTERM with the pipe full: the end comes after a few seconds, and the lines are owed."""
    with small_pipe(blocking=True) as (read, write):
        daemon = site.start(stdout=write)
        os.close(write)
        handle(site, effects, *(f"a{number}" for number in range(30)))
        daemon.stop()
        piped = os.read(read, 65536).splitlines(keepends=True)
    daemon.lines += [parse(raw) for raw in piped if raw.endswith(b"\n")]
    after = site.start().ready()
    after.stop()
    assert_nothing_missing(site, daemon, after)


@contextmanager
def locked(database: Path, mode: str) -> Iterator[None]:
    """Another process's transaction, as far as SQLite can tell."""
    with closing(sqlite3.connect(database, isolation_level=None)) as db:
        db.execute(f"BEGIN {mode}")
        yield
        db.execute("ROLLBACK")


@pytest.mark.parametrize("mode", ["IMMEDIATE", "EXCLUSIVE"])
def test_a_locked_database_holds_everything_up_and_loses_nothing(
    site: Site, effects: Effects, mode: str
) -> None:
    """No handler starts; it is said when it goes away and when it is back; then all is done."""
    daemon = site.start().ready()
    handle(site, effects, "before")
    daemon.done("before")
    with locked(site.database, mode):
        for name in ("a", "b", "c"):
            (site.tree / name).touch()
        said = daemon.line("daemon.store_unavailable")
        assert "locked" in said["error"]
        assert not daemon.having("start", path="a")
    daemon.line("daemon.store_back")
    daemon.done("a", "b", "c")
    daemon.stop()
    assert_nothing_missing(site, daemon)
    assert sorted(effects.next() for _ in range(3)) == [b"a", b"b", b"c"]


def test_an_outcome_waits_for_a_locked_database(site: Site) -> None:
    """What a handler did while the database was locked is recorded once it is back, not redone."""
    effects, gate = site.effects(), site.gate()
    script = site.script("wait", f'{REPORT}; read x <"$GATE"; {REPORT}')
    site.configure(site.watch(f'name = "s"\ncommand = [{script}]'))
    daemon = site.start().ready()
    (site.tree / "a").touch()
    effects.next()
    with locked(site.database, "IMMEDIATE"):
        gate.open()
        effects.next()
        daemon.line("daemon.store_unavailable")
    daemon.done("a")
    daemon.stop()
    assert len(daemon.having("start")) == 1


def test_a_stop_with_a_locked_database_ends_and_loses_nothing(site: Site) -> None:
    """SIGTERM: exit 0 all the same; what could not be recorded is done again."""
    effects, gate = site.effects(), site.gate()
    script = site.script("wait", f'{REPORT}; read x <"$GATE"')
    site.configure(site.watch(f'name = "s"\ncommand = [{script}]'))
    daemon = site.start().ready()
    (site.tree / "a").touch()
    effects.next()
    with locked(site.database, "IMMEDIATE"):
        gate.open()
        daemon.line("daemon.store_unavailable")
        daemon.stop()
    gate.open()
    after = site.start()
    assert effects.next() == b"a"
    after.done("a")
    after.stop()
    assert_nothing_missing(site, daemon, after)


def test_a_database_that_is_locked_at_the_start_is_waited_for(site: Site, effects: Effects) -> None:
    """It is said, and the daemon serves once the lock is gone."""
    site.start().ready().stop()
    (site.tree / "a").touch()
    with locked(site.database, "IMMEDIATE"):
        daemon = site.start()
        daemon.line("daemon.store_unavailable")
    daemon.done("a")
    daemon.stop()
    with locked(site.database, "EXCLUSIVE"):
        (site.tree / "b").touch()
        again = site.start()
        again.line("daemon.store_unavailable")
    again.done("b")
    again.stop()
    assert effects.next() + effects.next() == b"ab"


def test_a_database_that_was_removed_is_noticed(site: Site, effects: Effects) -> None:
    """SQLite would go on writing into the unlinked file: the daemon ends, and says why."""
    daemon = site.start().ready()
    handle(site, effects, "a")
    daemon.done("a")
    site.database.unlink()
    (site.tree / "b").touch()
    said = daemon.line("daemon.store_unavailable")
    assert str(site.database) in said["error"]
    assert daemon.wait() == 74
    assert "removed or replaced" in daemon.stderr
    assert not [line for line in daemon.lines if line.get("path") == "b"]


@contextmanager
def mounted(folder: Path, size: str) -> Iterator[Path]:
    """A file system of its own, so small that it can be filled."""
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", f"size={size}", "treewarden-test", str(folder)]
    if os.geteuid() != 0 or subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("mounting a file system needs root")
    try:
        yield folder
    finally:
        # A daemon may still have files open there; it ends after this.
        subprocess.run(["umount", "--lazy", str(folder)], check=True)


@pytest.fixture
def small_disk(site: Site) -> Iterator[Path]:
    """The state folder on a file system of its own."""
    with mounted(site.state, "8m") as folder:
        yield folder


def test_a_full_disk_is_waited_out(site: Site, effects: Effects, small_disk: Path) -> None:
    """No handler starts that could not be recorded; with room again all is done, nothing twice."""
    daemon = site.start().ready()
    handle(site, effects, "before")
    daemon.done("before")
    filler = small_disk / "filler"
    fill(filler)
    names = [f"{number}-{'x' * 200}" for number in range(200)]
    for name in names:
        (site.tree / name).touch()
    said = daemon.line("daemon.store_unavailable")
    assert "full" in said["error"]
    filler.unlink()
    daemon.line("daemon.store_back")
    assert {effects.next().decode() for _ in names} == set(names)
    daemon.done(*names)
    daemon.stop()
    assert_nothing_missing(site, daemon)
    assert site.sql("PRAGMA integrity_check") == [("ok",)]


def fill(path: Path) -> None:
    """To the last byte."""
    with path.open("wb", buffering=0) as file:
        for size in (65536, 4096, 1):
            try:
                while file.write(b"x" * size):
                    pass
            except OSError:
                continue


def test_a_full_disk_at_the_start_is_said(site: Site, effects: Effects, small_disk: Path) -> None:
    """Exit 74, without a traceback; with room again it starts."""
    fill(small_disk / "filler")
    result = site.refused()
    assert result.returncode == 74
    assert str(small_disk) in result.stderr
    assert "Traceback" not in result.stderr
    (small_disk / "filler").unlink()
    daemon = site.start().ready()
    handle(site, effects, "a")
    daemon.stop()


def test_a_log_on_a_full_disk_is_waited_out(site: Site, effects: Effects) -> None:
    """The log's disk is full: files are handled; with room again every line is there, whole."""
    with mounted(site.folder / "logs", "64k") as logs:
        site.config.write_text(site.config.read_text().replace('"stdout"', '"logs/log"'))
        daemon = site.start()
        handle(site, effects, "before")
        fill(logs / "filler")
        names = [f"{number}-{'x' * 100}" for number in range(20)]
        handle(site, effects, *names)
        (logs / "filler").unlink()
        daemon.stop()
        told = [parse(raw) for raw in whole_lines(logs / "log")]
    assert told[-1]["event"] == "daemon.stopped"
    versions = {(line["file_id"], line["version"]) for line in told if "file_id" in line}
    assert versions == set(site.sql("SELECT file_id, version FROM transitions"))


def whole_lines(path: Path) -> list[bytes]:
    """Without those that broke off when the disk was full: each was ended, and written again."""
    return [line for line in path.read_bytes().splitlines(keepends=True) if line.endswith(b"}\n")]
