"""`reconcile` with the real daemon: a scan on demand, and an operator's word on removals."""

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.acceptance.harness import DEADLINE, PROJECT, RunningDaemon
from tests.acceptance.sites import Site

STEP = 'name = "load"\ncommand = ["/bin/true"]'
MEMORY = Path("/dev/shm")  # noqa: S108 - another file system, for any user
ROOT_ONLY = pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")


@pytest.fixture
def elsewhere(site: Site) -> Iterator[Path]:
    """A folder on another file system than the tree."""
    if not MEMORY.is_dir() or MEMORY.stat().st_dev == site.tree.stat().st_dev:
        pytest.skip("no second file system")
    folder = tempfile.mkdtemp(dir=MEMORY, prefix="treewarden-test-")
    yield Path(folder)
    shutil.rmtree(folder)


def reconcile(site: Site, *arguments: str) -> subprocess.CompletedProcess[str]:
    return site.run("reconcile", "--config", str(site.config), *arguments)


def watch_status(site: Site) -> dict[str, Any]:
    answer = site.run("status", "--json", "--config", str(site.config))
    assert answer.returncode == 0, answer.stderr
    watch: dict[str, Any] = json.loads(answer.stdout)["watches"][0]
    return watch


def until(site: Site, *, frozen: bool) -> dict[str, Any]:
    """Wait until `status` says so: it is told a moment after the line."""
    end = time.monotonic() + DEADLINE
    while (watch := watch_status(site))["removals"]["frozen"] is not frozen:
        assert time.monotonic() < end, watch
    return watch


def polled(site: Site) -> RunningDaemon:
    """A daemon that sees nothing by itself in the time of a test."""
    site.configure(site.watch(STEP, mode="poll", poll="1h"))
    return site.start().ready()


def test_a_scan_on_demand(site: Site) -> None:
    """What nobody told the daemon of is found as soon as an operator asks; the answer names it."""
    daemon = polled(site)
    (site.tree / "a").touch()
    answer = reconcile(site, "w")
    assert (answer.returncode, answer.stderr) == (0, "")
    assert answer.stdout == "asked for a scan of w\n"
    daemon.done("a")
    (site.tree / "b").touch()
    assert reconcile(site).stdout == "asked for a scan of w\n"
    daemon.done("b")
    daemon.stop()
    assert list((site.state / "requests").iterdir()) == []


def test_a_daemon_that_does_not_run(site: Site) -> None:
    """There is nobody to ask: 69, whether it has run or never did; nothing is left for later."""
    site.configure(site.watch(STEP))
    assert reconcile(site).returncode == 69
    site.start().ready().stop()
    answer = reconcile(site, "--confirm-removals", "w")
    assert answer.returncode == 69
    assert answer.stderr.startswith(f"treewarden: no daemon runs on {site.state}; ")
    assert list((site.state / "requests").iterdir()) == []


def test_an_unknown_watch_is_a_usage_error(site: Site) -> None:
    """A watch that is not configured ends with 64 and names those that are."""
    daemon = polled(site)
    answer = reconcile(site, "w", "nope")
    assert answer.returncode == 64
    assert "no watch 'nope'; there are: w" in answer.stderr
    daemon.stop()


def test_a_daemon_that_does_not_answer(site: Site) -> None:
    """75 after a while, in one sentence, and what was asked for is taken back."""
    daemon = polled(site)
    daemon.signal(signal.SIGSTOP)
    arguments = ["reconcile", "-c", str(site.config)]
    answer = _python(
        "import sys, daemon.cli.reconcile as module\n"
        f"module.PATIENCE_SECONDS = 0.1; sys.argv[1:] = {arguments!r}\n"
        "from daemon.cli import main\n"
        "main()"
    )
    daemon.signal(signal.SIGCONT)
    assert answer.returncode == 75
    assert f"the daemon, pid {daemon.pid}, has not answered within 0.1 s" in answer.stderr
    assert list((site.state / "requests").iterdir()) == []
    daemon.stop()


@ROOT_ONLY
@pytest.mark.parametrize("mode", [0o700, 0o755])
def test_a_user_who_may_not_ask(site: Site, mode: int) -> None:
    """Whoever may not see into the state folder, or not write there, is told so, with 77."""
    daemon = polled(site)
    for folder in (site.folder, *site.folder.parents[:-2]):
        folder.chmod(folder.stat().st_mode | 0o011)
    site.state.chmod(mode)
    site.config.chmod(0o644)
    answer = _python(
        f"import os, sys; sys.argv[1:] = ['reconcile', '--config', {str(site.config)!r}]\n"
        "from daemon.cli import main, reconcile\n"
        "os.setgroups([]); os.setgid(65534); os.setuid(65534)\n"
        "main()"
    )
    assert answer.returncode == 77, answer.stderr
    assert "is not for this user to" in answer.stderr
    daemon.stop()


def test_removals_are_frozen_until_an_operator_confirms(site: Site, elsewhere: Path) -> None:
    """Another file system under the root: `status` says what to type, and that does it."""
    site.configure(site.watch(STEP))
    for name in ("a", "b"):
        (site.tree / name).touch()
    daemon = site.start().ready()
    daemon.done("a", "b")
    assert watch_status(site)["removals"] == {"frozen": False, "reason": None, "missing": None}
    site.tree.rename(site.folder / "away")
    site.tree.symlink_to(elsewhere)
    lost = daemon.line("daemon.root_lost", watch="w")
    frozen = daemon.line("daemon.removals_frozen", watch="w")
    assert frozen["reason"] == f"the root is lost: {lost['reason']}"
    assert until(site, frozen=True)["removals"]["reason"] == frozen["reason"]
    text = site.run("status", "--config", str(site.config)).stdout.splitlines()[-1]
    told, _, command = text.partition("; if they were meant to go: ")
    assert told.startswith("w  removals frozen")
    (site.tree / "new").touch()
    daemon.done("new")
    program, *arguments = command.split()
    assert program == "treewarden"
    answer = site.run(*arguments)
    assert answer.returncode == 0, answer.stderr
    assert answer.stdout == "asked for a scan of w; what it misses may go, however much it is\n"
    daemon.line("daemon.root_back", watch="w")
    thawed = daemon.line("daemon.removals_thawed", watch="w")
    assert thawed["reason"] == "an operator has confirmed"
    for name in ("a", "b"):
        daemon.line("vanish", path=name)
    assert until(site, frozen=False)["removals"]["reason"] is None
    order = [line["event"] for line in daemon.stop()]
    assert order.index("vanish") > order.index("daemon.removals_thawed")
    again = site.start().ready()
    assert not any(line["event"].startswith("daemon.root") for line in again.stop())


def test_what_was_frozen_when_the_daemon_stopped(site: Site) -> None:
    """With the daemon down `status` says nothing of its watching, but that removals were frozen."""
    site.configure(site.watch(STEP))
    (site.tree / "a").touch()
    daemon = site.start().ready()
    daemon.done("a")
    detection = watch_status(site)["detection"]
    assert (detection["mode"], detection["overflows"], detection["restarts"]) == ("inotify", 0, 0)
    site.tree.rename(site.folder / "away")
    daemon.line("daemon.removals_frozen")
    until(site, frozen=True)
    daemon.stop()
    watch = watch_status(site)
    assert watch["detection"] is None
    assert watch["removals"]["frozen"] is True
    text = site.run("status", "--config", str(site.config)).stdout
    assert "removals were frozen when the daemon stopped: the root is lost: No such file" in text


def _python(program: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", program],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "PYTHONPATH": str(PROJECT)},
        timeout=DEADLINE,
    )
