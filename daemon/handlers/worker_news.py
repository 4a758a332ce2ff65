"""What the log is told of workers: that one has ended, why, and when another may be started."""

import asyncio
from typing import Any

from daemon.handlers import Say, silent
from daemon.handlers.worker_process import WorkerProcess

# One line in so many seconds for a step at most, with how many ends it is about.
EVERY_SECONDS = 1.0
# Ends that somebody wanted: of no interest but to who looks for everything.
_WANTED = {"told": "recycled", "abandoned": "abandoned"}


class News:
    """Of the workers of one step. `ended` counts those that ended and should not have."""

    def __init__(self, step: str, say: Say = silent) -> None:
        self._step = step
        self._say = say
        self._untold: dict[str, Any] = {}
        self._pause: asyncio.TimerHandle | None = None
        self.ended = 0

    def tell(self, watch: str, worker: WorkerProcess, restarts: int, seconds: float) -> None:
        """Of one that has ended; `seconds` until another may be started.

        `restarts`: how many did so in a row, with no answer in between.
        """
        fields: dict[str, Any] = {
            "watch": watch,
            "step": self._step,
            "pid": worker.pid,
            "reason": _reason(worker),
            "error": _error(worker),
            "requests": worker.asked,
            "restarts": restarts,
            "next_seconds": round(seconds, 3),
        }
        if worker.why in _WANTED:
            self._say("worker_ended", "debug", ends=1, **fields)
            return
        self.ended += 1
        self._untold = {"ends": self._untold.get("ends", 0) + 1, **fields}
        if self._pause is None:
            self._tell()

    def close(self) -> None:
        """Tell what has not been told."""
        if self._pause is not None:
            self._pause.cancel()
            self._go_on()

    def _tell(self) -> None:
        self._say("worker_ended", "warning", **self._untold)
        self._untold = {}
        self._pause = asyncio.get_running_loop().call_later(EVERY_SECONDS, self._go_on)

    def _go_on(self) -> None:
        self._pause = None
        if self._untold:
            self._tell()


def _error(worker: WorkerProcess) -> str:
    if worker.failed is not None:
        return worker.failed[1]
    if worker.late is not None:
        return worker.with_last_words("a request ran out of time")
    return worker.how_it_went()


def _reason(worker: WorkerProcess) -> str:
    if worker.why == "crash" and not worker.up:
        return "not_started"
    return _WANTED.get(worker.why, worker.why)
