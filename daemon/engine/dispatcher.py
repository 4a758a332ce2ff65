"""Hands ready files to handlers: one lane a step, at most `concurrency` files at once in each."""

import asyncio
import hashlib
from collections import deque
from collections.abc import Mapping
from functools import partial
from typing import Any

from daemon.core.model import Event, Key, Row, Trigger
from daemon.engine.inbox import Inbox
from daemon.engine.ledger import Ledger
from daemon.engine.trees import Tree
from daemon.handlers import Handler, Job, Outcome, Verdict

# Rows in memory a lane; the rest of the queue is in the database, and costs no memory.
QUEUE = 64
# A file that could not be started though it is still ready is left alone for so long.
DEFER_SECONDS = 5.0
_EVENTS: dict[Verdict, Event] = {"success": "succeed", "retry": "fail", "reject": "reject"}
LaneName = tuple[str, str]


class Lane:
    """One step of a watch: who runs, who is about to, and the next rows in order of arrival."""

    def __init__(self, tree: Tree, step: str, concurrency: int, handler: Handler) -> None:
        self.tree = tree
        self.step = step
        self.handler = handler
        self._concurrency = concurrency
        self.queue: deque[Row] = deque()
        self.starting: set[int] = set()
        self.running: dict[int, asyncio.Task[Outcome]] = {}
        # Rows that wait, start, run, or whose outcome is not committed yet: the database must not
        # offer them a second time.
        self.claimed: set[int] = set()
        # The database may hold ready rows that are not claimed.
        self.more = True

    @property
    def free(self) -> bool:
        """There is a place for one more."""
        return len(self.running) + len(self.starting) < self._concurrency

    def claim(self, row: Row) -> None:
        """Put the row into the queue."""
        self.claimed.add(row.id)
        self.queue.append(row)


class Dispatcher:
    """Asks the pipeline to start what is ready, and reports to it what became of it."""

    def __init__(self, inbox: Inbox, ledger: Ledger) -> None:
        self._inbox = inbox
        self._ledger = ledger
        self._lanes: dict[LaneName, Lane] = {}
        self._wake = asyncio.Event()
        self._stopping = False

    def add(self, tree: Tree, handlers: Mapping[str, Handler]) -> None:
        """Make the lanes of a watch; `handlers` by the name of the step."""
        for step in tree.watch.step:
            lane = Lane(tree, step.name, step.concurrency, handlers[step.name])
            self._lanes[tree.name, step.name] = lane

    @property
    def running(self) -> list[asyncio.Task[Outcome]]:
        """The handlers that run now."""
        return [task for lane in self._lanes.values() for task in lane.running.values()]

    async def run(self) -> None:
        """Start what is ready wherever there is a free place, until cancelled."""
        while True:
            self._wake.clear()
            await self._ledger.available.wait()
            for lane in self._lanes.values():
                await self._fill(lane)
            await self._wake.wait()

    def offer(self, row: Row) -> None:
        """This row is ready now."""
        lane = self._lanes.get(_lane_name(row))
        if lane is None:
            return
        if lane.more or row.id in lane.claimed or len(lane.queue) >= QUEUE:
            lane.more = True
        else:
            lane.claim(row)
        self._wake.set()

    def launch(self, row: Row) -> None:
        """The start of this row is committed: run its handler."""
        lane = self._lanes[_lane_name(row)]
        lane.starting.discard(row.id)
        if self._stopping:
            self._inbox.put(Trigger(row.key, "interrupt", "shutdown", row=row))
            return
        run = lane.handler.run(_job(lane.tree, row))
        task = asyncio.create_task(run, name=f"handler-{row.id}")
        lane.claimed.add(row.id)
        lane.running[row.id] = task
        task.add_done_callback(partial(self._report, lane, row))

    def release(self, row: Row) -> None:
        """What became of this row is committed: it may be offered again."""
        lane = self._lanes.get(_lane_name(row))
        if lane is not None:
            lane.claimed.discard(row.id)
            self._wake.set()

    def not_started(self, claimed: Row | None, now: Row | None) -> None:
        """The start of a claimed row was refused; `now` is what is known of it, if anything."""
        lane = self._lanes.get(_lane_name(claimed)) if claimed else None
        if lane is None or claimed is None:
            return
        lane.starting.discard(claimed.id)
        if (now is None or now.state == "ready") and not self._stopping:
            loop = asyncio.get_running_loop()
            loop.call_later(DEFER_SECONDS, self._reconsider, lane, claimed)
        else:
            self.release(claimed)

    async def drain(self, seconds: float, hurry: asyncio.Event) -> None:
        """Start nothing more; let handlers finish, then end them. Their files are interrupted.

        `hurry` cuts the waiting short, and the handlers' own time to end as well.
        """
        self._stopping = True
        await self._finished(seconds, hurry)
        self._cancel()
        await self._finished(None, hurry)
        self._cancel()
        await asyncio.gather(*self.running, return_exceptions=True)

    async def _finished(self, seconds: float | None, hurry: asyncio.Event) -> None:
        """Wait for the handlers, for the time given, or for somebody in a hurry."""
        if not self.running:
            return
        finished = asyncio.gather(*self.running, return_exceptions=True)
        hurried = asyncio.ensure_future(hurry.wait())
        waited: set[asyncio.Future[Any]] = {finished, hurried}
        await asyncio.wait(waited, timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
        hurried.cancel()

    def _cancel(self) -> None:
        for task in self.running:
            task.cancel()

    def _reconsider(self, lane: Lane, row: Row) -> None:
        lane.more = True
        self.release(row)

    async def _fill(self, lane: Lane) -> None:
        if lane.free and lane.more and not lane.queue:
            await self._refill(lane)
        while lane.free and lane.queue and not self._stopping:
            row = lane.queue.popleft()
            lane.starting.add(row.id)
            self._inbox.put(Trigger(row.key, "start", "dispatch", row=row))
        if lane.free and lane.more and not self._stopping:
            self._wake.set()

    async def _refill(self, lane: Lane) -> None:
        """Take the next rows from the database, without those that are here already."""
        limit = QUEUE + len(lane.claimed)
        # Before the read: what becomes ready while it runs may be missing from its answer.
        lane.more = False
        rows = await self._ledger.insist(
            "read", lambda: self._ledger.store.ready(lane.tree.name, lane.step, limit)
        )
        for row in [row for row in rows if row.id not in lane.claimed][:QUEUE]:
            lane.claim(row)
        lane.more = lane.more or len(rows) == limit

    def _report(self, lane: Lane, row: Row, task: asyncio.Task[Outcome]) -> None:
        """A handler has ended, whatever way: its place is free, and the pipeline hears of it."""
        del lane.running[row.id]
        self._wake.set()
        if task.cancelled():
            self._inbox.put(Trigger(row.key, "interrupt", "shutdown", row=row))
            return
        error = task.exception()
        outcome = Outcome("retry", f"{type(error).__name__}: {error}") if error else task.result()
        self._inbox.put(_trigger(row, outcome))


def _lane_name(row: Row) -> LaneName:
    return row.key.watch, row.step or ""


def _job(tree: Tree, row: Row) -> Job:
    path = tree.absolute(row.key.path)
    step = row.step or ""
    return Job(row.id, row.key, path, step, row.attempt, idempotency_key(row.key, row))


def idempotency_key(key: Key, row: Row) -> str:
    """The same for the same content and step, on every attempt and after every restart."""
    content = row.seen.content if row.seen else f"removed-{row.done}"
    parts = (key.watch.encode(), key.path, content.encode(), (row.step or "").encode())
    return hashlib.sha256(b"\0".join(parts)).hexdigest()[:32]


def _trigger(row: Row, outcome: Outcome) -> Trigger:
    event = _EVENTS[outcome.verdict]
    # An exception may name a path that is not UTF-8, and the database takes no such text.
    error = outcome.error and outcome.error.encode("utf-8", "backslashreplace").decode()
    duration = outcome.duration_ms
    return Trigger(row.key, event, "handler", row=row, error=error, duration_ms=duration)
