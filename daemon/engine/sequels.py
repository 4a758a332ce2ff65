"""The last verb: what follows from a turn, for lanes, alarms, folders and the log."""

from collections.abc import Callable

from daemon.core.model import Refused, Row, Transition, Trigger
from daemon.engine.clock import AlarmClock
from daemon.engine.conditions import Conditions
from daemon.engine.dispatcher import Dispatcher
from daemon.engine.inbox import Inbox
from daemon.engine.journal import Journal
from daemon.engine.loops import Loops
from daemon.engine.patience import Patience
from daemon.engine.turns import Turn

# States in which no file is expected at the path: a folder may have come and gone there.
_NOT_THERE = frozenset({"untracked", "gone"})
# In which a row is not told of another file that stands at its path.
_INCURIOUS = frozenset({"settling", "held"})


class Sequels:
    """Sees to what turns leave to be done, whether or not they moved their rows."""

    def __init__(
        self,
        inbox: Inbox,
        journal: Journal,
        dispatcher: Dispatcher,
        alarms: AlarmClock,
        conditions: Conditions,
        patience: Patience,
        loops: Loops,
        attempt_id: Callable[[], str],
    ) -> None:
        self._inbox = inbox
        self._journal = journal
        self._dispatcher = dispatcher
        self._alarms = alarms
        self._conditions = conditions
        self._patience = patience
        self._loops = loops
        self._attempt_id = attempt_id

    def begin(self, row: Row) -> None:
        """A new file is on record, in a watch whose files wait for nothing beside themselves."""
        if row.state == "ready":
            self._dispatcher.offer(row)
        if row.due_at is not None:
            self._alarms.set(row, row.due_at, row.seen)

    def follow(self, turn: Turn, transition: Transition) -> None:
        """A transition of this turn is committed."""
        before, after = transition.before, transition.after
        if before.state == "processing":
            self._dispatcher.release(before)
            self._loops.ended(before)
        if after.state == "ready":
            self._dispatcher.offer(after)
        elif after.state == "processing":
            self._loops.started(after)
            self._dispatcher.launch(after)
        elif after.state == "quarantined":
            turn.tree.quarantined.set()
        self._look_around(turn, transition)
        if after.due_at is not None:
            self._alarms.set(after, after.due_at, turn.look.seen)
        elif before.due_at is not None:
            self._alarms.clear(after)
        if not turn.tree.is_plain:
            self._conditions.follow(turn, transition)

    def leave(self, turn: Turn) -> None:
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
            self._suspect(turn)
            if self._inbox.finds(row.key.watch) and not turn.trigger.waited:
                # A scan may have seen the file before it went, and bring it on record yet.
                self._patience.wait(turn.trigger)
        elif look.kind == "other":
            self._suspect(turn)
            self._journal.ignored(row.key, look.kind)

    def unseen(self, turn: Turn) -> None:
        """The kernel would not say what is there, so nothing may be concluded."""
        # Of a disk that hangs it is said for all files at once.
        if not turn.tree.disk.looks.silent.is_set():
            self._say_failed(turn, turn.look.error or "")
        if not turn.look.lasting:
            self._look_again(turn)

    def failed(self, turn: Turn, error: Exception) -> None:
        """An error of ours ended this turn."""
        self._say_failed(turn, f"{type(error).__name__}: {error}")
        self._look_again(turn)

    def refused(self, turn: Turn, refusal: Refused) -> None:
        """The life cycle did not allow it, or it came when the row had moved on."""
        self._journal.refused(turn.trigger, turn.row, refusal, self._attempt_id())

    def _look_around(self, turn: Turn, transition: Transition) -> None:
        """See to what may have gone unheard, or to no effect, because of this file."""
        before, after = transition.before, transition.after
        if transition.event in {"discover", "move"} and after.key == turn.key:
            self._suspect(turn)
        if transition.event == "move" and before.state in _INCURIOUS:
            # Whatever has taken its former path may have been looked at before it left.
            self._inbox.put(Trigger(before.key, "look", turn.trigger.cause))
        gone = transition.event == "vanish" and turn.look.kind == "absent"
        if gone and turn.trigger.cause != "scan":
            # While that waited a folder may have stood there, and its hints went for this one.
            self._inbox.suspects.add(before.key)

    def _suspect(self, turn: Turn) -> None:
        """A folder may have stood where something else does now, or nothing."""
        if turn.trigger.cause == "hint":
            self._inbox.suspects.add(turn.key)

    def _look_again(self, turn: Turn) -> None:
        """Any other event has somebody who waits for what comes of it."""
        if turn.trigger.event == "look":
            self._inbox.unseen.again(turn.trigger)

    def _say_failed(self, turn: Turn, error: str) -> None:
        self._journal.failed(turn.trigger, turn.row, error, self._attempt_id())
