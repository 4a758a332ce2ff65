"""The `Handler` protocol: one way of handing a file over. Its kinds are the modules beside it."""

from typing import Literal, Protocol

from msgspec import Struct

from daemon.core.model import Fingerprint, Key, Plan

Verdict = Literal["success", "retry", "reject", "defer", "unavailable"]
# What a step may hand on to the next one, in bytes of JSON: it is part of the row, not a file.
RESULT_BYTES = 4_096


class Job(Struct, frozen=True):
    """One file, handed to one step. `path` is absolute, `key` the idempotency key.

    `version` is the row's: of two runs for one file, the later one has the higher (a fencing
    token). `previous` is what the step before had to say, as JSON. `seen` is the file as it had
    settled; None for a removal (`plan` says which), where there is no file any more.
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
    previous: str | None = None


class Outcome(Struct, frozen=True):
    """How it went: `error` holds the tail of what the handler had to say.

    `retry` spends an attempt, and waits `after` seconds where the handler said so. Two others spend
    none: `defer`, for the machine was short of something (descriptors, processes, memory), and
    `unavailable`, for what the step needs could not be had (a program, a server, a quota): neither
    is this file's fault, and here `after` is how long the whole step had better wait. `result` of
    a success is JSON, of at most `RESULT_BYTES`; `target` is where the file was taken.

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


class Handler(Protocol):
    """Runs jobs for one step. One instance serves all the concurrent jobs of its step."""

    async def run(self, job: Job) -> Outcome:
        """Hand the file over and report. Raises nothing but `CancelledError`.

        Cancelling this call ends the handler (politely, then by force) before it returns.
        """
        ...

    async def close(self) -> None:
        """End what it keeps between jobs, of which none runs any more. May be called twice."""
        ...
