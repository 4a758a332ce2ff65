"""Look, decide, commit, say, dispatch: what happens to triggers, from the inbox to their lines.

Read this first. Everything else in the engine serves one of these five verbs.
"""

import asyncio
import secrets
from collections.abc import Mapping, Sequence
from itertools import count

from msgspec.structs import replace

from daemon.core.decide import OUTCOMES, decide
from daemon.core.model import Event, Key, Refused, Row, Transition, Trigger
from daemon.core.settle import Look
from daemon.engine.clock import AlarmClock, now_us
from daemon.engine.conditions import Conditions
from daemon.engine.contents import Contents
from daemon.engine.deliveries import Deliveries
from daemon.engine.dispatcher import Dispatcher
from daemon.engine.evidence import Evidence
from daemon.engine.inbox import Inbox
from daemon.engine.journal import Journal
from daemon.engine.ledger import Ledger
from daemon.engine.locks import LockMap
from daemon.engine.moves import Moves
from daemon.engine.patience import Patience
from daemon.engine.slices import SLICE, slices
from daemon.engine.trees import Tree
from daemon.engine.turns import Turn
from daemon.errors import StoreUnavailable

# Looks that go through the verbs together: a task, a lock and a future each would cost 25 us.
TOGETHER = 256
# Such groups at once.
IN_FLIGHT = 16
# A file that the kernel would not show is looked at again after so long.
UNSEEN_US = 5_000_000
# An outcome that could not be recorded, for a reason that nobody expected, is tried again.
AGAIN_SECONDS = 1.0
# States in which no file is expected at the path: a folder may have come and gone there.
_NOT_THERE = frozenset({"untracked", "gone"})
Result = Transition | Refused | None


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
        self._patience = Patience(inbox)
        self._session = secrets.token_hex(4)
        self._attempts = count(1)
        self._contents = Contents(inbox, journal, self._attempt_id)
        self._evidence = Evidence(trees, ledger, self._contents)
        digests = self._contents.digests
        deliveries = Deliveries(journal, self._locks, self._evidence, digests, self._settle_all)
        self._conditions = Conditions(inbox, ledger, journal, self._patience, deliveries)
        self._moves = Moves(self._locks, self._patience, node, self._attempt_id)

    async def run(self) -> None:
        """Work until cancelled; whoever cancels waits for the inbox to be idle first."""
        limit = asyncio.Semaphore(IN_FLIGHT)
        try:
            async with asyncio.TaskGroup() as tasks:
                while True:
                    await limit.acquire()
                    triggers = await self._inbox.take(TOGETHER)
                    task = tasks.create_task(self._finish(triggers))
                    task.add_done_callback(lambda _: limit.release())
        finally:
            await self._contents.close()
            await self._conditions.close()
            await self._evidence.close()

    async def drop_waiting(self) -> None:
        """The daemon stops: what waits for an explanation is found again by the next start."""
        self._patience.drop()
        await self._contents.close()
        await self._conditions.drop()

    async def _finish(self, triggers: Sequence[Trigger]) -> None:
        """Looks at free paths go together; whatever has to wait for its path goes alone."""
        turns, alone = [], []
        for trigger in triggers:
            slot = self._locks.take_if_free(trigger.key) if trigger.event == "look" else None
            if slot is None:
                alone.append(trigger)
            else:
                turns.append(Turn(trigger, slot, self._trees[trigger.key.watch]))
        try:
            alone += await self._handle_together(turns)
            await asyncio.gather(*map(self.handle, alone))
        finally:
            self._inbox.finished(len(triggers))

    async def _handle_together(self, turns: Sequence[Turn]) -> Sequence[Trigger]:
        """All of it for looks whose paths are held; after an error, those to be done one by one."""
        try:
            await self._advance(turns)
        except Exception:  # noqa: BLE001 - one file's trouble is not the others': who has it will say
            return [turn.trigger for turn in turns]
        finally:
            for turn in turns:
                self._locks.give_back(turn.key)
        return ()

    async def handle(self, trigger: Trigger) -> Result:
        """All of it for one trigger. Returns what was committed or refused, None for a no-op."""
        tree = self._trees[trigger.key.watch]
        async with self._locks.hold(trigger.key) as slot:
            turn = Turn(trigger, slot, tree)
            try:
                await self._advance([turn])
                if trigger.event in OUTCOMES and turn.is_stale:
                    turn.result = turn.refusal()
                    self._journal.refused(trigger, turn.row, turn.result, self._attempt_id())
                if trigger.event in OUTCOMES or isinstance(turn.result, Refused):
                    again = Trigger(trigger.key, "look", trigger.cause)
                    await self._advance([Turn(again, slot, tree)])
            except StoreUnavailable:
                # Only while the daemon stops: the next start finds the file as the database has it.
                turn.result = None
            except Exception as error:  # noqa: BLE001 - one file's trouble must not end the daemon
                self._fail(turn, error)
                turn.result = None
            if trigger.version is not None and not isinstance(turn.result, Transition):
                self._dispatcher.not_started(trigger.key, trigger.version, slot.row)
        return turn.result

    async def _advance(self, turns: Sequence[Turn]) -> None:
        """Look, decide, commit; again from the start where somebody else moved the row on."""
        while turns:
            current = await self._evidence.gather(turns)
            try:
                self._decide_all(current)
                turns = await self._commit([turn for turn in current if turn.transitions])
            finally:
                for turn in current:
                    self._moves.give_back(turn)

    def _decide_all(self, turns: Sequence[Turn]) -> None:
        """Those first whose file has a row elsewhere: that row may be another turn's."""
        group = {turn.key: turn for turn in turns}
        for turn in turns:
            turn.result = None
            if turn.origin is not None and not turn.lent:
                turn.result = self._decide(turn, group)
        for turn in turns:
            if turn.lent:
                turn.lent = False
                self._inbox.put(turn.trigger)
            elif turn.origin is None:
                turn.result = self._decide(turn, group)

    def _decide(self, turn: Turn, group: Mapping[Key, Turn]) -> Result:
        if turn.look.kind == "error":
            self._unseen(turn)
            return None
        event = turn.event
        if event is None or not turn.is_wanted:
            self._leave(turn)
            return None
        if turn.origin is not None and self._moves.decides(turn, turn.origin, group):
            return turn.result
        return self._judge(turn, event) if self._is_time(turn) else None

    def _judge(self, turn: Turn, event: Event) -> Result:
        attempt_id = self._attempt_id()
        decision = decide(turn.facts, event, turn.trigger, attempt_id, self._node)
        if isinstance(decision, Refused):
            self._journal.refused(turn.trigger, turn.row, decision, attempt_id)
        elif event in {"settle", "discover"} and turn.facts.settled:
            return replace(decision, evidence=turn.evidence)
        return decision

    def _is_time(self, turn: Turn) -> bool:
        """Whether what was seen may be concluded from, or has to wait for the rest of a rename."""
        if turn.event == "vanish":
            return self._may_vanish(turn)
        if turn.is_replaced and not turn.trigger.waited:
            # The row's own file may have been renamed, as a log is, and be found in a moment.
            self._patience.wait(turn.trigger)
            return False
        return True

    def _may_vanish(self, turn: Turn) -> bool:
        """A removal waits: the file may stand under another path, or its root be away."""
        if turn.tree.detection.frozen is not None:
            return False
        if turn.trigger.waited and not self._moves.awaits(turn.row):
            return True
        if turn.look.kind == "directory":
            # It has taken a file's place: nobody has looked into it yet.
            self._inbox.request_scan(turn.key, "new_directory")
        self._patience.wait(turn.trigger)
        return False

    async def _settle_all(self, turns: Sequence[Turn]) -> None:
        """Settle the members of a set, whose paths are held, in one transaction."""
        for some in slices(turns):
            for turn in some:
                turn.result = self._judge(turn, "settle")
            await asyncio.sleep(0)
        await self._commit([turn for turn in turns if turn.transitions])

    async def _commit(self, turns: Sequence[Turn]) -> Sequence[Turn]:
        """Commit what was decided and do what follows; returns those that lost their race."""
        if not turns:
            return ()
        transitions = [each for turn in turns for each in turn.transitions]
        rows = iter(await self._ledger.commit(transitions))
        lost = []
        for number, turn in enumerate(turns, 1):
            own, *_ = [self._committed(turn, each, next(rows)) for each in turn.transitions]
            turn.slot.row = own.after if own else None
            turn.result = own
            if own is None:
                lost.append(turn)
            if number % SLICE == 0:
                await asyncio.sleep(0)
        return lost

    def _committed(self, turn: Turn, decision: Transition, after: Row | None) -> Transition | None:
        if after is None:
            return None
        if after is not decision.after:  # a new file, which has got its number now
            decision = replace(decision, after=after)
        self._follow(decision, turn.look)
        if not turn.tree.is_plain:
            self._conditions.follow(turn, decision)
        return decision

    def _unseen(self, turn: Turn) -> None:
        """The kernel would not say what is there, so nothing may be concluded."""
        row = turn.row
        self._journal.failed(turn.trigger, row, turn.look.error or "", self._attempt_id())
        if row.due_at is not None:
            self._alarms.set(row, now_us() + UNSEEN_US, None)

    def _leave(self, turn: Turn) -> None:
        """Nothing to commit: wait on for what is still being written, go into what is a folder."""
        row, look = turn.row, turn.look
        if not turn.tree.is_plain:
            self._conditions.leave(turn)
        if row.state == "processing" and turn.is_overtaken:
            self._dispatcher.overtaken(row)
        if row.due_at is not None:
            due_at = turn.facts.settle_at if row.state == "settling" else row.due_at
            self._alarms.set(row, due_at, look.seen)
        elif look.kind == "directory" and turn.tree.matcher.enters(row.key.path):
            self._inbox.request_scan(row.key, "new_directory")
        elif look.kind == "absent" and row.state in _NOT_THERE and turn.trigger.cause == "hint":
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
        if after.due_at is not None:
            self._alarms.set(after, after.due_at, look.seen)
        elif before.due_at is not None:
            self._alarms.clear(after)

    def _fail(self, turn: Turn, error: Exception) -> None:
        trigger = turn.trigger
        turn.slot.row = None
        if trigger.event in OUTCOMES:
            # The file is `processing` until this is on record, and nobody else will say it.
            asyncio.get_running_loop().call_later(AGAIN_SECONDS, self._inbox.put, trigger)
        text = f"{type(error).__name__}: {error}"
        self._journal.failed(trigger, turn.row, text, self._attempt_id())

    def _attempt_id(self) -> str:
        return f"{self._session}-{next(self._attempts):x}"
