"""A watched tree on a file system that hangs: its own watch waits for it, and no other."""

import json
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.acceptance.harness import DEADLINE, PROJECT, RunningDaemon
from tests.acceptance.mounts import Mounts, needs_fuse, private_mounts
from tests.acceptance.sites import Site

pytestmark = needs_fuse

NUMBERED = [f"f{number}" for number in range(20)]
STEP = '[[watch.step]]\nname = "load"\ncommand = ["cat"]\nstdin = "file"'
SILENT = "its file system does not answer"


@pytest.fixture
def mounts() -> Iterator[Mounts]:
    with private_mounts() as mounts:
        yield mounts


def watch(name: str, quiet: str, *keys: str) -> str:
    head = f'[[watch]]\nname = "{name}"\npath = "{name}"\ncreate = true\nmode = "inotify"'
    return "\n".join((head, *keys, f'[watch.settle]\nquiet = "{quiet}"', STEP))


def configure(site: Site, quiet: str, *keys: str) -> Path:
    """Watches `far` and `near`; returns the tree of `far`, which is to hang."""
    watches = watch("far", quiet, *keys), watch("near", "50ms", *keys)
    site.configure("\n".join(watches), daemon='drain = "200ms"')
    far = site.folder / "far"
    far.mkdir()
    return far


def assert_others_go_on(site: Site, daemon: RunningDaemon, name: str) -> None:
    """A file of another watch is found and handled, and missed when it is gone."""
    file = site.folder / "near" / name
    file.write_text("content")
    daemon.line("succeed", watch="near", path=name, to_state="done")
    file.unlink()
    daemon.line("vanish", watch="near", path=name, to_state="gone")


def ask(site: Site, mounts: Mounts, *words: str) -> subprocess.CompletedProcess[str]:
    """A command, where the daemon runs, which ends by itself."""
    argv = [*mounts.wrapper, *site.command(words[0], "--config", str(site.config), *words[1:])]
    return subprocess.run(
        argv, capture_output=True, text=True, check=False, timeout=DEADLINE, cwd=PROJECT
    )


@pytest.mark.parametrize("end", ["stop", "kill"])
@pytest.mark.parametrize("identity", ["stat", "content"])
def test_others_go_on(site: Site, mounts: Mounts, end: str, identity: str) -> None:
    """A tree that begins to hang holds up no other; nor a stop, nor the start that follows."""
    far = configure(site, "3s", f'identity = "{identity}"')
    daemon = site.start(wrapper=mounts.wrapper).ready()
    for name in NUMBERED:
        (far / name).write_text("content")
    daemon.nth(len(NUMBERED), "discover", watch="far")
    with mounts.hanging(far):
        # Now their quiet time ends, and each is to be looked at.
        daemon.line("daemon.tree_silent", watch="far")
        assert_others_go_on(site, daemon, "x")
        getattr(daemon, end)()
        daemon = site.start(wrapper=mounts.wrapper).ready()
        assert daemon.line("daemon.root_lost", watch="far")["reason"] == SILENT
        assert_others_go_on(site, daemon, "y")
        getattr(daemon, end)()
    daemon = site.start(wrapper=mounts.wrapper).ready()
    daemon.done(*NUMBERED)
    assert not daemon.having("vanish", watch="far")
    daemon.stop()


def test_nobody_waits_at_once(site: Site, mounts: Mounts) -> None:
    """Nor do others wait for the moment in which it is found to hang."""
    far = configure(site, "3s")
    daemon = site.start(wrapper=mounts.wrapper).ready()
    for name in NUMBERED:
        (far / name).write_text("content")
    daemon.nth(len(NUMBERED), "discover", watch="far")
    with mounts.hanging(far):
        for number in range(50):
            assert_others_go_on(site, daemon, f"x{number}")
            if daemon.having("daemon.tree_silent"):
                break
        assert daemon.having("daemon.tree_silent", watch="far")
        slowest = max(line["duration_ms"] for line in daemon.having("succeed", watch="near"))
        assert slowest < 2000
        daemon.stop()


def test_it_answers_again(site: Site, mounts: Mounts) -> None:
    """What came meanwhile is handled when the tree answers, and nothing is taken for removed."""
    far = configure(site, "50ms")
    with mounts.hanging(far):
        daemon = site.start(wrapper=mounts.wrapper).ready()
        (far / "below").write_text("content")
        daemon.line("daemon.root_lost", watch="far")
    daemon.line("daemon.root_back", watch="far")
    daemon.done("below")
    with mounts.hanging(far):
        (far / "again").write_text("content")
        assert_others_go_on(site, daemon, "x")
        daemon.line("daemon.tree_silent", watch="far")
    daemon.line("daemon.tree_answers", watch="far")
    daemon.done("again")
    assert not daemon.having("vanish", watch="far")
    daemon.stop()


def test_commands(site: Site, mounts: Mounts) -> None:
    """`status`, `explain` and `check` answer, and say which tree does not."""
    far = configure(site, "50ms")
    daemon = site.start(wrapper=mounts.wrapper).ready()
    (far / "a").write_text("content")
    daemon.done("a")
    with mounts.hanging(far):
        daemon.line("daemon.tree_silent", watch="far")
        said = ask(site, mounts, "status", "--json")
        watches = {each["name"]: each for each in json.loads(said.stdout)["watches"]}
        assert watches["far"]["detection"]["silent_since"]
        assert watches["near"]["detection"]["silent_since"] is None
        assert "no answer from its file system for" in ask(site, mounts, "status").stdout
        for path in ("a", str(far / "a")):
            assert SILENT in ask(site, mounts, "explain", path).stdout
        said = ask(site, mounts, "check")
        assert f"'{far}' does not answer" in said.stdout
        assert "near.path" in said.stdout
        daemon.stop()


def test_adopted_when_it_answers(site: Site, mounts: Mounts) -> None:
    """What was there before a first start is adopted, though it was not seen by that."""
    far = configure(site, "50ms", 'existing = "adopt"')
    (far / "old").write_text("content")
    with mounts.hanging(far):
        daemon = site.start(wrapper=mounts.wrapper).ready()
    daemon.line("discover", path="old", to_state="done")
    (far / "new").write_text("content")
    daemon.line("succeed", path="new", to_state="done")
    assert [line["event"] for line in daemon.of("old")] == ["discover"]
    daemon.stop()
