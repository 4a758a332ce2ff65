"""The real daemon as a subprocess: its lines as they come, and its end.

Nothing here sleeps: a test waits for a line, or for an exit.
"""

import json
import signal
import subprocess
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from jsonschema import Draft202012Validator

PROJECT = Path(__file__).parents[2]
DEADLINE = 30.0
# A daemon that goes on writing lines gets so many deadlines: less than the limit of the suite.
LONGEST = 3
SCHEMA = PROJECT / "daemon" / "schema" / "line.schema.json"

Line = dict[str, Any]

ALL_LINES: list[bytes] = []
"""Every complete line that a daemon of this session wrote, raw."""


def _validators() -> dict[str, Draft202012Validator]:
    """The schema of each event by its name: trying all of them took five times as long."""
    definitions = json.loads(SCHEMA.read_bytes())["$defs"]
    return {name: Draft202012Validator(schema) for name, schema in definitions.items()}


_VALIDATORS = _validators()


def parse(raw: bytes) -> Line:
    """A line of the log, checked against the published schema."""
    ALL_LINES.append(raw)
    line: Line = json.loads(raw)
    event = str(line["event"])
    validator = _VALIDATORS.get(event if event.startswith("daemon.") else "transition")
    assert validator is not None, f"the schema knows no {event}: {raw!r}"
    problems = [f"{e.json_path}: {e.message}" for e in validator.iter_errors(line)]
    assert not problems, f"{problems} in {raw!r}"
    return line


class RunningDaemon:
    """One process of `treewarden run`. `lines` holds what it has said so far."""

    def __init__(self, process: subprocess.Popen[bytes], errors: Path) -> None:
        self.process = process
        self.pid = process.pid
        self.lines: list[Line] = []
        self.torn = b""
        self._errors = errors
        self._broken: AssertionError | None = None
        self._ended = False
        self._news = threading.Condition()
        self._reader = threading.Thread(target=self._read, daemon=True)
        if process.stdout is not None:
            self.read()

    def read(self) -> None:
        """Begin to read its lines, where that was put off."""
        self._reader.start()

    @property
    def stderr(self) -> str:
        return self._errors.read_text(errors="replace")

    def _read(self) -> None:
        assert self.process.stdout is not None
        for raw in self.process.stdout:
            self._take(raw)
        with self._news:
            self._ended = True
            self._news.notify_all()

    def _take(self, raw: bytes) -> None:
        with self._news:
            try:
                if raw.endswith(b"\n"):
                    self.lines.append(parse(raw))
                else:
                    self.torn = raw
            except AssertionError as error:
                self._broken = error
            self._news.notify_all()

    def wait_for(
        self, predicate: Callable[[list[Line]], bool], what: str = "", deadline: float = DEADLINE
    ) -> None:
        """Wait until the lines so far satisfy the predicate.

        While lines come it is at work, and gets more time: on a machine that is as busy as this one
        may be, 20,000 of them take longer than a deadline that is right for one.
        """
        with self._news:
            seen, until = -1, 0.0
            longest = time.monotonic() + LONGEST * deadline
            while not predicate(self.lines):
                if len(self.lines) > seen:
                    seen, until = len(self.lines), min(time.monotonic() + deadline, longest)
                left = until - time.monotonic()
                if self._ended or self._broken or left <= 0 or not self._news.wait(left):
                    break
            if self._broken is not None:
                raise self._broken
            if not predicate(self.lines):
                tail = "\n".join(map(str, self.lines[-12:]))
                raise AssertionError(f"no {what or 'such lines'} after:\n{tail}\n{self.stderr}")

    def line(self, event: str, **fields: object) -> Line:
        """The first line of this event with these fields; waits for it."""
        self.wait_for(lambda _: bool(self.having(event, **fields)), f"{event} {fields}")
        return self.having(event, **fields)[0]

    def nth(self, number: int, event: str, **fields: object) -> Line:
        """As `line`, the `number`-th of them, counted from 1."""
        self.wait_for(lambda _: len(self.having(event, **fields)) >= number, f"{number} x {event}")
        return self.having(event, **fields)[number - 1]

    def having(self, event: str, **fields: object) -> list[Line]:
        """The lines so far of this event with these fields."""
        wanted = {"event": event, **fields}.items()
        return [line for line in self.lines if wanted <= _hashable(line)]

    def of(self, path: str) -> list[Line]:
        """The lines so far about one file."""
        return [line for line in self.lines if line.get("path") == path and "from_state" in line]

    def ready(self) -> "RunningDaemon":
        """Wait until the first scan is through."""
        self.line("daemon.ready")
        return self

    def done(self, *paths: str) -> None:
        """Wait until each of these files is done by its last line."""
        self.wait_for(
            lambda _: all(self.state(path) == "done" for path in paths), f"end of {paths[:5]}"
        )

    def state(self, path: str) -> str | None:
        """Where the last committed line about a file left it."""
        states = [line["to_state"] for line in self.of(path) if line["outcome"] == "success"]
        return states[-1] if states else None

    def signal(self, number: int) -> None:
        self.process.send_signal(number)

    def wait(self, deadline: float = DEADLINE) -> int:
        """Wait for the end, and for the last line."""
        code = self.process.wait(deadline)
        if self.process.stdout is not None:
            self._reader.join(deadline)
        if self._broken is not None:
            raise self._broken
        return code

    def stop(self) -> list[Line]:
        """End it in good order; all of its lines."""
        self.signal(signal.SIGTERM)
        code = self.wait()
        assert code == 0, f"exit {code}: {self.stderr}"
        assert not self.stderr, self.stderr
        return self.lines

    def kill(self) -> None:
        """SIGKILL, whatever it is doing."""
        self.process.kill()
        self.wait()

    def close(self) -> None:
        """Leave nothing behind, however the test went."""
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()
        if self.process.stdout is not None:
            self._reader.join(DEADLINE)
            self.process.stdout.close()


def _hashable(line: Line) -> Any:
    return {key: value for key, value in line.items() if not isinstance(value, list | dict)}.items()
