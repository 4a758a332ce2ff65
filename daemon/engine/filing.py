"""What last steps had achieved when a crash cut them off, and what they left half done."""

import asyncio
import threading
from collections.abc import Iterable
from contextlib import suppress
from functools import partial

from daemon.config_names import ON_DONE
from daemon.core.model import Event, Row, State, Trigger
from daemon.engine.dispatcher import Dispatcher
from daemon.engine.inbox import Inbox
from daemon.engine.ledger import Ledger
from daemon.engine.line import NoAnswer
from daemon.engine.trees import Tree
from daemon.engine.worker import Worker
from daemon.handlers import Job, relocate
from daemon.handlers.below import File
from daemon.handlers.filing import FilingHandler
from daemon.handlers.parts import Parts

CLEAN_SECONDS = 5.0


async def tidy(trees: Iterable[Tree], ledger: Ledger, parts: Parts) -> None:
    """Remove copies that a crash cut off, and give files their names again that it kept from them.

    Before anything looks at the trees, where they would be missing.
    """
    await _clean(parts)
    for tree in trees:
        # Those of a tree that hangs are taken from where they are, when it answers.
        with suppress(NoAnswer):
            await _tidy(tree, ledger)


async def _tidy(tree: Tree, ledger: Ledger) -> None:
    states: list[State] = ["processing"]
    if tree.watch.on_quarantine:
        states.append("quarantined")
    for state in states:
        async for rows in ledger.in_state(state, tree.name):
            await tree.disk.looks.run(partial(_restore, tree, rows))


async def _clean(parts: Parts) -> None:
    """What is in an archive that hangs is left for the next start; this one goes on."""
    late, disk = threading.Event(), Worker("clean")
    cleaning = disk.run(partial(parts.clean, late.is_set))
    # Nobody may be there to hear of an error: what could not be removed stays on record.
    cleaning.add_done_callback(lambda over: over.cancelled() or over.exception())
    try:
        await asyncio.wait((cleaning,), timeout=CLEAN_SECONDS)
    finally:
        late.set()
        await disk.close()


def _restore(tree: Tree, rows: Iterable[Row]) -> None:
    for row in rows:
        tree.disk.looks.go_on()
        if row.seen is not None and (row.step == ON_DONE or row.state == "quarantined"):
            with suppress(OSError):  # it is found as what it is called now, and handled
                relocate.restore(File(tree.root, row.key.path, row.seen))


class Unfinished:
    """Files that were being taken away when the daemon ended: the disk tells what came of it.

    A file that is away cannot begin anew. It is asked beside everything else, for the place where
    they go may hang: until then they are `processing`, and nobody finds them missing.
    """

    def __init__(self, dispatcher: Dispatcher) -> None:
        self._dispatcher = dispatcher
        self._rows: list[tuple[Row, FilingHandler, Job]] = []

    def take(self, row: Row) -> bool:
        """Whether this is one of them, which is then kept for `report`."""
        handler, job = self._dispatcher.job(row) or (None, None)
        if job is None or not isinstance(handler, FilingHandler):
            return False
        self._rows.append((row, handler, job))
        return True

    async def report(self, inbox: Inbox) -> None:
        """Ask for each whether it was taken; that is its success, and else it is interrupted."""
        async with asyncio.TaskGroup() as tasks:
            for row, handler, job in self._rows:
                tasks.create_task(_report(row, handler, job, inbox))
            self._rows.clear()


async def _report(row: Row, handler: FilingHandler, job: Job, inbox: Inbox) -> None:
    outcome = await handler.taken(job)
    event: Event = "interrupt" if outcome is None else "succeed"
    target = None if outcome is None else outcome.target
    await inbox.offer(Trigger(row.key, event, "crash", version=row.version, target=target))
