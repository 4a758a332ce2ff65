"""Real writers: each file is handled once, when it is whole, however it came to be."""

import os
import shutil
import subprocess
from collections.abc import Callable, Sequence
from random import Random

import pytest

from tests.acceptance.clocks import Clock
from tests.acceptance.harness import RunningDaemon
from tests.acceptance.sites import Effects, Site
from tests.acceptance.writers import (
    CHUNK,
    CHUNKS,
    LONG_AGO,
    append_and_close,
    append_in_one_go,
    digest,
    fill_what_was_allocated,
    keep_an_old_time,
    never_close,
    write,
    write_beside_and_rename,
    write_through_a_map,
    write_twice,
    writer,
)

# What a handler gets to see, by its own reading.
REPORT = (
    'set -- $(sha256sum <"$TREEWARDEN_PATH")\n'
    'echo "$TREEWARDEN_RELPATH $(wc -c <"$TREEWARDEN_PATH") $1" >"$EFFECTS"'
)
# The slow appenders write 30 lines in so many seconds; with 30 it is a line a second.
SECONDS = float(os.environ.get("TREEWARDEN_TEST_APPEND_SECONDS", "3"))
LARGE = 64 << 20


class Handled:
    """A daemon on the site, whose handler reports size and digest of what it has been given."""

    def __init__(self, site: Site, quiet: float, exclude: Sequence[str] = ()) -> None:
        self._site = site
        self.effects: Effects = site.effects()
        self.clock = Clock(site)
        step = f'name = "s"\ncommand = [{site.script("report", REPORT)}]'
        settle = f'quiet = "{round(quiet * 1000)}ms"'
        watch = site.watch(step, settle=settle, exclude=list(exclude))
        site.configure(f"{watch}\n{self.clock.watch}")
        self.daemon: RunningDaemon = site.start().ready()

    def assert_once(self, name: str) -> None:
        """One file has been handled, once, and what its handler read is what is there now."""
        path = self._site.tree / name
        assert self.effects.next().decode() == f"{name} {path.stat().st_size} {digest(path)}"
        # A second run would come no later than that of a file that comes after it.
        (self._site.tree / "last").touch()
        assert self.effects.next().startswith(b"last 0 ")
        self.daemon.done(name, "last")
        self.daemon.stop()
        started = [line["path"] for line in self.daemon.having("start")]
        assert started == [name, "last"]


@pytest.mark.parametrize("function", [append_in_one_go, append_and_close])
def test_a_slow_append(site: Site, function: Callable[..., None]) -> None:
    """Thirty lines with a pause after each, whether the file is open meanwhile or not."""
    pause = SECONDS / 30
    handled = Handled(site, 5 * pause)
    write(function, site.tree / "log", 30, pause)
    handled.assert_once("log")


@pytest.mark.parametrize("preserving", [[], ["--preserve=timestamps"]], ids=["new", "old time"])
def test_a_large_copy(site: Site, preserving: list[str]) -> None:
    """64 MB by cp: the handler gets all of them, also where cp puts back an old time at its end."""
    source = site.folder / "source"
    with source.open("wb") as file:
        for _ in range(LARGE >> 20):
            file.write(Random(1).randbytes(1 << 20))  # noqa: S311 - bytes that are no zeros
    os.utime(source, (LONG_AGO, LONG_AGO))
    handled = Handled(site, 0.05)
    subprocess.run(["cp", *preserving, source, site.tree / "large"], check=True)
    handled.assert_once("large")
    assert handled.daemon.line("start", path="large")["size"] == LARGE


def as_rsync_does(site: Site) -> None:
    write(write_beside_and_rename, site.tree / "data", 0.1)


def rsync(site: Site) -> None:
    """The program itself, at 1 MB/s."""
    source = site.folder / "data"
    source.write_bytes(Random(1).randbytes(1 << 20))  # noqa: S311 - bytes that are no zeros
    os.utime(source, (LONG_AGO, LONG_AGO))
    subprocess.run(["rsync", "--times", "--bwlimit=1M", source, f"{site.tree}/"], check=True)


@pytest.mark.parametrize("exclude", [[], [".*"]], ids=["all names", "no dots"])
@pytest.mark.parametrize("sync", [as_rsync_does, *([rsync] if shutil.which("rsync") else [])])
def test_a_temporary_name_and_a_rename(
    site: Site, sync: Callable[[Site], None], exclude: list[str]
) -> None:
    """What is handled has its real name, and the temporary one never is."""
    handled = Handled(site, 0.05, exclude)
    sync(site)
    handled.assert_once("data")


def test_space_that_is_allocated_first(site: Site) -> None:
    """The size is final from the first moment, and the pauses are longer than the quiet time."""
    handled = Handled(site, 0.05)
    write(fill_what_was_allocated, site.tree / "download", 0.2)
    handled.assert_once("download")
    assert handled.daemon.line("start", path="download")["size"] == CHUNK * CHUNKS


def test_a_time_of_long_ago(site: Site) -> None:
    """An mtime of 2001 says nothing of when the file was written: it is still open."""
    handled = Handled(site, 0.05)
    write(keep_an_old_time, site.tree / "unpacked", 0.2)
    assert (site.tree / "unpacked").stat().st_mtime == LONG_AGO
    handled.assert_once("unpacked")


def test_a_file_that_is_opened_again_within_the_quiet_time(site: Site) -> None:
    """Closed, and a second later appended to: with 2 s of quiet it is one file, not two."""
    handled = Handled(site, 2.0)
    write(write_twice, site.tree / "twice", 1)
    handled.assert_once("twice")


def test_a_map_of_a_closed_file(site: Site) -> None:
    """Without a descriptor, but mapped for writing: it settles when the map is gone."""
    handled = Handled(site, 0.05)
    with writer(write_through_a_map, site.tree / "mapped") as process:
        process.await_word("closed")
        handled.clock.tick(handled.daemon, 3)
        assert handled.daemon.state("mapped") == "settling"
        process.go_on()
        process.await_word("written")
        handled.clock.tick(handled.daemon, 3)
        assert handled.daemon.state("mapped") == "settling"
        process.go_on()
        process.await_word("unmapped")
        # The process lives on: it is the map that counted.
        handled.assert_once("mapped")


def test_a_writer_that_never_closes(site: Site) -> None:
    """Its file is `settling` as long as it lives, however quiet, and is handled when it ends."""
    handled = Handled(site, 0.05)
    with writer(never_close, site.tree / "open") as process:
        process.await_word("written")
        handled.clock.tick(handled.daemon, 3)
        assert handled.daemon.state("open") == "settling"
        process.go_on()
        process.await_word("whole")
        handled.clock.tick(handled.daemon, 3)
        assert handled.daemon.state("open") == "settling"
        assert not handled.daemon.having("start")
        process.go_on()
        process.end()
    handled.assert_once("open")


def test_a_file_that_is_still_open_is_explained(site: Site) -> None:
    """The answer is no, with the evidence that is missing; once it is done there is none."""
    handled = Handled(site, 0.05)
    path = site.tree / "open"
    with writer(never_close, path) as process:
        process.await_word("written")
        handled.clock.tick(handled.daemon, 3)
        for name in ("open", str(path)):
            answer = site.run("explain", "--config", str(site.config), name)
            assert answer.returncode == 1, answer.stderr
            assert "settling" in answer.stdout
            assert "open for writing" in answer.stdout
    handled.assert_once("open")
    answer = site.run("explain", "--config", str(site.config), "open")
    assert "open for writing" not in answer.stdout
