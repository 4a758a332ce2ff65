"""The real program of a watcher's process, with other numbers, or in narrower surroundings."""

import asyncio
import ctypes
import os
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

import pytest

from daemon.sources import watcher
from tests.engine.conftest import DEADLINE

# Root reads everything; without these two it is subject to the modes of files like anybody.
POWERS = "-dac_override,-dac_read_search"
NAMESPACE = (
    *("unshare", "--user", "--map-root-user", "--mount", "--pid", "--fork", "--mount-proc"),
    *("--kill-child", "sh", "-c"),
)
SEIZE, INTERRUPT, DETACH, WALL = 0x4206, 0x4207, 17, 0x40000000


def alter(monkeypatch: pytest.MonkeyPatch, module: str, **numbers: int) -> None:
    """Have the next watchers run with other values of a module's constants."""
    changes = "; ".join(f"changed.{name} = {value}" for name, value in numbers.items())
    start, main = watcher._PROGRAM.rsplit("; ", 1)
    program = f"{start}; import daemon.sources.{module} as changed; {changes}; {main}"
    monkeypatch.setattr(watcher, "_PROGRAM", program)


def confine(monkeypatch: pytest.MonkeyPatch, **limits: int) -> None:
    """Have the next watchers run with lower limits of inotify, in a user namespace of their own."""
    if subprocess.run((*NAMESPACE, "true"), check=False, capture_output=True).returncode:
        pytest.skip("no user namespaces here")
    settings = (f"echo {n} > /proc/sys/user/max_inotify_{limit}" for limit, n in limits.items())
    script = "; ".join((*settings, 'exec "$0" "$@"'))
    monkeypatch.setattr(watcher, "_PYTHON", (*NAMESPACE, script, *watcher._PYTHON))


def weaken(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have the next watchers run without root's power to read everything."""
    if os.geteuid() == 0:
        drop = ("setpriv", f"--bounding-set={POWERS}", f"--inh-caps={POWERS}")
        monkeypatch.setattr(watcher, "_PYTHON", (*drop, *watcher._PYTHON))


@contextmanager
def paused(pid: int) -> Iterator[None]:
    """A process that does not run, as on a machine that is too busy."""
    os.kill(pid, signal.SIGSTOP)
    os.waitid(os.P_PID, pid, os.WSTOPPED | os.WNOWAIT)
    try:
        yield
    finally:
        os.kill(pid, signal.SIGCONT)


@contextmanager
def deaf(pid: int) -> Iterator[None]:
    """A process whose thread that reads the kernel's queue stands still, and the others run."""
    tasks = Path(f"/proc/{pid}/task").iterdir()
    (thread,) = (int(task.name) for task in tasks if "notify" in (task / "comm").read_text())
    ptrace = ctypes.CDLL(None, use_errno=True).ptrace
    if ptrace(SEIZE, thread, 0, 0) or ptrace(INTERRUPT, thread, 0, 0):
        pytest.skip("tracing is not permitted here")
    os.waitpid(thread, WALL)
    try:
        yield
    finally:
        if ptrace(DETACH, thread, 0, 0):
            os.waitpid(thread, WALL)


def watched_by(pid: int) -> set[int]:
    """The inodes that a process has inotify watches on."""
    found = set()
    for path in Path(f"/proc/{pid}/fdinfo").iterdir():
        with suppress(FileNotFoundError):  # closed meanwhile
            for line in path.read_text().splitlines():
                if line.startswith("inotify "):
                    found.add(int(line.split()[2].removeprefix("ino:"), 16))
    return found


def make_files(folder: Path, count: int) -> None:
    for number in range(count):
        os.close(os.open(folder / f"{number}", os.O_CREAT | os.O_WRONLY))


async def run_over(pid: int, tree: Path) -> None:
    """Fill a watcher's queue, and let it send a canary into it, which is lost."""
    canary = canary_of(tree) / "c1"
    before = canary.stat().st_mtime_ns
    with ExitStack() as stack:
        with paused(pid):
            make_files(tree, 20_000)
            stack.enter_context(deaf(pid))
        async with asyncio.timeout(DEADLINE):
            while canary.stat().st_mtime_ns == before:  # noqa: ASYNC110 - no event tells of it
                await asyncio.sleep(0)
            # The time shows before the event meets the full queue: most often by microseconds, but
            # by 0.2 s where the disk's journal is busy, and one that is read meanwhile has room.
            await leave_kernel(pid)


async def leave_kernel(pid: int) -> None:
    """Return when the main thread is through with the system call that it was in.

    There it does not stop. The others need not be able to: one that is traced is not.
    """
    os.kill(pid, signal.SIGSTOP)
    try:
        while _state(Path(f"/proc/{pid}/task/{pid}")) != "T":  # noqa: ASYNC110 - as above
            await asyncio.sleep(0)
    finally:
        os.kill(pid, signal.SIGCONT)


def canary_of(tree: Path) -> Path:
    return tree.parent / "state" / "canary" / tree.name


def condition(pid: int, canary: Path) -> str:
    """What a process's threads are at, and how long ago its canaries were touched."""
    now, lines = time.time(), [f"process {pid}:"]
    with suppress(FileNotFoundError):  # it is gone
        for task in sorted(Path(f"/proc/{pid}/task").iterdir()):
            said = (task / "comm", task / "wchan", task / "syscall", task / "stack")
            lines.append(" ".join((task.name, _state(task), *map(_said, said))))
    with suppress(FileNotFoundError):
        ages = {path.name: now - path.stat().st_mtime for path in sorted(canary.glob("c*"))}
        lines.append(", ".join(f"{name}: {age:.3f} s" for name, age in ages.items()))
    return "\n".join(lines)


def _state(task: Path) -> str:
    return (task / "stat").read_text().rpartition(") ")[2][0]


def _said(path: Path) -> str:
    try:
        return f"{path.name}={' '.join(path.read_text().split())}"
    except OSError as error:
        return f"{path.name}: {error.strerror}"
