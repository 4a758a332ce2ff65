"""What last steps had achieved when a crash cut them off, and what they left half done."""

import asyncio
import threading
from collections.abc import Awaitable, Callable, Iterable
from contextlib import suppress

from daemon.config_names import ON_DONE
from daemon.core.model import Row, State, Trigger
from daemon.engine.dispatcher import Dispatcher
from daemon.engine.ledger import Ledger
from daemon.engine.trees import Tree
from daemon.handlers import relocate
from daemon.handlers.below import File
from daemon.handlers.filing import FilingHandler
from daemon.handlers.parts import Parts

CLEAN_SECONDS = 5.0
Finish = Callable[[Row], Awaitable[Trigger | None]]


async def tidy(trees: Iterable[Tree], ledger: Ledger, parts: Parts) -> None:
    """Remove copies that a crash cut off, and give files their names again that it kept from them.

    Before anything looks at the trees, where they would be missing.
    """
    await _clean(parts)
    for tree in trees:
        states: list[State] = ["processing"]
        if tree.watch.on_quarantine:
            states.append("quarantined")
        for state in states:
            async for rows in ledger.in_state(state, tree.name):
                await asyncio.to_thread(_restore, tree, rows)


async def _clean(parts: Parts) -> None:
    """What is in an archive that hangs is left for the next start; this one goes on."""
    late = threading.Event()
    cleaning = asyncio.ensure_future(asyncio.to_thread(parts.clean, late.is_set))
    # Nobody may be there to hear of an error: what could not be removed stays on record.
    cleaning.add_done_callback(lambda over: over.cancelled() or over.exception())
    try:
        await asyncio.wait((cleaning,), timeout=CLEAN_SECONDS)
    finally:
        late.set()


def _restore(tree: Tree, rows: Iterable[Row]) -> None:
    for row in rows:
        if row.seen is not None and (row.step == ON_DONE or row.state == "quarantined"):
            with suppress(OSError):  # it is found as what it is called now, and handled
                relocate.restore(File(tree.root, row.key.path, row.seen))


def finisher(dispatcher: Dispatcher) -> Finish:
    """Asks of rows that were `processing` for the success that nobody could report any more.

    A file that is away cannot begin anew.
    """

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
