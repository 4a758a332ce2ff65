"""Hands ready files to handlers: one lane a step, and the places of the whole daemon in turns."""

import asyncio
from collections.abc import Mapping
from contextlib import suppress
from functools import partial
from typing import Any

from msgspec.structs import replace

from daemon.core.model import Key, Row, Trigger
from daemon.engine.inbox import Inbox
from daemon.engine.jobs import accident, interruption, job_of, trigger_of
from daemon.engine.journal import Journal
from daemon.engine.lanes import Lane
from daemon.engine.ledger import Ledger
from daemon.engine.places import LaneName, Places
from daemon.engine.resuming import resume
from daemon.engine.standing import Standing, Standings, Survivor
from daemon.engine.trees import Tree
from daemon.handlers import Handler, Job, Outcome, Undecided
from daemon.handlers.filing import FilingHandler


class Dispatcher:
    """Asks the pipeline to start what is ready, and reports to it what became of it."""

    def __init__(
        self, inbox: Inbox, ledger: Ledger, journal: Journal, places: int | None = None
    ) -> None:
        """`places`: how many files may be handled at once in all lanes together."""
        self._inbox = inbox
        self._ledger = ledger
        self._journal = journal
        self._places = Places(places)
        self._lanes = self._places.lanes
        # Which lane asked for the start of a row at a version: by the time of the answer the row
        # may have moved on, to another step even, whose lane asks for it as well.
        self._starting: dict[tuple[Key, int], Lane] = {}
        # Who of a former run may still have files of a step, as far as that is known.
        self.survivors: dict[LaneName, tuple[Survivor, ...]] = {}
        self._wake = asyncio.Event()
        # Set when it is known how a former run has left its steps.
        self.resumed = asyncio.Event()
        self._stopping = False

    def add(self, tree: Tree, handlers: Mapping[str, Handler]) -> None:
        """Make lanes of a watch; `handlers` by the name of the step."""
        for step in tree.watch.all_steps:
            if step.name in handlers:
                lane = Lane(tree, step, handlers[step.name], self._ledger)
                self._lanes[tree.name, step.name] = lane

    @property
    def running(self) -> list[asyncio.Task[Outcome]]:
        """The handlers that run now."""
        return [task for lane in self._lanes.values() for task in lane.running.values()]

    @property
    def lanes(self) -> list[Lane]:
        """One a step, in the order of their turns."""
        return list(self._lanes.values())

    def standings(self, watch: str) -> Standings:
        """How the steps of a watch stand, those with something to say."""
        found = {}
        for name, step in sorted({**self._lanes, **self.survivors}):
            if name == watch and (standing := self._standing((name, step))) != Standing():
                found[step] = standing
        return found

    def _standing(self, name: LaneName) -> Standing:
        lane, survivors = self._lanes.get(name), self.survivors.get(name, ())
        if lane is None:  # a step that is not configured any more
            return Standing(survivors=survivors)
        now = asyncio.get_running_loop().time()
        paused = lane.pause_reason if now < lane.paused_until else None
        silent = lane.handler.silent_since if isinstance(lane.handler, FilingHandler) else None
        return replace(lane.standing, paused=paused, silent_since=silent, survivors=survivors)

    async def run(self) -> None:
        """Start what is ready wherever there is a free place, until cancelled."""
        loop = asyncio.get_running_loop()
        for lane in await resume(self.lanes, self._ledger):
            self._say_open(lane)
        self.resumed.set()
        while True:
            self._wake.clear()
            await self._ledger.available.wait()
            now = loop.time()
            if not self._stopping:
                for lane, row in self._places.choose(now):
                    self._ask(lane, row)
            hungry = [lane for lane in self._lanes.values() if lane.is_hungry(now)]
            for lane in hungry:
                await lane.backlog.refill()
            if not hungry or self._stopping:
                await self._rest(now)

    def offer(self, row: Row) -> None:
        """This row is ready now."""
        lane = self._lanes.get(_lane_name(row))
        if lane is not None:
            lane.backlog.offer(row)
            self._wake.set()

    def launch(self, row: Row) -> None:
        """The start of this row is committed: run its handler."""
        asked = self._starting.pop((row.key, row.version - 1), None)
        if asked is not None:
            asked.starting.discard(row.key)
        lane = self._lanes[_lane_name(row)]
        if self._stopping:
            self._inbox.put(interruption(row, "shutdown"))
            return
        lane.started(row, asyncio.get_running_loop().time())
        run = lane.handler.run(job_of(lane.tree, row))
        task = asyncio.create_task(run, name=f"handler-{row.id}")
        lane.running[row.key] = task
        task.add_done_callback(partial(self._report, lane, row))
        if lane.rate:
            self._wake.set()

    def overtaken(self, row: Row) -> None:
        """The disk shows no longer what a handler works on: end it, if its step would have that."""
        lane = self._lanes.get(_lane_name(row))
        if lane is None or lane.step.on_change != "cancel" or row.key in lane.overtaken:
            return
        if task := lane.running.get(row.key):
            lane.overtaken.add(row.key)
            task.cancel()

    def job(self, row: Row) -> tuple[Handler, Job] | None:
        """What a row is handed to, and as what; None where no such step is configured."""
        lane = self._lanes.get(_lane_name(row))
        return None if lane is None else (lane.handler, job_of(lane.tree, row))

    def release(self, row: Row) -> None:
        """What became of this row is committed: it may be offered again."""
        lane = self._lanes.get(_lane_name(row))
        if lane is not None:
            lane.backlog.release(row.key)
            self._wake.set()

    def not_started(self, key: Key, version: int, now: Row | None) -> None:
        """A start asked for at a version did not come about; `now` is the row, if it is known."""
        lane = self._starting.pop((key, version), None)
        if lane is None:
            return
        self._places.freed(key)
        self._wake.set()
        seconds = lane.not_started(key, is_same=now is None or now.version == version)
        if seconds is not None:
            lane.backlog.set_aside(key, version, seconds, self._wake.set)

    def hasten(self, watch: str, step: str) -> None:
        """What a step needs may be there again."""
        if lane := self._lanes.get((watch, step)):
            lane.hasten(asyncio.get_running_loop().time())
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

    def _ask(self, lane: Lane, row: Row) -> None:
        lane.starting.add(row.key)
        self._starting[row.key, row.version] = lane
        self._inbox.put(Trigger(row.key, "start", "dispatch", version=row.version))

    async def _rest(self, now: float) -> None:
        """Wait for news, or for a time that some lane waits for."""
        times = [at for lane in self._lanes.values() if (at := lane.opens_at(now)) is not None]
        if not times:
            await self._wake.wait()
            return
        # Not wait_for: before Python 3.12 it loses a cancellation that meets the wake-up.
        with suppress(TimeoutError):
            async with asyncio.timeout_at(min(times)):
                await self._wake.wait()

    def _report(self, lane: Lane, row: Row, task: asyncio.Task[Outcome]) -> None:
        """A handler has ended, whatever way: its place is free, and the pipeline hears of it."""
        del lane.running[row.key]
        self._places.freed(row.key)
        self._wake.set()
        if task.cancelled():
            cause = "changed" if row.key in lane.overtaken else "shutdown"
            self._inbox.put(interruption(row, cause))
        else:
            error = task.exception()
            if not isinstance(error, Undecided):
                self._hear(lane, row, accident(error) if error else task.result())
        lane.ended(row)

    def _hear(self, lane: Lane, row: Row, outcome: Outcome) -> None:
        was_open = lane.breaker.is_open
        now = asyncio.get_running_loop().time()
        judged = lane.judge(row, outcome, now, self._wake.set)
        if lane.breaker.is_open and not was_open:
            self._say_open(lane)
        elif was_open and not lane.breaker.is_open:
            self._say_closed(lane, now)
        self._inbox.put(trigger_of(row, judged))

    def _say_open(self, lane: Lane) -> None:
        at, now = lane.breaker.probe_at, asyncio.get_running_loop().time()
        self._journal.daemon(
            "step_open",
            "warning",
            watch=lane.tree.name,
            step=lane.step.name,
            failures=lane.breaker.failures,
            error=lane.standing.error,
            probe_seconds=round(max(0.0, at - now), 3),
        )

    def _say_closed(self, lane: Lane, now: float) -> None:
        self._journal.daemon(
            "step_closed",
            watch=lane.tree.name,
            step=lane.step.name,
            probes=lane.breaker.probes,
            open_seconds=round(now - lane.breaker.opened_at, 3),
        )


def _lane_name(row: Row) -> LaneName:
    return row.key.watch, row.step or ""
