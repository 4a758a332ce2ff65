"""When the real daemon takes a file for complete."""

import fcntl
import os
import resource
import time
from itertools import count
from pathlib import Path

import pytest

from tests.acceptance.harness import RunningDaemon
from tests.acceptance.sites import Site

STEP = 'name = "s"\ncommand = ["/bin/true"]'
PROBING = 'quiet = "20ms"'
IGNORING = 'quiet = "20ms"\nwriters = "ignore"'
QUIET_SECONDS = 0.4


@pytest.fixture
def leases(tmp_path: Path) -> None:
    """Skip where the file system of the test knows no leases."""
    path = tmp_path / "lease"
    path.touch()
    fd = os.open(path, os.O_RDONLY)
    try:
        fcntl.fcntl(fd, fcntl.F_SETLEASE, fcntl.F_RDLCK)
    except OSError:
        pytest.skip("no leases on this file system")
    finally:
        os.close(fd)
        path.unlink()


@pytest.mark.usefixtures("leases")
def test_a_file_that_is_held_open_is_not_handed_over(site: Site) -> None:
    """However long it is quiet: a slow writer's file stays `settling` until it is closed.

    Both for a file that arrives while the daemon runs and for one that it finds at its start.
    """
    site.configure(site.watch(STEP, settle=PROBING))
    with (site.tree / "found").open("wb") as found:
        found.write(b"half")
        found.flush()
        daemon = site.start().ready()
        with (site.tree / "arrived").open("wb") as arrived:
            arrived.write(b"half")
            arrived.flush()
            # Files that come and go through a whole life show that time has passed.
            for number in range(5):
                (site.tree / f"quick{number}").touch()
                daemon.done(f"quick{number}")
            assert daemon.state("found") == daemon.state("arrived") == "settling"
            arrived.write(b" whole")
            found.write(b" whole")
    daemon.done("found", "arrived")
    daemon.stop()
    for name in ("found", "arrived"):
        (settle,) = daemon.having("settle", path=name)
        assert settle["evidence"] == "quiet+lease"
        assert settle["size"] == len(b"half whole")
        assert len(daemon.having("start", path=name)) == 1


def test_without_the_probe_only_quiet_counts(site: Site) -> None:
    """With writers = "ignore", an open file that is quiet is handed over, and the line says so."""
    site.configure(site.watch(STEP, settle=IGNORING))
    daemon = site.start().ready()
    with (site.tree / "open").open("wb") as file:
        file.write(b"x")
        file.flush()
        daemon.done("open")
    daemon.stop()
    (complete,) = [line for line in daemon.of("open") if line["to_state"] == "ready"]
    assert complete["evidence"] == "quiet"


def test_a_file_that_grows_is_not_handed_over_even_without_the_probe(site: Site) -> None:
    """Each write starts the quiet time anew: what the handler gets is the whole.

    Where a busy machine lets more than that time pass between two writes, it is tried again.
    """
    effects = site.effects()
    script = site.script(
        "size", 'echo "$TREEWARDEN_RELPATH" $(wc -c <"$TREEWARDEN_PATH") >"$EFFECTS"'
    )
    settle = f'quiet = "{QUIET_SECONDS}s"\nwriters = "ignore"'
    site.configure(site.watch(f'name = "s"\ncommand = [{script}]', settle=settle))
    daemon = site.start().ready()
    for turn in count():
        name = f"slow{turn}"
        gaps = grow(site.tree / name, daemon)
        daemon.line("succeed", path=name, size=20)
        if max(gaps) < QUIET_SECONDS:
            break
    daemon.stop()
    reports = [report for report in effects.rest() if report.split()[0] == name.encode()]
    assert reports == [b"%b 20" % name.encode()]
    assert [line["size"] for line in daemon.having("start", path=name)] == [20]


def grow(path: Path, daemon: RunningDaemon) -> list[float]:
    """Write a file bit by bit; how long it was left alone each time, at most."""
    times = []
    with path.open("wb", buffering=0) as file:
        for number in range(20):
            times.append(time.monotonic())
            file.write(b"x")
            times.append(time.monotonic())
            # Another file's line is the clock of this test.
            tick = path.with_name(f"{path.name}-tick{number}")
            tick.touch()
            daemon.line("discover", path=tick.name)
    return [after - before for before, after in zip(times[::2], times[3::2], strict=False)]


def test_times_in_the_future_and_the_past_do_not_confuse_it(site: Site) -> None:
    """A file dated 2040 settles once it has stood for the quiet time; one of 1970 does as well."""
    site.configure(site.watch(STEP))
    daemon = site.start().ready()
    for name, date in (("future", 2_208_988_800), ("past", 0), ("before", -1_000_000)):
        (site.tree / name).touch()
        os.utime(site.tree / name, (date, date))
    daemon.done("future", "past", "before")
    daemon.stop()
    assert len(daemon.having("start")) == 3


@pytest.mark.usefixtures("leases")
def test_a_shortage_of_descriptors_is_no_evidence(site: Site) -> None:
    """A probe that could not be made does not count as one that found nobody writing."""
    (site.folder / "clock").mkdir()
    clock = site.watch(name="clock", path="clock", settle=IGNORING)
    site.configure(f"{site.watch(STEP, settle=PROBING)}\n{clock}")
    daemon = site.start().ready()
    limits = resource.prlimit(daemon.pid, resource.RLIMIT_NOFILE)
    with (site.tree / "open").open("wb") as file:
        file.write(b"half")
        file.flush()
        resource.prlimit(daemon.pid, resource.RLIMIT_NOFILE, (3, limits[1]))
        for number in range(5):
            (site.folder / f"clock/{number}").touch()
            daemon.done(str(number))
        assert daemon.state("open") == "settling"
        resource.prlimit(daemon.pid, resource.RLIMIT_NOFILE, limits)
    daemon.done("open")
    daemon.stop()
    assert len(daemon.having("start")) == 1
