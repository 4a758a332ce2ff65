"""The `function` handler for async functions: they run in the daemon's own loop.

Nothing in the daemon is as cheap, and nothing can do it more harm: a function that computes or
waits without `await` holds up everything, and systemd's watchdog ends a daemon that hangs. What is
not async runs in threads (`function_threads`), or in processes (`function_process`).
"""

import asyncio
import time
from collections.abc import Awaitable, Callable

from msgspec.structs import replace

from daemon.handlers import Job, Outcome
from daemon.handlers.function_outcomes import outcome_of_error, outcome_of_value


class AsyncFunctionHandler:
    """Awaits `function` for each job; `timeout` in seconds cancels it."""

    def __init__(self, function: Callable[[Job], Awaitable[object]], *, timeout: float) -> None:
        self._function = function
        self._timeout = timeout

    async def run(self, job: Job) -> Outcome:
        """Await it. Cancelling cancels it, and waits for as long as it takes to end."""
        began = time.monotonic()
        outcome = await self._outcome(job)
        return replace(outcome, duration_ms=round((time.monotonic() - began) * 1000, 3))

    async def close(self) -> None:
        """See `Handler`. Between jobs there is nothing."""

    async def _outcome(self, job: Job) -> Outcome:
        limit = asyncio.timeout(self._timeout)
        try:
            async with limit:
                value = await self._function(job)
        except GeneratorExit:
            raise
        except BaseException as error:
            if isinstance(error, asyncio.CancelledError) and _is_cancelled():
                raise
            outcome = outcome_of_error(error)
        else:
            outcome = outcome_of_value(value)
        if limit.expired():
            return Outcome("retry", f"timed out after {self._timeout:g}s", suspect=True)
        return outcome


def _is_cancelled() -> bool:
    """Somebody cancels the run, and it is not the function that was cancelled by itself."""
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0
