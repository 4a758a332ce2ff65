"""The other watchers, as far as they are installed: each reports the names that changed.

They run with sockets, logs and state of their own, and end with the benchmark.
"""

import json
import os
import select
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

from tests.benchmarks.running import launch, stop

START_SECONDS = 60.0
CHUNK = 1 << 20
SETTLED = frozenset({"ready", "done"})


class Reporter:
    """A process that reports names, one line after another."""

    def __init__(self, pid: int, fd: int, names: Callable[[bytes], list[str]]) -> None:
        self.pid = pid
        self._fd = fd
        self._names = names
        self._rest = b""

    def wait(self, seconds: float) -> bool:
        """Is there something to take within so long?"""
        return bool(select.select([self._fd], [], [], max(seconds, 0.0))[0])

    def take(self) -> tuple[float, list[str]]:
        """What has come: when, and the names in it."""
        chunk = os.read(self._fd, CHUNK)
        now = time.monotonic()
        if not chunk:
            raise EOFError("the process that reports has ended")
        *lines, self._rest = (self._rest + chunk).split(b"\n")
        return now, [name for line in lines for name in self._names(line)]

    def reported(self, wanted: int, prefix: str = "", deadline: float = 60.0) -> float:
        """When the last of so many different names came."""
        seen: set[str] = set()
        now, until = 0.0, time.monotonic() + deadline
        while len(seen) < wanted:
            if not self.wait(until - time.monotonic()):
                raise TimeoutError(f"{len(seen)} of {wanted} names after {deadline:.0f} s")
            now, names = self.take()
            seen.update(name for name in names if name.startswith(prefix))
        return now


Start = Callable[[Path], AbstractContextManager[Reporter]]


@contextmanager
def watchman(tree: Path) -> Iterator[Reporter]:
    """A subscription to the names in a tree, from a server of our own."""
    with tempfile.TemporaryDirectory() as place:
        own = [f"--{name}={place}/{name}" for name in ("sockname", "logfile", "pidfile")]
        command = ["watchman", "--foreground", "--no-save-state", f"--statefile={place}/state"]
        quiet = subprocess.DEVNULL
        server = subprocess.Popen([*command, *own], stdin=quiet, stdout=quiet, stderr=quiet)
        try:
            with connected(Path(place) / "sockname") as client:
                subscribe(client, tree)
                yield Reporter(server.pid, client.fileno(), _names_in_report)
        finally:
            stop(server)


def connected(path: Path) -> socket.socket:
    """The server's socket, as soon as it answers."""
    until = time.monotonic() + START_SECONDS
    while True:
        client = socket.socket(socket.AF_UNIX)
        try:
            client.connect(str(path))
        except OSError:
            client.close()
            if time.monotonic() > until:
                raise
            time.sleep(0.05)
        else:
            return client


def subscribe(client: socket.socket, tree: Path) -> None:
    """Ask for what changes from now on."""
    ask(client, "watch", str(tree))
    clock = ask(client, "clock", str(tree))["clock"]
    ask(client, "subscribe", str(tree), "bench", {"fields": ["name"], "since": clock})


def ask(client: socket.socket, *request: object) -> dict[str, object]:
    """Send a request, and read its answer: the only line that comes."""
    client.sendall(json.dumps(request).encode() + b"\n")
    said = b""
    while not said.endswith(b"\n"):
        chunk = client.recv(CHUNK)
        if not chunk:
            raise EOFError(f"watchman has closed the connection after {said!r}")
        said += chunk
    answer: dict[str, object] = json.loads(said)
    if "error" in answer:
        raise RuntimeError(f"watchman: {answer['error']}")
    return answer


def _names_in_report(line: bytes) -> list[str]:
    names: list[str] = json.loads(line).get("files", [])
    return names


@contextmanager
def inotifywait(tree: Path) -> Iterator[Reporter]:
    """A line for each file that was closed after writing, in a tree as it is now."""
    options = ["-m", "-r", "-e", "close_write", "--format", "%f"]
    pipe = subprocess.PIPE
    process = subprocess.Popen(["inotifywait", *options, tree], stdout=pipe, stderr=pipe)
    assert process.stdout
    assert process.stderr
    try:
        while b"established" not in process.stderr.readline():
            if process.poll() is not None:
                raise RuntimeError("inotifywait cannot watch the tree")
        yield Reporter(process.pid, process.stdout.fileno(), lambda line: [line.decode()])
    finally:
        stop(process)
        process.stdout.close()
        process.stderr.close()


@contextmanager
def treewarden(folder: Path) -> Iterator[Reporter]:
    """The daemon itself, through the pipe that its log goes to: the files that have settled."""
    process = launch(folder, subprocess.PIPE)
    assert process.stdout
    try:
        reporter = Reporter(process.pid, process.stdout.fileno(), _settled_in_line)
        reporter.reported(1, "daemon.ready")
        yield reporter
    finally:
        stop(process)
        process.stdout.close()


def _settled_in_line(line: bytes) -> list[str]:
    said = json.loads(line)
    if said["event"] == "daemon.ready":
        return ["daemon.ready"]
    return [said["path"]] if said.get("to_state") in SETTLED else []


PEERS: dict[str, Start] = {"watchman": watchman, "inotifywait": inotifywait}


def installed(*names: str) -> dict[str, Start]:
    """Those that are there; says which are not."""
    missing = [name for name in names if not shutil.which(name)]
    if missing:
        print(f"not installed, and therefore not compared with: {', '.join(missing)}")
    return {name: PEERS[name] for name in names if name not in missing}
