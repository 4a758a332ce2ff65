"""The root of a watch is taken away, replaced, or emptied: nothing is concluded too early."""

import json
import shutil
import time
from collections import Counter
from collections.abc import Iterator
from itertools import count
from pathlib import Path
from typing import Any

import pytest

from tests.acceptance.clocks import Clock
from tests.acceptance.harness import DEADLINE, Line, RunningDaemon
from tests.acceptance.mounts import UNPRIVILEGED, Mounts, needs_mounts, private_mounts
from tests.acceptance.sites import Site

STEP = 'name = "s"\ncommand = ["/bin/true"]\nconcurrency = 8'


@pytest.fixture
def mounts(site: Site) -> Iterator[Mounts]:
    """A namespace for the daemon of the site. What is left in it ends with it."""
    del site
    with private_mounts() as found:
        yield found


@pytest.fixture
def clock(site: Site) -> Clock:
    """A second watch. The site's own has a handler, and is scanned all the time."""
    clock = Clock(site)
    site.configure(f"{site.watch(STEP, reconcile='200ms')}\n{clock.watch}")
    return clock


class Disk:
    """What is mounted on the watched root: the same file system each time.

    `device`: an ext4 of its own, and with its unmount all of it is off the machine. `bind`: a
    folder of a file system that stays mounted elsewhere, so that no watcher hears of the unmount.
    """

    def __init__(self, mounts: Mounts, site: Site, kind: str) -> None:
        self._mounts, self._kind, self._at = mounts, kind, site.tree
        self._source = site.folder / kind
        self.root = mounts.inside(site.tree)
        if kind == "bind":
            self._source.mkdir()
            mounts.tmpfs(self._source)
        self.attach()

    def attach(self) -> None:
        attach = self._mounts.bind if self._kind == "bind" else self._mounts.image
        attach(self._source, self._at)
        # mkfs leaves one in every new ext4.
        shutil.rmtree(self.root / "lost+found", ignore_errors=True)

    def detach(self) -> None:
        self._mounts.unmount(self._at)


def take_number(mounts: Mounts, site: Site, number: int) -> None:
    """Have another disk mounted under this number of a device.

    The kernel gives the lowest that is free. Other tests have disks as well: until they give this
    number back we try again, and what they give back below it we keep.
    """
    until = time.monotonic() + DEADLINE
    for turn in count():
        at = site.folder / f"elsewhere-{turn}"
        at.mkdir()
        mounts.image(site.folder / f"decoy-{turn}", at)
        if (got := mounts.inside(at).stat().st_dev) == number:
            return
        if got > number:
            mounts.unmount(at)
        assert time.monotonic() < until, f"{got} instead of {number}"


def fill(folder: Path, number: int) -> list[str]:
    """So many files; their names."""
    folder.mkdir(exist_ok=True)
    names = [f"f{n:03}" for n in range(number)]
    for name in names:
        (folder / name).write_text(name)
    return names


def states(lines: list[Line]) -> Counter[str]:
    """How many files of the watch the lines have left in each state."""
    last = {
        line["path"]: line["to_state"]
        for line in lines
        if line.get("watch") == "w" and line.get("outcome") == "success"
    }
    return Counter(last.values())


def await_state(daemon: RunningDaemon, state: str, number: int) -> None:
    """Wait until exactly so many files of the watch are in this state."""
    daemon.wait_for(lambda lines: states(lines)[state] == number, f"{number} x {state}")


def known(site: Site) -> Counter[str]:
    """The same, from the database by way of `ls`."""
    answer = site.run("ls", "--config", str(site.config), "--json", "--watch", "w")
    assert answer.returncode == 0, answer.stderr
    return Counter(json.loads(line)["state"] for line in answer.stdout.splitlines())


def assert_removals(site: Site, *, frozen: bool) -> None:
    """`status` says so of the watch, soon after the line of the log did, and why if they are."""
    until = time.monotonic() + DEADLINE
    while (found := removals(site))["frozen"] is not frozen:
        assert time.monotonic() < until, found
    assert bool(found["reason"]) is frozen
    assert found.keys() == {"frozen", "reason", "missing"}


def removals(site: Site) -> dict[str, Any]:
    answer = site.run("status", "--config", str(site.config), "--json")
    assert answer.returncode == 0, answer.stderr
    (watch,) = [w for w in json.loads(answer.stdout)["watches"] if w["name"] == "w"]
    found: dict[str, Any] = watch["removals"]
    return found


def vanished(daemon: RunningDaemon) -> list[Line]:
    return daemon.having("vanish", watch="w")


def any_line(daemon: RunningDaemon, *events: str) -> Line:
    """The first line about the watch with one of these events; waits for it."""

    def found() -> list[Line]:
        return [line for event in events for line in daemon.having(event, watch="w")]

    daemon.wait_for(lambda _: bool(found()), " or ".join(events))
    return found()[0]


def lost(daemon: RunningDaemon, site: Site, number: int = 1) -> None:
    """Wait for the word that the root is lost, with all that it has to tell."""
    said = daemon.nth(number, "daemon.root_lost", watch="w")
    assert said["level"] == "error"
    assert said["path"] == str(site.folder / "in")
    assert said["reason"]


def assert_serves(daemon: RunningDaemon, root: Path, name: str = "late") -> None:
    """Without a restart: a new file is handled, and once it is removed it is gone."""
    (root / name).write_text(name)
    daemon.done(name)
    assert daemon.having("start", path=name)
    (root / name).unlink()
    daemon.line("vanish", path=name)


@needs_mounts
@pytest.mark.parametrize("kind", ["device", "bind"])
def test_an_unmounted_root_removes_nothing(
    site: Site, clock: Clock, mounts: Mounts, kind: str
) -> None:
    """An empty mount point is no empty tree: its files stay done, and are not handled again."""
    disk = Disk(mounts, site, kind)
    fill(disk.root, 150)
    daemon = site.start(wrapper=mounts.wrapper).ready()
    await_state(daemon, "done", 150)
    disk.detach()
    lost(daemon, site)
    clock.tick(daemon)
    assert known(site) == {"done": 150}
    disk.attach()
    daemon.line("daemon.root_back", watch="w")
    assert not vanished(daemon)
    assert_serves(daemon, disk.root)
    daemon.stop()
    assert len(vanished(daemon)) == 1
    assert len(daemon.having("start")) == 151


@needs_mounts
@pytest.mark.parametrize(("kind", "number"), [("device", 150), ("bind", 5)])
def test_a_root_that_was_unmounted_before_the_start_removes_nothing(
    site: Site, clock: Clock, mounts: Mounts, kind: str, number: int
) -> None:
    """Which root it was is on record: a few files are as safe as many."""
    disk = Disk(mounts, site, kind)
    fill(disk.root, number)
    first = site.start(wrapper=mounts.wrapper).ready()
    await_state(first, "done", number)
    first.stop()
    disk.detach()
    daemon = site.start(wrapper=mounts.wrapper)
    said = any_line(daemon, "daemon.root_lost", "daemon.removals_frozen")
    assert said["reason"]
    clock.tick(daemon)
    assert known(site) == {"done": number}
    disk.attach()
    any_line(daemon, "daemon.root_back", "daemon.removals_thawed")
    assert not vanished(daemon)
    assert_serves(daemon, disk.root)
    daemon.stop()
    assert len(vanished(daemon)) == len(daemon.having("start")) == 1


@needs_mounts
@pytest.mark.parametrize(("kind", "number"), [("bind", 150), ("tmpfs", 5)])
def test_another_file_system_over_the_root_removes_nothing(
    site: Site, clock: Clock, mounts: Mounts, kind: str, number: int
) -> None:
    """Its files are handled, those below it are not gone; unmounted, all is as before."""
    fill(site.tree, number)
    daemon = site.start(wrapper=mounts.wrapper).ready()
    await_state(daemon, "done", number)
    other = site.folder / "other"
    other.mkdir()
    if kind == "tmpfs":
        mounts.tmpfs(other)
    for name in ("x", "y", "z"):
        (mounts.inside(other) / name).write_text(name)
    mounts.bind(other, site.tree)
    said = daemon.line("daemon.removals_frozen", watch="w")
    assert said["level"] == "error"
    assert said["reason"]
    daemon.done("x", "y", "z")
    clock.tick(daemon)
    assert not vanished(daemon)
    assert known(site) == {"done": number + 3}
    assert_removals(site, frozen=True)
    mounts.unmount(site.tree)
    daemon.line("daemon.removals_thawed", watch="w")
    await_state(daemon, "gone", 3)
    assert_serves(daemon, site.tree)
    assert_removals(site, frozen=False)
    daemon.stop()
    assert {line["path"] for line in vanished(daemon)} == {"x", "y", "z", "late"}
    assert len(daemon.having("start")) == number + 4


@needs_mounts
@pytest.mark.parametrize("running", [True, False], ids=["running", "down"])
def test_a_disk_that_comes_back_under_another_number_is_the_same(
    site: Site, clock: Clock, mounts: Mounts, *, running: bool
) -> None:
    """The kernel numbers devices as they come: with the same files it is the same root."""
    disk = Disk(mounts, site, "device")
    fill(disk.root, 150)
    daemon = site.start(wrapper=mounts.wrapper).ready()
    await_state(daemon, "done", 150)
    number = disk.root.stat().st_dev
    if not running:
        daemon.stop()
    disk.detach()
    if running:
        lost(daemon, site)
    take_number(mounts, site, number)
    disk.attach()
    assert disk.root.stat().st_dev != number, "the decoy has not taken the number"
    if running:
        daemon.line("daemon.root_back", watch="w")
    else:
        daemon = site.start(wrapper=mounts.wrapper).ready()
    clock.tick(daemon)
    assert not vanished(daemon)
    assert_serves(daemon, disk.root)
    assert_removals(site, frozen=False)
    daemon.stop()
    assert len(vanished(daemon)) == 1
    assert len(daemon.having("start")) == (151 if running else 1)


@pytest.mark.usefixtures("clock")
@pytest.mark.parametrize("how", ["at once", "later", "down"])
def test_a_root_that_was_made_anew_is_watched_again(site: Site, how: str) -> None:
    """What was in the old one is gone, and what comes into the new one is handled."""
    fill(site.tree, 5)
    daemon = site.start().ready()
    await_state(daemon, "done", 5)
    if how == "down":
        daemon.stop()
    shutil.rmtree(site.tree)
    if how == "later":
        lost(daemon, site)
    site.tree.mkdir()
    (site.tree / "first").touch()
    if how == "down":
        daemon = site.start()
    daemon.done("first")
    daemon.wait_for(lambda _: len(vanished(daemon)) == 5, "end of the old files")
    assert_serves(daemon, site.tree)
    if how == "later":
        daemon.line("daemon.root_back", watch="w")
    daemon.stop()
    assert states(daemon.lines) == {"done": 1, "gone": 6}


def test_a_root_that_is_renamed_and_comes_back_has_lost_nothing(site: Site, clock: Clock) -> None:
    """Nothing is gone, nothing is handled twice, and what was put in meanwhile is found."""
    fill(site.tree, 5)
    daemon = site.start().ready()
    await_state(daemon, "done", 5)
    away = site.tree.rename(site.folder / "away")
    lost(daemon, site)
    (away / "meanwhile").touch()
    clock.tick(daemon)
    assert known(site) == {"done": 5}
    away.rename(site.tree)
    daemon.line("daemon.root_back", watch="w")
    daemon.done("meanwhile")
    assert not vanished(daemon)
    assert_serves(daemon, site.tree)
    daemon.stop()
    assert len(daemon.having("start")) == 7


@pytest.mark.parametrize("taken", ["root", "parent"])
def test_a_root_that_may_not_be_read_is_lost(site: Site, taken: str) -> None:
    """It is said with the reason, nothing is gone, and once allowed it is served again."""
    clock, parent = Clock(site), site.folder / "parent"
    root = parent / "in"
    watch = site.watch(STEP, path="parent/in", reconcile="200ms")
    site.configure(f"{watch}\n{clock.watch}")
    parent.mkdir()
    fill(root, 5)
    daemon = site.start(wrapper=UNPRIVILEGED).ready()
    await_state(daemon, "done", 5)
    locked = root if taken == "root" else parent
    locked.chmod(0)
    said = daemon.line("daemon.root_lost", watch="w")
    assert "ermission denied" in said["reason"]
    assert said["path"] == str(root)
    clock.tick(daemon)
    assert known(site) == {"done": 5}
    locked.chmod(0o755)
    daemon.line("daemon.root_back", watch="w")
    assert not vanished(daemon)
    assert_serves(daemon, root)
    daemon.stop()
    assert len(daemon.having("start")) == 6


def many(
    site: Site, number: int, *steps: str, total: int = 300, share: float | None = None
) -> tuple[Clock, RunningDaemon]:
    """A daemon that is through with its files, so many of them in the folder `big`."""
    clock = Clock(site)
    watch = site.watch(*steps) if share is None else site.watch(*steps, freeze_share=share)
    site.configure(f"{watch}\n{clock.watch}")
    fill(site.tree / "big", number)
    fill(site.tree / "small", total - number)
    daemon = site.start().ready()
    await_state(daemon, "done", total)
    return clock, daemon


@pytest.mark.parametrize("running", [True, False], ids=["running", "down"])
def test_a_mass_removal_waits_for_an_operator(site: Site, *, running: bool) -> None:
    """250 of 300 at once stay, also over a restart; confirmed, they are gone.

    Meanwhile new files are handled, and other watches lose theirs as ever.
    """
    clock, daemon = many(site, 250, STEP)
    if not running:
        daemon.stop()
    (site.tree / "big").rename(site.folder / "out")
    if not running:
        daemon = site.start()
    said = daemon.line("daemon.removals_frozen", watch="w")
    assert said["level"] == "error"
    assert said["missing"] == 250
    assert said["reason"]
    (site.tree / "new").touch()
    daemon.done("new")
    last = clock.tick(daemon)
    (site.folder / "clock" / last).unlink()
    daemon.line("vanish", watch="clock", path=last)
    assert not vanished(daemon)
    assert_removals(site, frozen=True)
    daemon.stop()
    daemon = site.start().ready()
    clock.tick(daemon)
    assert_removals(site, frozen=True)
    assert known(site) == {"done": 301}
    confirmed = site.run("reconcile", "--config", str(site.config), "--confirm-removals", "w")
    assert confirmed.returncode == 0, confirmed.stderr
    daemon.line("daemon.removals_thawed", watch="w")
    await_state(daemon, "gone", 250)
    assert_removals(site, frozen=False)
    daemon.stop()
    assert known(site) == {"done": 51, "gone": 250}


def test_files_that_come_back_let_removals_go_on(site: Site) -> None:
    """A scan that finds them thaws by itself; they are not handled again."""
    clock, daemon = many(site, 250, STEP)
    out = (site.tree / "big").rename(site.folder / "out")
    daemon.line("daemon.removals_frozen", watch="w")
    out.rename(site.tree / "big")
    said = daemon.line("daemon.removals_thawed", watch="w")
    assert said["level"] == "info"
    assert said["reason"]
    clock.tick(daemon)
    assert not vanished(daemon)
    assert_removals(site, frozen=False)
    assert_serves(daemon, site.tree)
    daemon.stop()
    assert len(daemon.having("start")) == 301


@pytest.mark.parametrize(
    ("number", "total", "share"),
    [(90, 150, None), (120, 300, None), (250, 300, 0.9)],
    ids=["less than 100", "less than half", "less than 0.9"],
)
def test_a_smaller_removal_is_an_ordinary_one(
    site: Site, number: int, total: int, share: float | None
) -> None:
    """Not more than 100 files, or not more than the share of the watch: they are gone."""
    _, daemon = many(site, number, total=total, share=share)
    (site.tree / "big").rename(site.folder / "out")
    await_state(daemon, "gone", number)
    daemon.stop()
    assert not daemon.having("daemon.removals_frozen")


def test_the_share_is_the_operators_to_choose(site: Site) -> None:
    """With 0.3, 120 of 300 files are too many to be gone at once."""
    clock, daemon = many(site, 120, share=0.3)
    (site.tree / "big").rename(site.folder / "out")
    assert daemon.line("daemon.removals_frozen", watch="w")["missing"] == 120
    clock.tick(daemon)
    daemon.stop()
    assert not vanished(daemon)
