"""A program on a disk that hangs: the kernel lets nobody load it until the test says so."""

import ctypes
import os
import select
import shutil
import struct
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.acceptance.harness import DEADLINE
from tests.acceptance.sites import Site

# <linux/fanotify.h>
_CLASS_CONTENT, _CLOEXEC = 0x04, 0x01
_ADD, _OPEN_EXEC_PERM = 0x01, 0x0004_0000
_ALLOW = 1
_EVENT = struct.Struct("=IBBHQii")
_AT_FDCWD = -100


class Disk:
    """Every exec of `program` waits until it is let pass (fanotify(7))."""

    def __init__(self, program: Path) -> None:
        libc = ctypes.CDLL(None, use_errno=True)
        self._fd = libc.fanotify_init(_CLASS_CONTENT | _CLOEXEC, os.O_RDONLY | os.O_CLOEXEC)
        mask = ctypes.c_uint64(_OPEN_EXEC_PERM)
        path = os.fsencode(program)
        if self._fd < 0 or libc.fanotify_mark(self._fd, _ADD, mask, _AT_FDCWD, path) < 0:
            pytest.skip("needs root, and a kernel with fanotify's permission events")

    def next(self) -> int:
        """Wait until somebody wants to load it; to be given to `let_pass`."""
        readable, _, _ = select.select([self._fd], [], [], DEADLINE)
        assert readable, "nobody wanted to load the program"
        *_, fd, _ = _EVENT.unpack(os.read(self._fd, _EVENT.size))
        return int(fd)

    def let_pass(self, fd: int) -> None:
        os.write(self._fd, struct.pack("=iI", fd, _ALLOW))
        os.close(fd)

    def close(self) -> None:
        """Whoever waits may go on."""
        os.close(self._fd)


@pytest.fixture
def program(tmp_path: Path) -> Path:
    return Path(shutil.copy("/bin/true", tmp_path / "program"))


@pytest.fixture
def disk(program: Path) -> Iterator[Disk]:
    disk = Disk(program)
    yield disk
    disk.close()


def test_others_go_on(site: Site, program: Path, disk: Disk) -> None:
    """Other files are handled meanwhile; its own spends no attempt, and is done when it can be."""
    step = (
        f'name = "away"\ncommand = ["{program}"]\ntimeout = "300ms"\n'
        'breaker = { after = 1, first = "100ms", max = "100ms" }'
    )
    other = '[[watch]]\nname = "o"\npath = "other"\ncreate = true\n[watch.settle]\nquiet = 0\n'
    step_of_other = '[[watch.step]]\nname = "s"\ncommand = ["true"]'
    site.configure(f"{site.watch(step)}\n{other}{step_of_other}")
    daemon = site.start().ready()
    (site.tree / "a").write_text("x")
    held = disk.next()
    (site.folder / "other" / "b").write_text("x")
    daemon.done("b")
    line = daemon.line("interrupt", path="a")
    assert line["error"] == f"{program}: not loaded after 0.3s: does the disk with it hang?"
    disk.let_pass(held)
    disk.let_pass(disk.next())
    daemon.done("a")
    daemon.stop()
    assert site.sql("SELECT max(failures) FROM files") == [(0,)]


def test_the_daemon_stops(site: Site, program: Path, disk: Disk) -> None:
    """A stop waits for it no longer than for any other handler, and its file is interrupted."""
    step = f'name = "away"\ncommand = ["{program}"]\nkill_after = "100ms"'
    site.configure(site.watch(step), daemon='drain = "100ms"')
    daemon = site.start().ready()
    (site.tree / "a").write_text("x")
    held = disk.next()
    daemon.process.terminate()
    daemon.line("interrupt", path="a", cause="shutdown")
    disk.let_pass(held)
    assert daemon.process.wait(DEADLINE) == 0
