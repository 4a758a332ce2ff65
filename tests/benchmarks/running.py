"""The real daemon as a process, seen from outside.

Nothing is relied on but what is documented: the keys of the configuration, the lines of the log,
and of the database the tables `files`, `transitions`, `counts` and `journal`.
"""

import json
import os
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

PROJECT = Path(__file__).parents[2]
DAEMON = ("-m", "daemon")
WATCH = "bench"
STOP_SECONDS = 120.0
CHUNK = 1 << 24
CONFIG = """\
[daemon]
state_dir = "state"
runtime_dir = "state/run"
[[watch]]
name = "{name}"
path = "{tree}"
"""


class Log:
    """What the daemon has said so far: lines about itself are kept, of the others the number."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.about_daemon: list[dict[str, Any]] = []
        self.about_files = 0
        # Lines of transitions that were committed; one transition has one line, unless it crashed.
        self.committed = 0
        self._file = path.open("rb")
        self._rest = b""

    def read(self) -> "Log":
        """Take in what was written since."""
        while chunk := self._file.read(CHUNK):
            whole, newline, self._rest = (self._rest + chunk).rpartition(b"\n")
            # Not by an expression over all of it, which takes 2 us a line: a tenth of a burst.
            own = [line for line in whole.splitlines() if b'"event":"daemon.' in line]
            self.about_daemon += [json.loads(line) for line in own]
            self.about_files += whole.count(b"\n") + len(newline) - len(own)
            self.committed += whole.count(b'"outcome":"success"')
        return self

    def having(self, event: str) -> list[dict[str, Any]]:
        """The lines so far about the daemon itself that have this event."""
        return [line for line in self.about_daemon if line["event"] == event]

    def close(self) -> None:
        self._file.close()


class Database:
    """The daemon's database while the daemon runs; each question is one short read."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._connection: sqlite3.Connection | None = None

    def number(self, query: str, *values: object) -> int:
        """The one number that the query asks for; 0 for NULL, and as long as there is no table."""
        try:
            if self._connection is None:
                self._connection = sqlite3.connect(f"file:{self._path}?mode=ro", uri=True)
            row = self._connection.execute(query, values).fetchone()
        except sqlite3.OperationalError:
            return 0
        return int(row[0] or 0) if row else 0

    def in_state(self, state: str) -> int:
        """Files in this state, from the table of counts: counting a million takes 0.1 s."""
        query = "SELECT files FROM counts WHERE watch = ? AND state = ?"
        return self.number(query, WATCH, state)

    def last_transition(self) -> int:
        return self.number("SELECT max(seq) FROM transitions")

    def journaled(self) -> int:
        """Up to which transition the lines are written; known 0.25 s late when nothing follows."""
        return self.number("SELECT seq FROM journal")

    def close(self) -> None:
        if self._connection is not None:
            self._connection.close()
        self._connection = None


class Daemon:
    """One process of `treewarden run` whose log is a file."""

    def __init__(self, process: subprocess.Popen[bytes], folder: Path, log: Path) -> None:
        self.began = time.monotonic()
        self.process = process
        self.pid = process.pid
        self.database = Database(folder / "state" / "treewarden.db")
        self.log = Log(log)

    def wait(
        self, condition: Callable[[], bool], *, every: float = 0.02, deadline: float = 3600.0
    ) -> float:
        """Wait until it holds; the seconds since the start of the process."""
        while not condition():
            if self.process.poll() is not None:
                raise RuntimeError(f"the daemon ended: exit {self.process.returncode}")
            if time.monotonic() - self.began > deadline:
                raise TimeoutError(f"not within {deadline:.0f} s of the start")
            time.sleep(every)
        return time.monotonic() - self.began

    def ready(self) -> float:
        """Wait for the line that says so; the seconds since the start of the process."""
        return self.wait(lambda: bool(self.log.read().having("daemon.ready")))

    def quiet(self, seconds: float = 1.0) -> None:
        """Wait until nothing has been committed for so long."""
        last, since = self.database.last_transition(), time.monotonic()
        while time.monotonic() - since < seconds:
            time.sleep(0.1)
            if (now := self.database.last_transition()) != last:
                last, since = now, time.monotonic()

    def close(self) -> None:
        self.log.read().close()
        # Before the daemon ends: a reader that is still there would keep it from folding the
        # write-ahead log into the database, and the next start would have to.
        self.database.close()
        stop(self.process)


def configure(folder: Path, tree: Path, watch: str = "") -> None:
    """Write a configuration with one watch; `watch` are its further lines."""
    text = CONFIG.format(name=WATCH, tree=tree) + watch
    (folder / "config.toml").write_text(text, encoding="utf-8")


def launch(folder: Path, stdout: int, program: Sequence[str] = DAEMON) -> subprocess.Popen[bytes]:
    """Start the daemon of this checkout on the configuration in a folder."""
    command = [sys.executable, *program, "run", "--config", str(folder / "config.toml")]
    # Whatever its value, "0" too, it puts asyncio into its debug mode: a fifth of the speed.
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONASYNCIODEBUG"}
    return subprocess.Popen(command, stdout=stdout, cwd=PROJECT, env=environment)


def stop(process: subprocess.Popen[bytes]) -> None:
    """End a process in good order, or at all."""
    process.send_signal(signal.SIGTERM)
    try:
        process.wait(STOP_SECONDS)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


@contextmanager
def running(folder: Path, program: Sequence[str] = DAEMON) -> Iterator[Daemon]:
    """A daemon with a new log, for as long as the block runs."""
    log = folder / "log"
    with log.open("wb") as out:
        daemon = Daemon(launch(folder, out.fileno(), program), folder, log)
    try:
        yield daemon
    finally:
        daemon.close()
