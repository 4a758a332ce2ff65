"""inotify runs out, or is not used at all: every file is tracked all the same."""

import json
import subprocess
import time
from pathlib import Path

import pytest

from tests.acceptance.harness import DEADLINE, Line, RunningDaemon
from tests.acceptance.mounts import inotify_limit, inotify_watches, may_limit_inotify
from tests.acceptance.sites import Site

STEP = 'name = "s"\ncommand = ["/bin/true"]'
DIRECTORIES = [f"d{number:02}" for number in range(40)]
WATCHES, INSTANCES = "fs.inotify.max_user_watches", "fs.inotify.max_user_instances"


@pytest.fixture
def limits(site: Site) -> None:
    """Skip where a process may have no limits of its own."""
    if not may_limit_inotify(site.folder):
        pytest.skip("needs user namespaces")


def make(site: Site, directories: list[str]) -> list[str]:
    """A file in each of these directories, which are made; their paths."""
    for name in directories:
        (site.tree / name).mkdir()
        (site.tree / name / "f").write_text("1")
    return [f"{name}/f" for name in directories]


def assert_all_is_seen(daemon: RunningDaemon, root: Path, paths: list[str]) -> None:
    """In each directory a file is new, then changed, then removed, and each time it is noticed."""
    daemon.done(*paths)
    for path in paths:
        (root / path).write_text("22")
    daemon.wait_for(lambda _: all(daemon.having("change", path=path) for path in paths), "changes")
    daemon.done(*paths)
    for path in paths:
        (root / path).unlink()
    daemon.wait_for(lambda _: all(daemon.having("vanish", path=path) for path in paths), "removals")


def degraded(daemon: RunningDaemon, sysctl: str) -> Line:
    """The line that names the limit."""
    said = daemon.line("daemon.degraded", watch="w", sysctl=sysctl)
    assert said["level"] == "warning"
    assert said["reason"]
    return said


@pytest.mark.usefixtures("limits")
@pytest.mark.parametrize("existing", [30, 5])
def test_with_too_few_watches_the_rest_is_polled(site: Site, existing: int) -> None:
    """15 watches for 40 directories, whether the limit is met at the start or later.

    What can be watched is watched; the line names the sysctl, and a value that would do.
    """
    site.configure(site.watch(poll="300ms"))
    paths = make(site, DIRECTORIES[:existing])
    daemon = site.start(wrapper=inotify_limit(site.folder, "watches", 15)).ready()
    paths += make(site, DIRECTORIES[existing:])
    assert_all_is_seen(daemon, site.tree, paths)
    assert degraded(daemon, WATCHES)["value"] >= 40
    held = inotify_watches(daemon.pid)
    assert 7 < sum(held) <= 15, held
    daemon.stop()


@pytest.mark.usefixtures("limits")
def test_without_an_instance_all_is_polled(site: Site) -> None:
    """Inotify cannot even be begun: the line names that limit, and a value that would do."""
    site.configure(site.watch(poll="300ms"))
    paths = make(site, DIRECTORIES[:20])
    daemon = site.start(wrapper=inotify_limit(site.folder, "instances", 0)).ready()
    paths += make(site, DIRECTORIES[20:])
    assert_all_is_seen(daemon, site.tree, paths)
    assert degraded(daemon, INSTANCES)["value"] >= 1
    assert not inotify_watches(daemon.pid)
    daemon.stop()


@pytest.mark.usefixtures("limits")
@pytest.mark.parametrize(("limit", "value"), [("watches", 15), ("instances", 0)])
def test_status_tells_of_a_limit_that_was_met(site: Site, limit: str, value: int) -> None:
    """An operator who asks is told which sysctl it is, long after the line of the log."""
    site.configure(site.watch(poll="300ms"))
    make(site, DIRECTORIES)
    daemon = site.start(wrapper=inotify_limit(site.folder, limit, value)).ready()
    sysctl = f"fs.inotify.max_user_{limit}"
    needed = degraded(daemon, sysctl)["value"]
    for form in ([], ["--json"]):
        until = time.monotonic() + DEADLINE
        while sysctl not in (told := status(site, *form)):
            assert time.monotonic() < until, told
        assert str(needed) in told
    daemon.stop()


def status(site: Site, *form: str) -> str:
    answer = site.run("status", "--config", str(site.config), *form)
    assert answer.returncode == 0, answer.stderr
    return answer.stdout


@pytest.mark.usefixtures("limits")
@pytest.mark.parametrize(("limit", "value", "least"), [("watches", 15, 41), ("instances", 0, 1)])
def test_check_names_the_limit_before_it_is_met(
    site: Site, limit: str, value: int, least: int
) -> None:
    """Before any start: which sysctl is too low for these trees, and a value that would do."""
    site.configure(site.watch())
    make(site, DIRECTORIES)
    wrapper = inotify_limit(site.folder, limit, value)
    answer = subprocess.run(
        [*wrapper, *site.command("check", "--json", "--config", str(site.config))],
        capture_output=True,
        text=True,
        check=False,
        env=site._environment(),
        timeout=DEADLINE,
    )
    findings = [json.loads(line) for line in answer.stdout.splitlines()]
    (found,) = [f for f in findings if f["what"] == f"fs.inotify.max_user_{limit}"]
    assert found["level"] == "error"
    assert answer.returncode == 78
    named, _, advised = found["remedy"].split(",")[0].removeprefix("sysctl ").partition("=")
    assert named == found["what"]
    assert int(advised) >= least


@pytest.mark.usefixtures("limits")
def test_a_polled_tree_is_seen_without_inotify(site: Site) -> None:
    """With mode = "poll" no instance is held, by the daemon or by a process of its own."""
    site.configure(site.watch(STEP, mode="poll", poll="100ms"))
    paths = make(site, DIRECTORIES[:5])
    daemon = site.start(wrapper=inotify_limit(site.folder, "instances", 0)).ready()
    paths += make(site, DIRECTORIES[5:10])
    assert_all_is_seen(daemon, site.tree, paths)
    assert not inotify_watches(daemon.pid)
    daemon.stop()
    assert not daemon.having("daemon.degraded")


def test_a_rename_in_a_polled_tree_keeps_the_row(site: Site) -> None:
    """Two scans tell as much as a hint: it is the same file, and it is not handled again."""
    site.configure(site.watch(STEP, mode="poll", poll="100ms"))
    make(site, ["old", "new"])
    (site.tree / "new/f").unlink()
    daemon = site.start().ready()
    daemon.done("old/f")
    (site.tree / "old/f").rename(site.tree / "new/g")
    moved = daemon.line("move", path="new/g")
    assert moved["old_path"] == "old/f"
    assert moved["file_id"] == daemon.of("old/f")[0]["file_id"]
    assert moved["to_state"] == "done"
    (site.tree / "last").touch()
    daemon.done("last")
    daemon.stop()
    assert len(daemon.having("start")) == 2
    assert not daemon.having("vanish")
