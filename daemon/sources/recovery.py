"""What a former run left behind: files whose handler died with it, files that wait for nothing."""

from collections.abc import Iterable

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
    return found


async def _interrupt(tree: Tree, inbox: Inbox, ledger: Ledger) -> int:
    count, last = 0, 0
    while rows := await _processing(tree, ledger, last):
        for row in rows:
            await inbox.offer(Trigger(row.key, "interrupt", "crash"))
        count, last = count + len(rows), rows[-1].id
    return count


async def _processing(tree: Tree, ledger: Ledger, after_id: int) -> list[Row]:
    return await ledger.insist(
        "read", lambda: ledger.store.in_state("processing", tree.name, after_id, PAGE)
    )


async def _release_stranded(tree: Tree, inbox: Inbox, ledger: Ledger) -> int:
    rows = await ledger.insist("read", lambda: ledger.store.stranded(tree.name, tree.steps))
    for row in rows:
        await inbox.offer(Trigger(row.key, "hold", "step_removed"))
        await inbox.offer(Trigger(row.key, "release", "step_removed"))
    return len(rows)
