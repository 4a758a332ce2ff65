"""Look, decide, commit, say, dispatch: what happens to one trigger, from the inbox to its line.

Read this first. Everything else in the engine serves one of these five verbs.
"""

import asyncio
import random
import secrets
from collections.abc import Mapping
from itertools import count
from typing import Protocol

from msgspec.structs import replace

from daemon.config import Step
from daemon.core.decide import OUTCOMES, compare, decide
from daemon.core.facts import Facts
from daemon.core.model import Fingerprint, Refused, Row, Transition, Trigger
from daemon.core.policy import backoff_seconds
from daemon.core.settle import Look, look_again_at
from daemon.engine.batching import Batcher
from daemon.engine.clock import now_us
from daemon.engine.disk import Question, look_at_all
from daemon.engine.dispatcher import Dispatcher
from daemon.engine.inbox import Inbox
from daemon.engine.journal import Journal
from daemon.engine.ledger import Ledger
from daemon.engine.locks import LockMap, Slot
from daemon.engine.trees import Tree
from daemon.engine.worker import Worker
from daemon.errors import StoreUnavailable

# Triggers worked on at once: what makes a batch for the disk and for the database.
IN_FLIGHT = 1_024
# A file that the kernel would not show is looked at again after so long.
UNSEEN_US = 5_000_000
# An outcome that could not be recorded, for a reason that nobody expected, is tried again.
AGAIN_SECONDS = 1.0
# States in which the disk may show that a file has settled.
_SETTLES = frozenset({"untracked", "gone", "settling"})
# States in which no file is expected at the path: a folder may have come and gone there.
_NOT_THERE = frozenset({"untracked", "gone"})
Result = Transition | Refused | None


class AlarmClock(Protocol):
    """Brings a file back when its time has come."""

    def set(self, row: Row, due_at: int, seen: Fingerprint | None) -> None:
        """Look at this file again at `due_at`; `seen` is what stood there when this was set."""
        ...

    def clear(self, row: Row) -> None:
        """This file waits for no time any more."""
        ...


class Pipeline:
    """Takes triggers from the inbox and does the five verbs for each, one at a time a path."""

    def __init__(
        self,
        node: str,
        trees: Mapping[str, Tree],
        inbox: Inbox,
        ledger: Ledger,
        journal: Journal,
        dispatcher: Dispatcher,
        alarms: AlarmClock,
    ) -> None:
        self._node = node
        self._trees = trees
        self._inbox = inbox
        self._ledger = ledger
        self._journal = journal
        self._dispatcher = dispatcher
        self._alarms = alarms
        self._locks = LockMap()
        self._disk = Worker("disk")
        self._looks: Batcher[Question, Look] = Batcher(
            lambda questions: self._disk.run(lambda: look_at_all(questions))
        )
        self._session = secrets.token_hex(4)
        self._attempts = count(1)

    async def run(self) -> None:
        """Work until cancelled; whoever cancels waits for the inbox to be idle first."""
        limit = asyncio.Semaphore(IN_FLIGHT)
        try:
            async with asyncio.TaskGroup() as tasks:
                while True:
                    await limit.acquire()
                    trigger = await self._inbox.get()
                    task = tasks.create_task(self._finish(trigger))
                    task.add_done_callback(lambda _: limit.release())
        finally:
            await self._disk.close()

    async def _finish(self, trigger: Trigger) -> None:
        try:
            await self.handle(trigger)
        finally:
            self._inbox.finished()

    async def handle(self, trigger: Trigger) -> Result:
        """All of it for one trigger. Returns what was committed or refused, None for a no-op."""
        async with self._locks.hold(trigger.key) as slot:
            try:
                result = await self._step(slot, trigger)
                if trigger.event in OUTCOMES or isinstance(result, Refused):
                    await self._step(slot, Trigger(trigger.key, "look", trigger.cause))
            except StoreUnavailable:
                # Only while the daemon stops: the next start finds the file as the database has it.
                result = None
            except Exception as error:  # noqa: BLE001 - one file's trouble must not end the daemon
                self._fail(slot, trigger, error)
                result = None
            if trigger.version is not None and not isinstance(result, Transition):
                self._dispatcher.not_started(trigger.key, trigger.version, slot.row)
        return result

    async def _step(self, slot: Slot, trigger: Trigger) -> Result:
        """Look, decide, commit; again from the start when somebody else moved the row on."""
        tree = self._trees[trigger.key.watch]
        while True:
            row = slot.row = slot.row or await self._load(trigger)
            if trigger.version not in {None, row.version}:
                return None
            look = await self._look(tree, row, trigger)
            decision = self._decide(tree, row, trigger, look)
            if not isinstance(decision, Transition):
                return decision
            after = await self._ledger.commit(decision)
            slot.row = after
            if after is not None:
                if after is not decision.after:  # a new file, which has got its number now
                    decision = replace(decision, after=after)
                self._follow(decision, look)
                return decision

    async def _load(self, trigger: Trigger) -> Row:
        return await self._ledger.row(trigger.key) or Row(0, trigger.key)

    async def _look(self, tree: Tree, row: Row, trigger: Trigger) -> Look:
        settles = row.state in _SETTLES
        path = tree.absolute(trigger.key.path)
        quiet = tree.quiet if settles else None
        own_clock = not tree.remote
        question = Question(path, tree.root_id, quiet, tree.probe, trigger.seen, own_clock)
        return await self._looks.ask(question)

    def _decide(self, tree: Tree, row: Row, trigger: Trigger, look: Look) -> Result:
        if look.kind == "error":
            if trigger.event not in OUTCOMES:
                self._unseen(row, trigger, look)
                return None
            # How the handler fared is recorded, whatever the disk will not show.
            look = Look("file", row.seen)
        facts = self._facts(tree, row, trigger, look)
        event = compare(facts) if trigger.event == "look" else trigger.event
        if event is None or (event == "discover" and not tree.matcher.wants(row.key.path)):
            self._leave(tree, row, trigger, look, facts)
            return None
        attempt_id = self._attempt_id()
        decision = decide(facts, event, trigger, attempt_id, self._node)
        if isinstance(decision, Refused):
            self._journal.refused(trigger, row, decision, attempt_id)
        elif event in {"settle", "discover"}:
            return replace(decision, evidence=look.evidence if look.settled else None)
        return decision

    def _facts(self, tree: Tree, row: Row, trigger: Trigger, look: Look) -> Facts:
        now = now_us()
        seen = look.seen
        step = tree.step(row.step)
        return Facts(
            row,
            now,
            seen,
            settled=look.settled,
            adopted=seen is not None and seen.ctime_ns // 1000 < tree.adopt_before,
            steps=tree.steps,
            attempts=step.attempts if step else 1,
            interruptions=tree.watch.interruptions,
            crashed=trigger.cause == "crash",
            alarm=trigger.cause == "alarm",
            settle_at=look_again_at(look, now, tree.quiet, own_clock=not tree.remote),
            retry_at=_retry_at(step, row, now) if trigger.event == "fail" else 0,
        )

    def _unseen(self, row: Row, trigger: Trigger, look: Look) -> None:
        """The kernel would not say what is there, so nothing may be concluded."""
        self._journal.failed(trigger, row, look.error or "", self._attempt_id())
        if row.due_at is not None:
            self._alarms.set(row, now_us() + UNSEEN_US, None)

    def _leave(self, tree: Tree, row: Row, trigger: Trigger, look: Look, facts: Facts) -> None:
        """Nothing to commit: wait on for what is still being written, go into what is a folder."""
        if row.due_at is not None:
            due_at = facts.settle_at if row.state == "settling" else row.due_at
            self._alarms.set(row, due_at, look.seen)
        elif look.kind == "directory" and tree.matcher.enters(row.key.path):
            self._inbox.request_scan(row.key, "new_directory")
        elif look.kind == "absent" and row.state in _NOT_THERE and trigger.cause == "hint":
            self._inbox.suspect(row.key)
        elif look.kind == "other":
            self._journal.ignored(row.key, look.kind)

    def _follow(self, transition: Transition, look: Look) -> None:
        """Dispatch what follows from a committed transition."""
        before, after = transition.before, transition.after
        if before.state == "processing":
            self._dispatcher.release(before)
        if after.state == "ready":
            self._dispatcher.offer(after)
        elif after.state == "processing":
            self._dispatcher.launch(after)
        if look.kind == "directory":
            # It has taken a file's place: nobody has looked into it yet.
            self._inbox.request_scan(after.key, "new_directory")
        if after.due_at is not None:
            self._alarms.set(after, after.due_at, look.seen)
        elif before.due_at is not None:
            self._alarms.clear(after)

    def _fail(self, slot: Slot, trigger: Trigger, error: Exception) -> None:
        row = slot.row or Row(0, trigger.key)
        slot.row = None
        if trigger.event in OUTCOMES:
            # The file is `processing` until this is on record, and nobody else will say it.
            asyncio.get_running_loop().call_later(AGAIN_SECONDS, self._inbox.put, trigger)
        text = f"{type(error).__name__}: {error}"
        self._journal.failed(trigger, row, text, self._attempt_id())

    def _attempt_id(self) -> str:
        return f"{self._session}-{next(self._attempts):x}"


def _retry_at(step: Step | None, row: Row, now: int) -> int:
    if step is None:
        return now
    wait = backoff_seconds(step.backoff, row.failures + 1, random.random())  # noqa: S311 - jitter
    return now + int(wait * 1_000_000)
