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
# A file that could not be started though it is still ready is left alone: so long at first, twice
# as long each time, and so long at most. With too many of them, their lane takes no more rows.
DEFER_SECONDS = 5.0
DEFER_LONGEST = 300.0
DEFERRED = 4_096
# What a lane waits after the machine was too short of something to start a program.
SHORTAGE_SECONDS = 1.0
_EVENTS: dict[Verdict, Event] = {
    "success": "succeed",
    "retry": "fail",
    "reject": "reject",
    "defer": "interrupt",
    "unavailable": "interrupt",
}
_CAUSES: dict[Verdict, str] = {"defer": "shortage", "unavailable": "unavailable"}
LaneName = tuple[str, str]


class Lane:
    """One step of a watch: who runs, who is about to, and the next rows in order of arrival."""

    def __init__(self, tree: Tree, step: str, concurrency: int, handler: Handler) -> None:
        self.tree = tree
        self.step = step
        self.handler = handler
        self._concurrency = concurrency
        self.queue: deque[Row] = deque()
        self.starting: set[Key] = set()
        self.running: dict[Key, asyncio.Task[Outcome]] = {}
        # Rows that wait, start, run, are deferred, or whose outcome is not committed yet: the
        # database must not offer them a second time.
        self.claimed: set[Key] = set()
        # How often in a row a file was deferred.
        self.deferred: dict[Key, int] = {}
        # The database may hold ready rows that are not claimed.
        self.more = True
        # The machine is short of something: nothing is started for a while.
        self.short = False

    @property
    def free(self) -> bool:
        """There is a place for one more."""
        taken = len(self.running) + len(self.starting)
        return not self.short and taken < self._concurrency

    def claim(self, row: Row) -> None:
        """Put the row into the queue."""
        self.claimed.add(row.key)
        self.queue.append(row)

    def defer_seconds(self, key: Key) -> float:
        """How long a file is left alone that could not be started: longer each time."""
        times = self.deferred[key] = self.deferred.get(key, -1) + 1
        return min(DEFER_SECONDS * 2.0 ** min(times, 10), DEFER_LONGEST)


class Dispatcher:
    """Asks the pipeline to start what is ready, and reports to it what became of it."""

    def __init__(self, inbox: Inbox, ledger: Ledger) -> None:
        self._inbox = inbox
        self._ledger = ledger
        self._lanes: dict[LaneName, Lane] = {}
        # Which lane asked for the start of a row at a version: by the time of the answer the row
        # may have moved on, to another step even, whose lane asks for it as well.
        self._starting: dict[tuple[Key, int], Lane] = {}
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
        if lane.more or row.key in lane.claimed or len(lane.queue) >= QUEUE:
            lane.more = True
        else:
            lane.claim(row)
        self._wake.set()

    def launch(self, row: Row) -> None:
        """The start of this row is committed: run its handler."""
        asked = self._starting.pop((row.key, row.version - 1), None)
        if asked is not None:
            asked.starting.discard(row.key)
            asked.deferred.pop(row.key, None)
        lane = self._lanes[_lane_name(row)]
        if self._stopping:
            self._inbox.put(Trigger(row.key, "interrupt", "shutdown"))
            return
        run = lane.handler.run(_job(lane.tree, row))
        task = asyncio.create_task(run, name=f"handler-{row.id}")
        lane.claimed.add(row.key)
        lane.running[row.key] = task
        task.add_done_callback(partial(self._report, lane, row))

    def release(self, row: Row) -> None:
        """What became of this row is committed: it may be offered again."""
        lane = self._lanes.get(_lane_name(row))
        if lane is not None:
            lane.claimed.discard(row.key)
            self._wake.set()

    def not_started(self, key: Key, version: int, now: Row | None) -> None:
        """A start asked for at a version did not come about; `now` is the row, if it is known."""
        lane = self._starting.pop((key, version), None)
        if lane is None:
            return
        lane.starting.discard(key)
        if now is None or now.version == version:
            loop = asyncio.get_running_loop()
            loop.call_later(lane.defer_seconds(key), self._reconsider, lane, key)
        else:
            lane.deferred.pop(key, None)
            self._reconsider(lane, key)
        self._wake.set()

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

    async def close(self) -> None:
        """End what handlers keep between files; none of them runs any more."""
        for lane in self._lanes.values():
            await lane.handler.close()

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

    def _reconsider(self, lane: Lane, key: Key) -> None:
        lane.more = True
        lane.claimed.discard(key)
        self._wake.set()

    async def _fill(self, lane: Lane) -> None:
        if self._is_hungry(lane):
            await self._refill(lane)
        while lane.free and lane.queue and not self._stopping:
            self._ask(lane, lane.queue.popleft())
        if self._is_hungry(lane):
            self._wake.set()

    def _is_hungry(self, lane: Lane) -> bool:
        """There is a place, nobody in the queue for it, and perhaps somebody in the database."""
        wanted = lane.free and lane.more and not lane.queue
        return wanted and len(lane.deferred) < DEFERRED and not self._stopping

    def _ask(self, lane: Lane, row: Row) -> None:
        lane.starting.add(row.key)
        self._starting[row.key, row.version] = lane
        self._inbox.put(Trigger(row.key, "start", "dispatch", version=row.version))

    async def _refill(self, lane: Lane) -> None:
        """Take the next rows from the database, without those that are here already."""
        limit = QUEUE + len(lane.claimed)
        # Before the read: what becomes ready while it runs may be missing from its answer.
        lane.more = False
        rows = await self._ledger.insist(
            "read", lambda: self._ledger.store.ready(lane.tree.name, lane.step, limit)
        )
        for row in rows:
            if row.key not in lane.claimed:
                lane.claim(row)
        lane.more = lane.more or len(rows) == limit

    def _report(self, lane: Lane, row: Row, task: asyncio.Task[Outcome]) -> None:
        """A handler has ended, whatever way: its place is free, and the pipeline hears of it."""
        del lane.running[row.key]
        self._wake.set()
        if task.cancelled():
            self._inbox.put(Trigger(row.key, "interrupt", "shutdown"))
            return
        error = task.exception()
        outcome = Outcome("retry", f"{type(error).__name__}: {error}") if error else task.result()
        if outcome.verdict == "defer":
            self._pause(lane)
        self._inbox.put(_trigger(row, outcome))

    def _pause(self, lane: Lane) -> None:
        """The machine is short of descriptors, processes or memory: leave it to recover."""

        def resume() -> None:
            lane.short = False
            self._wake.set()

        if not lane.short:
            lane.short = True
            asyncio.get_running_loop().call_later(SHORTAGE_SECONDS, resume)


def _lane_name(row: Row) -> LaneName:
    return row.key.watch, row.step or ""


def _job(tree: Tree, row: Row) -> Job:
    path = tree.absolute(row.key.path)
    step = row.step or ""
    return Job(
        row.id,
        row.key,
        path,
        step,
        row.attempt,
        idempotency_key(row.key, row),
        row.version,
        row.plan,
        row.seen,
        row.result,
    )


def idempotency_key(key: Key, row: Row) -> str:
    """The same for the same content and step, on every attempt and after every restart."""
    content = row.content or f"removed-{row.done}"
    parts = (key.watch.encode(), key.path, content.encode(), (row.step or "").encode())
    return hashlib.sha256(b"\0".join(parts)).hexdigest()[:32]


def _trigger(row: Row, outcome: Outcome) -> Trigger:
    event = _EVENTS[outcome.verdict]
    # An exception may name a path that is not UTF-8, and the database takes no such text.
    error = outcome.error and outcome.error.encode("utf-8", "backslashreplace").decode()
    duration = outcome.duration_ms
    cause = _CAUSES.get(outcome.verdict, "handler")
    return Trigger(
        row.key,
        event,
        cause,
        error=error,
        duration_ms=duration,
        after=outcome.after,
        result=outcome.result,
    )
