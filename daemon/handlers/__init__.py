"""The `Handler` protocol: one way of handing a file over. Its kinds are the modules beside it."""

from typing import Literal, Protocol

from msgspec import Struct

from daemon.core.model import Key

Verdict = Literal["success", "retry", "reject", "defer"]


class Job(Struct, frozen=True):
    """One file, handed to one step. `path` is absolute, `key` the idempotency key."""

    file_id: int
    file: Key
    path: bytes
    step: str
    attempt: int
    idempotency_key: str


class Outcome(Struct, frozen=True):
    """How it went: `error` holds the tail of what the handler had to say.

    `retry` spends an attempt. `defer` does not: the machine was short of something (descriptors,
    processes, memory), and the handler has not begun.
    """

    verdict: Verdict
    error: str | None = None
    duration_ms: float = 0.0


class Handler(Protocol):
    """Runs jobs for one step. One instance serves all the concurrent jobs of its step."""

    async def run(self, job: Job) -> Outcome:
        """Hand the file over and report. Raises nothing but `CancelledError`.

        Cancelling this call ends the handler (politely, then by force) before it returns.
        """
        ...
