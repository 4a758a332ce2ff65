"""The `Handler` protocol: one way of handing a file over. Its kinds are the modules beside it."""

import os
from pathlib import Path
from typing import Any, Literal, Protocol

import msgspec
from msgspec import Struct

from daemon.core.model import Fingerprint, Key, Plan

Verdict = Literal["success", "retry", "reject", "defer", "unavailable"]
# What a step may hand on to the next one, in bytes of JSON: it is part of the row, not a file.
RESULT_BYTES = 4_096


class Job(Struct, frozen=True):
    """One file, handed to one step.

    A function of yours gets this as its one argument; `os.fspath` and `open` take it as it is.

    Attributes:
        file_id: the file's number in the database; it stays with a file that is renamed.
        file: its watch, and its path below that watch's root in bytes.
        path: its absolute path, in bytes: a name need not be UTF-8.
        step: the name of the step.
        attempt: 1, 2, ... for one content and step.
        idempotency_key: the same for the same content and step, on every attempt and after every
            restart; `key` in short.
        version: the row's, a fencing token: of two runs for one file, the later has the higher.
        plan: "process", or "remove" where the file is gone and what was done with it is undone.
        seen: the file as it had settled (size, times in nanoseconds, inode); None for a removal.
        previous_json: what the step before handed on, as it is stored: in one line, as all that is
            said in lines, variables and headers relies on. `previous` decodes it.
    """

    file_id: int
    file: Key
    path: bytes
    step: str
    attempt: int
    idempotency_key: str
    version: int = 0
    plan: Plan = "process"
    seen: Fingerprint | None = None
    previous_json: str | None = None

    def __fspath__(self) -> str:
        return os.fsdecode(self.path)

    @property
    def fspath(self) -> Path:
        """The absolute path. What is not UTF-8 in it is kept, as everywhere in Python."""
        return Path(os.fsdecode(self.path))

    @property
    def relpath(self) -> str:
        """The path below the root of the watch."""
        return os.fsdecode(self.file.path)

    @property
    def name(self) -> str:
        """The last component of the path."""
        return os.fsdecode(self.file.name)

    @property
    def watch(self) -> str:
        """The name of the watch."""
        return self.file.watch

    @property
    def key(self) -> str:
        """The idempotency key."""
        return self.idempotency_key

    @property
    def size(self) -> int | None:
        """How many bytes had settled; None for a removal."""
        return self.seen.size if self.seen else None

    @property
    def previous(self) -> Any:  # noqa: ANN401 - whatever the step before returned
        """What the step before handed on; None if that was nothing, or this is the first."""
        return msgspec.json.decode(self.previous_json) if self.previous_json else None


class Outcome(Struct, frozen=True):
    """How it went: `error` holds the tail of what the handler had to say.

    `retry` spends an attempt, and waits `after` seconds where the handler said so. Two others spend
    none: `defer`, for the machine was short of something (descriptors, processes, memory), and
    `unavailable`, for what the step needs could not be had (a program, a server, a quota): neither
    is this file's fault, and here `after` is how long the whole step had better wait. `result` of
    a success is JSON of at most `RESULT_BYTES`, in one line (`said.result_text`); `target` is where
    the file was taken.

    `suspect` goes with `retry` and `reject`: this file failed, and it may not be the file's fault
    (a server that answers 500, or 404, or nothing in time). Whose fault it is, only other files
    tell. So the breaker of a step counts both `unavailable` and `suspect` in a row, of whichever
    files; any other verdict but `defer` begins its count anew. The one that opens it, and every one
    that comes while it is open, is taken as `unavailable`: no attempt is spent, nothing is
    quarantined. Thus a server that answers 500 to everything over a weekend quarantines nothing
    where a step allows as many attempts as its breaker counts; and one poisonous file among good
    ones spends its attempts, and ends in quarantine. Each probe takes another file while there is
    one, so that a poisonous file cannot hold the step shut by itself.
    """

    verdict: Verdict
    error: str | None = None
    duration_ms: float = 0.0
    after: float | None = None
    result: str | None = None
    suspect: bool = False
    target: bytes | None = None


class Retry(Exception):  # noqa: N818 - what a function has to say, and read as that
    """Raised by a function: this attempt failed. `after` is how many seconds the next one waits."""

    def __init__(self, reason: object = "", *, after: float | None = None) -> None:
        super().__init__(reason)
        self.after = after


class Reject(Exception):  # noqa: N818 - as above
    """Raised by a function: this file, never. It is quarantined."""


class Unavailable(Exception):  # noqa: N818 - as above
    """Raised by a function: what it needs cannot be reached. No file's fault, and no attempt.

    In `after` seconds it may be worth another try.
    """

    def __init__(self, reason: object = "", *, after: float | None = None) -> None:
        super().__init__(reason)
        self.after = after


class Undecided(Exception):  # noqa: N818 - as above
    """Nobody knows what a run will come to that was to end: it is in a call that does not return.

    Its row stays `processing`, as if the daemon had been killed: the next start finds out.
    """


class Handler(Protocol):
    """Runs jobs for one step. One instance serves all the concurrent jobs of its step."""

    async def run(self, job: Job) -> Outcome:
        """Hand the file over and report. Raises nothing but `CancelledError`, or `Undecided`.

        Cancelling this call ends the handler (politely, then by force) before it returns.
        """
        ...

    async def close(self) -> None:
        """End what it keeps between jobs, of which none runs any more. May be called twice."""
        ...


class Say(Protocol):
    """Writes a line about the daemon itself."""

    def __call__(self, name: str, level: str = "info", **fields: Any) -> None:  # noqa: ANN401
        """`daemon.` and the name, with that event's own fields."""


def silent(name: str, level: str = "info", **fields: Any) -> None:  # noqa: ANN401
    """For handlers without a daemon."""
