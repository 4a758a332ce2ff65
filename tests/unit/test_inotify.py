"""inotify's limits: what is counted, and what is said."""

import os
from pathlib import Path

import pytest

from daemon.cli.checks.inotify import Extent, Usage, examine_limits, extent_of, usage_of
from daemon.engine.inotify import Setting, remedy, setting_in_force


def test_directories_are_counted_and_links_are_not_followed(tmp_path: Path) -> None:
    """The root and every directory below it count; files and links to directories do not."""
    (tmp_path / "a" / "b").mkdir(parents=True)
    (tmp_path / "c").mkdir()
    (tmp_path / "file").touch()
    (tmp_path / "link").symlink_to("a")
    assert extent_of(os.fsencode(tmp_path)) == Extent(4, [])


def test_a_root_that_is_not_there_has_no_directories(tmp_path: Path) -> None:
    """A directory that vanished is not one to watch, and nothing that could not be read."""
    assert extent_of(os.fsencode(tmp_path / "absent")) == Extent(0, [])


def test_what_other_processes_hold_is_counted(tmp_path: Path) -> None:
    """Instances and watches of this user's processes, but for the daemon's own."""
    for pid, watches in ((10, 2), (11, 3), (12, 100)):
        (tmp_path / str(pid) / "fd").mkdir(parents=True)
        (tmp_path / str(pid) / "fdinfo").mkdir()
        (tmp_path / str(pid) / "fd" / "5").symlink_to("anon_inode:inotify")
        (tmp_path / str(pid) / "fd" / "6").symlink_to("/dev/null")
        text = "pos:\t0\n" + "inotify wd:1 ino:2 sdev:3 mask:4\n" * watches
        (tmp_path / str(pid) / "fdinfo" / "5").write_text(text)
    assert usage_of(os.geteuid(), 12, tmp_path) == Usage(2, 5)
    assert usage_of(os.geteuid() + 1, None, tmp_path) == Usage(0, 0)


@pytest.mark.parametrize(
    ("allowed", "level", "remedy"),
    [
        (100_000, "ok", None),
        (60_000, "warning", "131072"),
        (50_000, "error", "131072"),
    ],
)
def test_the_watches_against_the_limit(
    tmp_path: Path, allowed: int, level: str, remedy: str | None
) -> None:
    """Beyond the limit is an error, close to it a warning; the value to set leaves half free."""
    (tmp_path / "max_user_watches").write_text(f"{allowed}\n")
    (tmp_path / "max_user_instances").write_text("128\n")
    extents = [Extent(40_000, []), Extent(10_000, [])]
    watches, instances = examine_limits([b"/a", b"/b"], extents, Usage(1, 1_000), tmp_path)
    assert (watches.level, instances.level) == (level, "ok")
    assert (remedy or "") in (watches.remedy or "")
    assert bool(watches.remedy) == (level != "ok")
    assert "needed 50000, in other use by this user 1000" in watches.detail


@pytest.mark.parametrize(
    ("machine", "container", "named"),
    [
        (8_192, 8_192, "fs.inotify.max_user_watches"),
        (8_192, 100, "user.max_inotify_watches"),
        (8_192, None, "fs.inotify.max_user_watches"),
    ],
)
def test_the_limit_that_counts(
    tmp_path: Path, machine: int, container: int | None, named: str
) -> None:
    """The machine's or the container's, whichever is lower; the machine's where they are one."""
    (tmp_path / "fs" / "inotify").mkdir(parents=True)
    (tmp_path / "fs" / "inotify" / "max_user_watches").write_text(f"{machine}\n")
    (tmp_path / "user").mkdir()
    if container is not None:
        (tmp_path / "user" / "max_inotify_watches").write_text(f"{container}\n")
    found = setting_in_force("max_user_watches", tmp_path)
    assert found == Setting(named, min(machine, container or machine))


def test_a_value_that_would_do(tmp_path: Path) -> None:
    """More than the limit that was met, and twice what is needed; nothing if it cannot be read."""
    (tmp_path / "fs" / "inotify").mkdir(parents=True)
    assert remedy("max_user_instances", 1, tmp_path) is None
    (tmp_path / "fs" / "inotify" / "max_user_instances").write_text("128\n")
    (tmp_path / "fs" / "inotify" / "max_user_watches").write_text("8192\n")
    assert remedy("max_user_instances", 1, tmp_path) == Setting(
        "fs.inotify.max_user_instances", 512
    )
    assert remedy("max_user_watches", 1, tmp_path) == Setting("fs.inotify.max_user_watches", 65_536)
    needed = Setting("fs.inotify.max_user_watches", 262_144)
    assert remedy("max_user_watches", 100_000, tmp_path) == needed
