"""Look, decide, commit, say, dispatch: what happens to triggers, from the inbox to their lines.

Read this first. Everything else in the engine serves one of these five verbs.
"""

import asyncio
from collections import defaultdict
from collections.abc import Awaitable, Mapping, Sequence

from msgspec.structs import replace

from daemon.core.decide import OUTCOMES, decide
from daemon.core.model import Event, Key, Refused, Transition, Trigger
from daemon.engine.attempts import attempt_ids
from daemon.engine.batching import Batcher
from daemon.engine.clock import AlarmClock
from daemon.engine.conditions import Conditions
from daemon.engine.contents import Contents
from daemon.engine.deliveries import Deliveries
from daemon.engine.dispatcher import Dispatcher
from daemon.engine.evidence import Evidence
from daemon.engine.inbox import Bundle, Inbox
from daemon.engine.journal import Journal
from daemon.engine.ledger import Ledger
from daemon.engine.locks import Hold, LockMap
from daemon.engine.moves import Moves
from daemon.engine.newcomers import Newcomers
from daemon.engine.patience import Patience
from daemon.engine.sequels import Sequels
from daemon.engine.slices import SLICE, slices
from daemon.engine.trees import Tree
from daemon.engine.turns import Turn
from daemon.errors import StoreUnavailable

# Triggers that go through the verbs together: a task and two hops for each would cost 40 us more.
TOGETHER = 256
# Such groups at once.
IN_FLIGHT = 16
# An outcome that could not be recorded, for a reason that nobody expected, is tried again.
AGAIN_SECONDS = 1.0
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
        self._dispatcher = dispatcher
        self._locks = LockMap()
        self._alone: dict[str, Batcher[Turn, None]] = {
            name: Batcher(self._pass, TOGETHER, IN_FLIGHT) for name in trees
        }
        self._patience = Patience(inbox)
        attempt_id = self._attempt_id = attempt_ids()
        self._contents = Contents(trees, inbox, journal, attempt_id)
        self._evidence = Evidence(trees, ledger, self._contents)
        loops = self._evidence.loops
        deliveries = Deliveries(journal, self._locks, self._evidence, self._settle_all)
        self._conditions = Conditions(inbox, ledger, journal, self._patience, deliveries)
        self._moves = Moves(self._locks, inbox, self._patience, node, attempt_id)
        self._sequels = Sequels(
            inbox, journal, dispatcher, alarms, self._conditions, self._patience, loops, attempt_id
        )
        self._newcomers = Newcomers(
            node, trees, ledger, self._locks, self._evidence, self._moves, self._sequels, attempt_id
        )

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

    async def drop_waiting(self) -> None:
        """The daemon stops: what waits for an explanation is found again by the next start."""
        self._patience.drop()
        await self._contents.close()
        await self._conditions.drop()

    def handle(self, trigger: Trigger) -> Awaitable[Result]:
        """All of it for one trigger, which takes its place in the line of its path at once.

        Resolves to what was committed or refused, to None for a no-op. Whatever is handled in the
        same round of the loop goes through the verbs together.
        """
        return self._handle(trigger, self._locks.hold(trigger.key))

    async def _handle(self, trigger: Trigger, hold: Hold) -> Result:
        async with hold as slot:
            turn = Turn(trigger, slot, self._trees[trigger.key.watch])
            await self._alone[trigger.key.watch].ask([turn])
            return turn.result

    async def _finish(self, triggers: Sequence[Trigger]) -> None:
        """What is new goes a straight way, and all that is left the general one."""
        try:
            if isinstance(triggers, Bundle):
                await self._finish_some(await self._newcomers.adopt(triggers))
            elif seen := [trigger for trigger in triggers if trigger.sight]:
                others = self._finish_some([trigger for trigger in triggers if not trigger.sight])
                left, _ = await asyncio.gather(self._newcomers.discover(seen), others)
                await self._finish_some(left)
            else:
                await self._finish_some(triggers)
        finally:
            self._inbox.finished_all(triggers)

    async def _finish_some(self, triggers: Sequence[Trigger]) -> None:
        """Those whose path is free go together, the others each when it is their turn.

        But each tree by itself: the disk of another may hang.
        """
        free: defaultdict[str, list[Turn]] = defaultdict(list)
        waiting: list[Awaitable[Result]] = []
        for trigger in triggers:
            slot = self._locks.take_if_free(trigger.key)
            if slot is None:
                waiting.append(self.handle(trigger))
            else:
                watch = trigger.key.watch
                free[watch].append(Turn(trigger, slot, self._trees[watch]))
        together = [self._finish_free(turns) for turns in free.values()]
        if len(together) == 1 and not waiting:
            await together[0]
        else:
            await asyncio.gather(*together, *waiting)

    async def _finish_free(self, turns: Sequence[Turn]) -> None:
        try:
            await self._pass(turns)
        finally:
            for turn in turns:
                self._locks.give_back(turn.key)

    async def _pass(self, turns: Sequence[Turn]) -> Sequence[None]:
        """All of it for turns whose paths are held; an outcome is followed by a look."""
        await self._try(turns)
        again = [turn.again() for turn in turns if turn.needs_look]
        if again:
            await self._try(again)
        for turn in again:
            if not turn.over:
                self._later(turn.trigger)
        for turn in turns:
            version = turn.trigger.version
            if version is not None and not isinstance(turn.result, Transition):
                self._dispatcher.not_started(turn.key, version, turn.slot.row)
        return [None] * len(turns)

    async def _try(self, turns: Sequence[Turn]) -> None:
        """After an error one by one: one file's trouble is not the others', and is to be said."""
        try:
            await self._advance(turns)
        except StoreUnavailable:
            # Only while the daemon stops: the next start finds the files as the database has them.
            for turn in turns:
                turn.give_up()
        except Exception as error:  # noqa: BLE001 - one file's trouble must not end the daemon
            if len(turns) == 1:
                self._fail(turns[0], error)
                return
            for turn in turns:
                if not turn.over:
                    await self._try([turn])

    async def _advance(self, turns: Sequence[Turn]) -> None:
        """Look, decide, commit; again from the start where somebody else moved the row on."""
        while turns:
            current = await self._evidence.gather(turns)
            if len(current) < len(turns):
                self._refuse_stale(turns)
            try:
                self._decide_all(current)
                turns = await self._commit(current)
            finally:
                for turn in current:
                    if turn.former is not None:
                        self._moves.give_back(turn)

    def _refuse_stale(self, turns: Sequence[Turn]) -> None:
        for turn in turns:
            if turn.is_stale:
                turn.result, turn.over = None, True
                if turn.trigger.event in OUTCOMES:
                    turn.result = turn.refusal()
                    self._sequels.refused(turn, turn.result)

    def _decide_all(self, turns: Sequence[Turn]) -> None:
        """Those first whose file has a row elsewhere: that row may be another turn's."""
        movers = [turn for turn in turns if turn.origin is not None]
        group = {turn.key: turn for turn in turns} if movers else {}
        for turn in turns:
            turn.result = None
        self._moves.expect(turns, movers)
        for turn in movers:
            if not turn.lent:
                turn.result = self._decide(turn, group)
        for turn in turns:
            if turn.lent:
                turn.lent = False
                self._inbox.put(turn.trigger)
            elif turn.origin is None:
                turn.result = self._decide(turn, group)

    def _decide(self, turn: Turn, group: Mapping[Key, Turn]) -> Result:
        if turn.look.kind == "error":
            self._sequels.unseen(turn)
            return None
        event = turn.event
        if event is None or not turn.is_wanted:
            self._sequels.leave(turn)
            return None
        if turn.origin is not None and self._moves.decides(turn, turn.origin, group):
            return turn.result
        return self._judge(turn, event) if self._moves.is_time(turn) else None

    def _judge(self, turn: Turn, event: Event) -> Result:
        decision = decide(turn.facts, event, turn.trigger, self._attempt_id(), self._node)
        if isinstance(decision, Refused):
            self._sequels.refused(turn, decision)
        elif event in {"settle", "discover"} and turn.facts.settled:
            return replace(decision, evidence=turn.evidence)
        return decision

    async def _settle_all(self, turns: Sequence[Turn]) -> None:
        """Settle the members of a set, whose paths are held, in one transaction."""
        for some in slices(turns):
            for turn in some:
                turn.result = self._judge(turn, "settle")
            await asyncio.sleep(0)
        await self._commit(turns)

    async def _commit(self, turns: Sequence[Turn]) -> Sequence[Turn]:
        """Commit what was decided and do what follows; returns those that lost their race."""
        decided = []
        for turn in turns:
            if isinstance(turn.result, Transition):
                decided.append(turn)
            else:
                turn.over = True
        if not decided:
            return ()
        told = [turn.transitions for turn in decided]
        results = iter(await self._ledger.commit([each for some in told for each in some]))
        lost = []
        for number, (turn, some) in enumerate(zip(decided, told, strict=True), 1):
            committed = [next(results) for _ in some]
            turn.result = own = committed[0]
            if own is None:
                turn.slot.row, turn.lost = None, True
                lost.append(turn)
            else:
                turn.slot.row, turn.over = own.after, True
                self._follow(turn, committed)
            if number % SLICE == 0:
                await asyncio.sleep(0)
        return lost

    def _follow(self, turn: Turn, committed: Sequence[Transition | None]) -> None:
        """Whatever comes of it for one file, the others of its group have theirs to follow."""
        try:
            for transition in committed:
                if transition is not None:
                    self._sequels.follow(turn, transition)
        except Exception as error:  # noqa: BLE001 - it is committed, and must not be done again
            self._sequels.failed(turn, error)

    def _fail(self, turn: Turn, error: Exception) -> None:
        turn.give_up()
        if turn.trigger.event in OUTCOMES:
            # The file is `processing` until this is on record, and nobody else will say it.
            self._later(turn.trigger)
        self._sequels.failed(turn, error)

    def _later(self, trigger: Trigger) -> None:
        asyncio.get_running_loop().call_later(AGAIN_SECONDS, self._inbox.put, trigger)
