"""Mounts, limits and modes that a daemon meets, without anything that the machine would notice.

What is mounted here is seen by the daemon alone, and ends with its namespace.
"""

import os
import subprocess
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from tests.acceptance.harness import DEADLINE

# Without these two, root is refused what a file's mode refuses, as anybody is.
UNPRIVILEGED = (
    ("setpriv", "--bounding-set", "-dac_override,-dac_read_search") if os.geteuid() == 0 else ()
)


def may_mount() -> bool:
    allowed = subprocess.run(["unshare", "--mount", "true"], capture_output=True, check=False)
    return os.geteuid() == 0 and allowed.returncode == 0


needs_mounts = pytest.mark.skipif(not may_mount(), reason="needs root and mount namespaces")
needs_fuse = pytest.mark.skipif(
    not (may_mount() and os.access("/dev/fuse", os.R_OK | os.W_OK)), reason="needs /dev/fuse"
)


class Mounts:
    """A mount namespace. The daemon of a test is started in it: `site.start(wrapper=...)`."""

    def __init__(self, holder: int) -> None:
        self._root = Path(f"/proc/{holder}/root")
        self.wrapper = ("nsenter", f"--target={holder}", "--mount", "--")

    def inside(self, path: Path) -> Path:
        """The path by which the test reaches what stands at `path` in the namespace."""
        return self._root / path.relative_to("/")

    def tmpfs(self, at: Path) -> None:
        """An empty file system."""
        self._run("mount", "-t", "tmpfs", "treewarden-test", str(at))

    def bind(self, source: Path, at: Path) -> None:
        """A folder, in a second place."""
        self._run("mount", "--bind", str(source), str(at))

    def image(self, image: Path, at: Path) -> None:
        """A disk: a file with an ext4 in it, made where there is none yet."""
        if not image.exists():
            with image.open("wb") as file:
                file.truncate(16 << 20)
            self._run("mkfs.ext4", "-qF", str(image))
        self._run("mount", "-o", "loop", str(image), str(at))

    @contextmanager
    def hanging(self, at: Path) -> Iterator[None]:
        """A file system that answers nobody: a FUSE without a server. What waits at the end fails.

        The kernel lets whoever waits for it be killed, as with a server of NFS that is away.
        """
        # Without it there would be no program either; its device may be kept from us.
        with open("/dev/fuse", "r+b", buffering=0) as device:  # noqa: PTH123 - a device
            options = f"fd={device.fileno()},rootmode=40000,user_id=0,group_id=0"
            argv = ("mount", "-i", "-t", "fuse", "-o", options, "treewarden-test", str(at))
            self._run(*argv, pass_fds=(device.fileno(),))
            try:
                yield
            finally:
                # First, for a namespace that is gone by then: nobody is to wait any more.
                self._try("umount", "--lazy", str(at))

    def unmount(self, at: Path) -> None:
        """Take away what was mounted there last; a scan that is inside is waited for."""
        until = time.monotonic() + DEADLINE
        while (ended := self._try("umount", str(at))).returncode:
            assert b"busy" in ended.stderr, ended.stderr
            assert time.monotonic() < until, ended.stderr

    def _run(self, *argv: str, pass_fds: Sequence[int] = ()) -> None:
        ended = self._try(*argv, pass_fds=pass_fds)
        assert ended.returncode == 0, ended.stderr

    def _try(self, *argv: str, pass_fds: Sequence[int] = ()) -> subprocess.CompletedProcess[bytes]:
        return subprocess.run(
            [*self.wrapper, *argv],
            capture_output=True,
            check=False,
            timeout=DEADLINE,
            pass_fds=pass_fds,
        )


@contextmanager
def private_mounts() -> Iterator[Mounts]:
    """A mount namespace, held by a process that ends with us, however we end."""
    holder = subprocess.Popen(
        ["unshare", "--mount", "cat"], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    with holder:
        assert holder.stdin is not None
        assert holder.stdout is not None
        # The echo shows that the namespace is there: before that, /proc leads into our own.
        holder.stdin.write(b"\n")
        holder.stdin.flush()
        assert holder.stdout.readline() == b"\n"
        yield Mounts(holder.pid)


def inotify_limit(folder: Path, limit: str, value: int) -> tuple[str, ...]:
    """A wrapper: for what it runs, inotify's `max_user_<limit>` is this; the host's stays.

    The kernel counts in each user namespace, but shows the first one's number in all of them: a
    file is mounted over it.
    """
    shown = folder / f"max_user_{limit}"
    shown.write_text(f"{value}\n")
    script = (
        f"echo {value} >/proc/sys/user/max_inotify_{limit}\n"
        f'mount --bind "$0" /proc/sys/fs/inotify/max_user_{limit}\n'
        'exec "$@"'
    )
    namespaces = ("unshare", "--user", "--map-root-user", "--mount")
    return (*namespaces, "sh", "-ec", script, str(shown))


def may_limit_inotify(folder: Path) -> bool:
    """Whether this machine lets us have a user namespace with limits of its own."""
    wrapper = inotify_limit(folder, "watches", 15)
    return subprocess.run([*wrapper, "true"], capture_output=True, check=False).returncode == 0


def inotify_watches(pid: int) -> list[int]:
    """How many watches each inotify instance holds, of a process and of those it has started."""
    return [count for each in _family(pid) for count in _watches_of(Path(f"/proc/{each}"))]


def _family(pid: int) -> Iterator[int]:
    """Threads end while we look, and so do processes."""
    yield pid
    with suppress(FileNotFoundError, ProcessLookupError):
        for thread in Path(f"/proc/{pid}/task").iterdir():
            for child in (thread / "children").read_text().split():
                yield from _family(int(child))


def _watches_of(process: Path) -> Iterator[int]:
    links = (process / "fd").iterdir() if process.exists() else ()
    for link in links:
        with suppress(FileNotFoundError):
            if str(link.readlink()) == "anon_inode:inotify":
                yield (process / "fdinfo" / link.name).read_bytes().count(b"inotify ")
