"""An archive that is not mounted: files wait for it, and none goes below the mount point."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import pytest

from daemon.engine.births import born_ns
from tests.acceptance.harness import DEADLINE, PROJECT, Line, RunningDaemon
from tests.acceptance.mounts import Mounts, needs_mounts, private_mounts
from tests.acceptance.sites import Site
from tests.acceptance.test_after import told, with_key

pytestmark = needs_mounts

REFUSED = 'name = "load"\ncommand = ["sh", "-c", "exit 65"]'


@pytest.fixture
def mounts(site: Site) -> Iterator[Mounts]:
    """A namespace for the daemon of the site. What is left in it ends with it."""
    del site
    with private_mounts() as found:
        yield found


class Archive:
    """A mount point `archive` to which a watch takes its files by `key`, and what to mount there.

    `device`: an ext4 of its own. `bind`: a folder of the file system that has the mount point as
    well, and the tree: what lies on which device tells nothing there.
    """

    def __init__(self, site: Site, mounts: Mounts, kind: str = "device") -> None:
        self.path = site.folder / "archive"
        self.path.mkdir()
        self.root = mounts.inside(self.path)
        self._site, self._mounts, self._kind = site, mounts, kind
        self._born: dict[int | None, str] = {}

    def configure(self, key: str = "on_done", *steps: str) -> None:
        move = f'{key} = {{ move = "archive/{{relpath}}" }}'
        self._site.configure(with_key(self._site, move, *steps))

    def mount(self, name: str = "first") -> None:
        source = self._site.folder / name
        if self._kind == "bind":
            source.mkdir(exist_ok=True)
            self._mounts.bind(source, self.path)
        else:
            self._mounts.image(source, self.path)
            # Two that are made in one second have roots of one birth: here they are to differ.
            while self._born.setdefault(born_ns(bytes(self.root)), name) != name:
                self.unmount()
                source.unlink()
                self._mounts.image(source, self.path)
        # mkfs leaves one in every new ext4.
        shutil.rmtree(self.root / "lost+found", ignore_errors=True)

    def unmount(self) -> None:
        self._mounts.unmount(self.path)

    @property
    def names(self) -> list[str]:
        """What stands there now; below the mount point, where nothing is mounted."""
        return sorted(path.name for path in self.root.iterdir())


@pytest.fixture(params=["device", "bind"])
def archive(request: pytest.FixtureRequest, site: Site, mounts: Mounts) -> Archive:
    return Archive(site, mounts, request.param)


def put(site: Site, name: str) -> None:
    (site.tree / name).write_text(name)


def taken(daemon: RunningDaemon, *names: str) -> None:
    for name in names:
        daemon.line("succeed", path=name, step="on_done", to_state="gone")


def waits(daemon: RunningDaemon, name: str) -> Line:
    """The file was tried, and has spent nothing."""
    line = daemon.line("interrupt", path=name, cause="unavailable", to_state="ready")
    assert "is not the archive that is known" in line["error"]
    return line


def confirm(site: Site) -> None:
    answer = site.run("reconcile", "--config", str(site.config), "--confirm-archive", "w")
    assert (answer.returncode, answer.stderr) == (0, "")
    assert "are the right ones" in answer.stdout


def run(mounts: Mounts, *argv: str) -> subprocess.CompletedProcess[bytes]:
    """Run a program of ours where the daemon is; to enter a namespace leads to its root."""
    return subprocess.run(
        [*mounts.wrapper, *argv],
        capture_output=True,
        check=False,
        timeout=DEADLINE,
        env={**os.environ, "PYTHONPATH": str(PROJECT)},
    )


def check(site: Site, mounts: Mounts) -> dict[str, Any]:
    """What `check` finds of `on_done`."""
    said = run(mounts, *site.command("check", "--json", "--config", str(site.config)))
    (found,) = [f for f in map(json.loads, said.stdout.splitlines()) if f["what"] == "w.on_done"]
    return dict(found)


def test_files_wait_until_it_is_mounted(site: Site, mounts: Mounts, archive: Archive) -> None:
    """None goes below the mount point, none spends an attempt; each is said once, what and why."""
    archive.configure()
    archive.mount()
    assert check(site, mounts)["level"] == "warning"  # nobody knows it yet
    daemon = site.start(wrapper=mounts.wrapper).ready()
    put(site, "a")
    taken(daemon, "a")
    assert check(site, mounts)["level"] == "ok"
    archive.unmount()
    for name in ("b", "c"):
        put(site, name)
        waits(daemon, name)
    said = daemon.line("daemon.archive_lost", watch="w", step="on_done", path=str(archive.path))
    assert said["level"] == "error"
    assert f"nothing is mounted at '{archive.path}'" in said["reason"]
    assert "treewarden reconcile --confirm-archive w" in said["reason"]
    assert f"nothing is mounted at '{archive.path}'" in check(site, mounts)["detail"]
    assert (archive.names, sorted(p.name for p in site.tree.iterdir())) == ([], ["b", "c"])
    archive.mount()
    daemon.line("daemon.archive_back", watch="w", step="on_done", path=str(archive.path))
    taken(daemon, "b", "c")
    daemon.stop()
    assert archive.names == ["a", "b", "c"]
    assert not daemon.having("fail")
    assert [len(daemon.having(f"daemon.archive_{what}")) for what in ("lost", "back")] == [1, 1]


def test_it_is_known_after_a_restart(site: Site, mounts: Mounts, archive: Archive) -> None:
    """A daemon that starts while it is not mounted takes nothing there, and then goes on."""
    archive.configure()
    archive.mount()
    daemon = site.start(wrapper=mounts.wrapper).ready()
    put(site, "a")
    taken(daemon, "a")
    daemon.stop()
    archive.unmount()
    daemon = site.start(wrapper=mounts.wrapper).ready()
    put(site, "b")
    waits(daemon, "b")
    assert archive.names == []
    archive.mount()
    taken(daemon, "b")
    daemon.stop()
    assert archive.names == ["a", "b"]


def test_a_new_disk_is_taken_when_an_operator_says_so(site: Site, mounts: Mounts) -> None:
    """Until then nothing goes there; afterwards it is the known one, also after a restart."""
    archive = Archive(site, mounts)
    archive.configure()
    archive.mount()
    daemon = site.start(wrapper=mounts.wrapper).ready()
    put(site, "a")
    taken(daemon, "a")
    daemon.stop()
    archive.unmount()
    archive.mount("second")
    daemon = site.start(wrapper=mounts.wrapper).ready()
    put(site, "b")
    assert "another file system" in waits(daemon, "b")["error"]
    assert archive.names == []
    confirm(site)
    daemon.line("daemon.archive_back", watch="w", step="on_done")
    taken(daemon, "b")
    daemon.stop()
    daemon = site.start(wrapper=mounts.wrapper).ready()
    put(site, "c")
    taken(daemon, "c")
    assert archive.names == ["b", "c"]
    archive.unmount()
    archive.mount("first")
    put(site, "d")
    waits(daemon, "d")
    daemon.stop()
    assert archive.names == ["a"]


def test_the_first_one_is_trusted(site: Site, mounts: Mounts, archive: Archive) -> None:
    """Without a record, as at an upgrade, what stands there is it, even with nothing mounted."""
    archive.configure()
    daemon = site.start(wrapper=mounts.wrapper).ready()
    put(site, "a")
    taken(daemon, "a")
    archive.mount()
    put(site, "b")
    waits(daemon, "b")
    assert archive.names == []
    confirm(site)
    taken(daemon, "b")
    daemon.stop()
    assert archive.names == ["b"]


def test_quarantined_files_wait_as_well(site: Site, mounts: Mounts, archive: Archive) -> None:
    """What is to be taken aside stays in the tree, and `explain` says why."""
    archive.configure("on_quarantine", REFUSED)
    archive.mount()
    daemon = site.start(wrapper=mounts.wrapper).ready()
    put(site, "a")
    daemon.line("vanish", path="a", to_state="gone")
    archive.unmount()
    put(site, "b")
    daemon.line("daemon.archive_lost", watch="w", step="on_quarantine", path=str(archive.path))
    said = daemon.line("daemon.degraded", reason="quarantined files stay in the tree")
    assert "is not the archive that is known" in said["error"]
    assert f"'{archive.path}' is not the archive that is known" in told(site, "b")[1]
    assert (archive.names, (site.tree / "b").exists()) == ([], True)
    archive.mount()
    confirm(site)  # it is right anyway; so nobody has to wait for the next try
    daemon.line("daemon.archive_back", watch="w", step="on_quarantine")
    daemon.line("vanish", path="b", to_state="gone")
    daemon.stop()
    assert archive.names == ["a", "a.reason.json", "b", "b.reason.json"]


def test_it_cannot_be_confirmed_while_it_is_away(site: Site, mounts: Mounts) -> None:
    """Where there is no folder at all the log says that nothing came of an operator's word."""
    archive = Archive(site, mounts)
    archive.configure()
    archive.path.rmdir()
    daemon = site.start(wrapper=mounts.wrapper).ready()
    confirm(site)
    said = daemon.line("daemon.degraded", watch="w")
    assert said["reason"] == "an archive cannot be confirmed while it is away"
    daemon.stop()


def test_nobody_unmounts_it_while_a_file_is_taken(site: Site, mounts: Mounts) -> None:
    """Between the look at the folder and the last name below it no umount comes to pass."""
    archive = Archive(site, mounts)
    archive.mount()
    program = (
        "import os, subprocess, sys\n"
        "from daemon.handlers.archive import held\n"
        "path = sys.argv[1]\n"
        "with held(os.fsencode(path), None):\n"
        "    assert subprocess.run(['umount', path], stderr=-3).returncode == 32\n"
        "assert subprocess.run(['umount', path]).returncode == 0\n"
    )
    ended = run(mounts, sys.executable, "-c", program, str(archive.path))
    assert ended.returncode == 0, ended.stderr
