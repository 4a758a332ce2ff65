"""What the dispatcher has to know of a former run, before the first file is started."""

import asyncio
from collections.abc import Iterable
from contextlib import suppress
from functools import partial

import msgspec

from daemon.engine.clock import now_us
from daemon.engine.lanes import Lane
from daemon.engine.ledger import Ledger
from daemon.engine.rate import WINDOW_SECONDS, Rate
from daemon.engine.standing import Standings, heard
from daemon.engine.trees import Tree


async def resume(lanes: Iterable[Lane], ledger: Ledger) -> list[Lane]:
    """Have the queues as they are asked for now, and the rates and breakers as they were.

    Returns the lanes that are open again.
    """
    lanes = list(lanes)
    sources = [lane.backlog.source for lane in lanes]
    await ledger.insist("write", lambda: ledger.store.prepare(sources))
    standings = {}
    for tree in {lane.tree.name: lane.tree for lane in lanes}.values():
        rank_ready = partial(ledger.store.rank_ready, tree.name, tree.ranks.signature, tree.rank)
        await ledger.insist("write", rank_ready)
        standings[tree.name] = await _standings(tree, ledger)
    for lane in lanes:
        if lane.rate:
            await _restore(lane, lane.rate, ledger)
    return [lane for lane in lanes if _reopen(lane, standings[lane.tree.name])]


async def _standings(tree: Tree, ledger: Ledger) -> Standings:
    text = await ledger.insist("read", partial(ledger.store.steps, tree.name))
    # What a daemon of another version wrote is as good as nothing.
    with suppress(msgspec.MsgspecError):
        return heard(text) if text else {}
    return {}


async def _restore(lane: Lane, rate: Rate, ledger: Ledger) -> None:
    """A restart opens no new window: what was started in the last minute counts."""
    wall = now_us()
    since = wall - int(WINDOW_SECONDS * 1_000_000)
    name, step = lane.tree.name, lane.step.name
    read = partial(ledger.store.starts, name, step, since, rate.most)
    now = asyncio.get_running_loop().time()
    # What a clock that was put back since has placed in the future counts as of now.
    ages = [max(0, wall - at) / 1_000_000 for at in await ledger.insist("read", read)]
    rate.restore(now - age for age in ages)


def _reopen(lane: Lane, standings: Standings) -> bool:
    former = standings.get(lane.step.name)
    if former is None or former.open_since is None:
        return False
    lane.reopen(former, asyncio.get_running_loop().time())
    return True
