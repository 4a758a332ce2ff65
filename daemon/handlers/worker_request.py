"""One job on its way through the workers."""

import asyncio
import time
from typing import Protocol

from daemon.handlers import Job, Outcome


class Holder(Protocol):
    """The worker that has a request."""

    def abandon(self, pending: "Pending") -> asyncio.Future[None]:
        """Nobody waits for its answer any more; resolves when the worker is done with it."""
        ...

    def hurry(self) -> None:
        """Force the worker to end now."""
        ...


class Pending:
    """A job that is asked for. It waits (`worker` is None), or is with a worker.

    `answered` resolves to its outcome. Whoever gave up on it waits for `gone` instead: that it is
    with no worker any more. `returned` counts the workers that ended under it for another's sake.
    """

    __slots__ = ("answered", "began", "deadline", "gone", "job", "returned", "worker")

    def __init__(self, job: Job) -> None:
        self.job = job
        self.began = time.monotonic()
        self.answered: asyncio.Future[Outcome] = asyncio.get_running_loop().create_future()
        self.gone: asyncio.Future[None] | None = None
        self.worker: Holder | None = None
        self.deadline = 0.0
        self.returned = 0

    @property
    def duration_ms(self) -> float:
        """How long it has been asked for."""
        return round((time.monotonic() - self.began) * 1000, 3)

    def finish(self, outcome: Outcome) -> None:
        """It is with no worker any more, and this is what became of it, for whoever still asks."""
        self.worker = None
        if not self.answered.done():
            self.answered.set_result(outcome)
        if self.gone is not None and not self.gone.done():
            self.gone.set_result(None)
