"""What last steps had achieved when a crash cut them off: a file that is away cannot begin anew."""

import asyncio
from collections.abc import Awaitable, Callable

from daemon.core.model import Row, Trigger
from daemon.engine.dispatcher import Dispatcher
from daemon.handlers.filing import FilingHandler

Finish = Callable[[Row], Awaitable[Trigger | None]]


def finisher(dispatcher: Dispatcher) -> Finish:
    """Asks of rows that were `processing` for the success that nobody could report any more."""

    async def finish(row: Row) -> Trigger | None:
        found = dispatcher.job(row)
        handler, job = found or (None, None)
        if job is None or not isinstance(handler, FilingHandler):
            return None
        outcome = await asyncio.to_thread(handler.taken, job)
        if outcome is None:
            return None
        return Trigger(row.key, "succeed", "crash", version=row.version, target=outcome.target)

    return finish


async def nothing(_row: Row) -> Trigger | None:
    """Of a daemon whose steps take no file away."""
    return None
