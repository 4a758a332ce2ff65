"""A folder with a configuration and a tree, where daemons run and handlers report.

Nothing here sleeps: handlers report through named pipes, and wait at them.
"""

import json
import os
import select
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import closing, suppress
from pathlib import Path
from typing import Any

from tests.acceptance.harness import DEADLINE, PROJECT, RunningDaemon

# In the environment of every daemon and of its handlers: what is left over at the end is ours.
MARK = "TREEWARDEN_TEST_SITE"


class Effects:
    """What handlers report, through a named pipe: `echo ... >"$EFFECTS"`."""

    def __init__(self, path: Path, state: Callable[[], str]) -> None:
        self.path = path
        self._state = state
        os.mkfifo(path)
        # For reading and writing, so that no writer waits for us and its end is not our end.
        self._fd = os.open(path, os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)
        self._bytes = b""
        self.seen: list[bytes] = []

    def next(self, deadline: float = DEADLINE) -> bytes:
        """The next report, without its newline; waits for it."""
        until = time.monotonic() + deadline
        while b"\n" not in self._bytes:
            left = until - time.monotonic()
            readable, _, _ = select.select([self._fd], [], [], max(left, 0.0))
            assert readable, f"no handler reported; so far {self.seen[-5:]}\n{self._state()}"
            self._bytes += os.read(self._fd, 65536)
        report, _, self._bytes = self._bytes.partition(b"\n")
        self.seen.append(report)
        return report

    def rest(self) -> list[bytes]:
        """The reports that are there and were not read yet; waits for none."""
        with suppress(BlockingIOError):
            while chunk := os.read(self._fd, 65536):
                self._bytes += chunk
        *reports, self._bytes = self._bytes.split(b"\n")
        self.seen += reports
        return reports

    def close(self) -> None:
        os.close(self._fd)


class Gate:
    """Lets a handler wait until the test opens it: `read x <"$GATE"`."""

    def __init__(self, path: Path) -> None:
        self.path = path
        os.mkfifo(path)
        self._fd = os.open(path, os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)

    def open(self, count: int = 1) -> None:
        """Let so many handlers pass."""
        os.write(self._fd, b"\n" * count)

    def close(self) -> None:
        os.close(self._fd)


class Site:
    """A folder with a configuration, a tree `in`, and the daemons that ran on it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.tree = folder / "in"
        self.config = folder / "config.toml"
        self.state = folder / "state"
        self.database = self.state / "treewarden.db"
        self._daemons: list[RunningDaemon] = []
        self._closers: list[Effects | Gate] = []
        self.environment: dict[str, str] = {}
        self.tree.mkdir()

    def effects(self) -> Effects:
        """A pipe for reports; handlers find it as `$EFFECTS`."""
        effects = Effects(self.folder / "effects", self._said)
        self._closers.append(effects)
        self.environment["EFFECTS"] = str(effects.path)
        return effects

    def gate(self, name: str = "GATE") -> Gate:
        """A gate; handlers find it under the name."""
        gate = Gate(self.folder / name.lower())
        self._closers.append(gate)
        self.environment[name] = str(gate.path)
        return gate

    def script(self, name: str, body: str) -> str:
        """A handler: a shell script. Its path, quoted for TOML."""
        path = self.folder / name
        path.write_text(f"#!/bin/sh\n{body}\n")
        path.chmod(0o755)
        return json.dumps(str(path))

    def configure(
        self, watches: str, *, level: str = "info", output: str = "stdout", daemon: str = ""
    ) -> None:
        """Write the configuration: `watches` is TOML from the first `[[watch]]` on."""
        self.config.write_text(
            f'[daemon]\nnode = "test"\nstate_dir = "state"\nruntime_dir = "state/run"\n{daemon}\n'
            f"[log]\nlevel = {json.dumps(level)}\noutput = {json.dumps(output)}\n\n{watches}\n"
        )

    def watch(self, *steps: str, settle: str = 'quiet = "50ms"', **keys: object) -> str:
        """A watch of `in`, named `w`; each step is `name = command, further keys`."""
        head = {"name": "w", "path": "in", **keys}
        text = ["[[watch]]", *(f"{key} = {json.dumps(value)}" for key, value in head.items())]
        text += ["[watch.settle]", settle]
        for step in steps:
            text += ["[[watch.step]]", step]
        return "\n".join(text)

    def command(self, *arguments: str) -> list[str]:
        """The command line of the project's program."""
        return [sys.executable, "-m", "daemon", *arguments]

    def start(
        self,
        *,
        stdout: int = subprocess.PIPE,
        wrapper: Sequence[str] = (),
    ) -> RunningDaemon:
        """Start a daemon on this site; `wrapper` is put before its command line."""
        errors = self.folder / f"stderr-{len(self._daemons)}"
        argv = [*wrapper, *self.command("run", "--config", str(self.config))]
        with errors.open("wb") as stderr:
            process = subprocess.Popen(
                argv, stdout=stdout, stderr=stderr, env=self._environment(), cwd="/"
            )
        daemon = RunningDaemon(process, errors)
        self._daemons.append(daemon)
        return daemon

    def run(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Run the program to its end."""
        return subprocess.run(
            self.command(*arguments),
            capture_output=True,
            text=True,
            check=False,
            env=self._environment(),
            timeout=DEADLINE,
        )

    def refused(self) -> subprocess.CompletedProcess[str]:
        """`run`, on a site where it ends by itself."""
        return self.run("run", "--config", str(self.config))

    def _said(self) -> str:
        """How the last daemon fares, for a test that waits for it in vain."""
        if not self._daemons:
            return "no daemon was started"
        last = self._daemons[-1]
        return f"exit {last.process.poll()}, {last.lines[-5:]}\n{last.stderr}"

    def _environment(self) -> dict[str, str]:
        ours = {"PYTHONPATH": str(PROJECT), "PYTHONWARNINGS": "error", MARK: str(self.folder)}
        return {**os.environ, **ours, **self.environment}

    def sql(self, query: str, *values: object) -> list[tuple[Any, ...]]:
        """Ask the database, from outside."""
        with closing(sqlite3.connect(f"file:{self.database}?mode=ro", uri=True)) as db:
            return db.execute(query, values).fetchall()

    def orphans(self) -> list[int]:
        """Processes that a daemon of this site left behind."""
        mark = f"{MARK}={self.folder}".encode()
        return [pid for pid in _processes() if mark in _environ(pid)]

    def end_orphans(self) -> None:
        """End what a killed daemon left running, and wait until it has."""
        for pid in self.orphans():
            with suppress(ProcessLookupError):
                fd = os.pidfd_open(pid)
                with suppress(ProcessLookupError):
                    signal.pidfd_send_signal(fd, signal.SIGKILL)
                select.select([fd], [], [], DEADLINE)
                os.close(fd)

    def close(self) -> None:
        for daemon in self._daemons:
            daemon.close()
        self.end_orphans()
        for closer in self._closers:
            closer.close()


def _processes() -> list[int]:
    return [int(name.name) for name in Path("/proc").iterdir() if name.name.isdigit()]


def _environ(pid: int) -> list[bytes]:
    try:
        return Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
    except OSError:
        return []
