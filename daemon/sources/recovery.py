"""What a former run left behind: files whose handler died with it, files that wait for nothing.

And files that wait for something beside themselves, which may have come meanwhile.
"""

from collections.abc import AsyncIterator, Iterable
from functools import partial

from daemon.core.model import Row, Trigger
from daemon.engine.inbox import Inbox
from daemon.engine.ledger import Ledger
from daemon.engine.trees import Tree

PAGE = 1_000


async def recover(trees: Iterable[Tree], inbox: Inbox, ledger: Ledger) -> int:
    """Interrupt what was being handled; send what waits for a removed step back to settling.

    Returns the number of files concerned. Before the dispatcher starts: a file is `processing`
    in the database only while no handler of this run has it.
    """
    found = 0
    known = list(trees)
    for tree in known:
        found += await _interrupt(tree, inbox, ledger)
    # What was interrupted may itself wait for a removed step: it has to be on record first.
    await inbox.idle()
    for tree in known:
        found += await _release_stranded(tree, inbox, ledger)
        if not tree.is_plain:
            await _look_again(tree, inbox, ledger)
    return found


async def _interrupt(tree: Tree, inbox: Inbox, ledger: Ledger) -> int:
    count = 0
    async for row in _in_state("processing", tree, ledger):
        await inbox.offer(Trigger(row.key, "interrupt", "crash"))
        count += 1
    return count


async def _look_again(tree: Tree, inbox: Inbox, ledger: Ledger) -> None:
    """Have a look in place of the timer: it may be a minute off, and a scan sees no difference."""
    async for row in _in_state("settling", tree, ledger):
        await inbox.offer(Trigger(row.key, "look", "alarm"))


async def _in_state(state: str, tree: Tree, ledger: Ledger) -> AsyncIterator[Row]:
    last = 0
    while rows := await ledger.insist(
        "read", partial(ledger.store.in_state, state, tree.name, last, PAGE)
    ):
        for row in rows:
            yield row
        last = rows[-1].id


async def _release_stranded(tree: Tree, inbox: Inbox, ledger: Ledger) -> int:
    rows = await ledger.insist("read", lambda: ledger.store.stranded(tree.name, tree.steps))
    for row in rows:
        await inbox.offer(Trigger(row.key, "hold", "step_removed"))
        await inbox.offer(Trigger(row.key, "release", "step_removed"))
    return len(rows)
