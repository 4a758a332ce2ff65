"""What a rename does to rows: the file's row takes the new path, and whoever had it gives it up."""

from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

from msgspec.structs import replace

from daemon.core.decide import decide
from daemon.core.facts import Facts
from daemon.core.model import Fingerprint, Key, Row, Transition
from daemon.engine.clock import now_us
from daemon.engine.inbox import Inbox
from daemon.engine.locks import LockMap
from daemon.engine.patience import Patience
from daemon.engine.renames import Origin
from daemon.engine.turns import Turn

# Movers in memory, before those are forgotten of whom nothing is left.
LIMIT = 20_000


class Mover(NamedTuple):
    """A path at which a file stands that has its row under another; `row`: that of the path."""

    key: Key
    row: int


class Moves:
    """Decides for a path at which a file stands that has a row under another one."""

    def __init__(
        self,
        locks: LockMap,
        inbox: Inbox,
        patience: Patience,
        node: str,
        attempt_id: Callable[[], str],
    ) -> None:
        self._locks = locks
        self._inbox = inbox
        self._patience = patience
        self._node = node
        self._attempt_id = attempt_id
        # By row, who finds its file elsewhere: it is not to vanish, nor to show another file,
        # before it could move. And by path, the row that is expected there.
        self._movers: dict[int, Mover] = {}
        self._expected: dict[Key, int] = {}
        self._room = LIMIT

    def expect(self, turns: Sequence[Turn], movers: Sequence[Turn]) -> None:
        """Of these turns the movers will take rows to their paths; what is known of others ends.

        Else two rows would wait for ever, each for what was once seen at the path of the other.
        """
        if self._expected:
            for turn in turns:
                self._forget(turn.key)
        for turn in movers:
            if turn.origin is not None:
                self._movers[turn.origin.row.id] = Mover(turn.key, turn.row.id)
                self._expected[turn.key] = turn.origin.row.id
        if len(self._expected) > self._room:
            for key in [key for key in self._expected if not self._is_about(key)]:
                self._forget(key)
            self._room = max(LIMIT, 2 * len(self._expected))

    def expects(self, key: Key) -> bool:
        """Whether a row is about to move to this path."""
        return key in self._expected

    def _forget(self, key: Key) -> None:
        number = self._expected.pop(key, None)
        # Of two links to one file, the other may be expected to take its row by now.
        if number is not None and (mover := self._movers.get(number)) and mover.key == key:
            del self._movers[number]

    def decides(self, turn: Turn, origin: Origin, group: Mapping[Key, Turn]) -> bool:
        """Give the turn its transitions, or let it wait; False: look no further than its path.

        `group`: the turns that are decided together, by path.
        """
        row = turn.row
        if not origin.sure:
            return self._wait(turn)
        if row.id and row.state != "gone" and not _is_swapped(row, origin):
            # Another file had the path: it may itself have been renamed, and be found in a moment.
            if not turn.trigger.waited or self._is_awaited(row):
                return self._wait(turn)
            return self._overwritten(turn, origin)
        if origin.row.state == "processing" or not self._take_former(turn, origin, group):
            return self._wait(turn)
        self._forget(turn.key)
        turn.result = self._move(turn, origin.row, turn.look.seen, turn.key)
        if row.id:
            # Of a row that is gone the disk shows nothing, whatever stands at that path by now.
            there = None if row.state == "gone" else origin.there
            turn.displaced = self._move(turn, row, there, origin.row.key)
        return turn.result is not None

    def is_time(self, turn: Turn) -> bool:
        """Whether what was seen may be concluded from, or has to wait for the rest of a rename."""
        if turn.event == "vanish":
            return self._may_vanish(turn)
        if turn.event == "start" and turn.row.plan == "remove":
            return turn.tree.detection.frozen is None
        if turn.is_replaced and (
            not turn.trigger.waited or self._is_awaited(turn.row) or _is_being_taken(turn)
        ):
            # The row's own file may have been renamed, as a log is, and be found in a moment.
            self._patience.wait(turn.trigger)
            return False
        return True

    def _may_vanish(self, turn: Turn) -> bool:
        """A removal waits: the file may stand under another path, or its root be away."""
        if turn.trigger.target is not None:
            # We have taken it away ourselves.
            return True
        if turn.tree.detection.frozen is not None:
            return False
        if _is_being_taken(turn):
            self._patience.wait(turn.trigger)
            return False
        if turn.trigger.waited and not self._is_awaited(turn.row):
            return True
        if turn.look.kind == "directory":
            # It has taken a file's place: nobody has looked into it yet.
            self._inbox.request_scan(turn.key, "new_directory")
        self._patience.wait(turn.trigger)
        return False

    def give_back(self, turn: Turn) -> None:
        """Let go of the former path. What stands there now, its next holder finds out."""
        if turn.former is not None:
            key, slot = turn.former
            slot.row = None
            self._locks.give_back(key)
        turn.former = turn.displaced = None

    def _is_awaited(self, row: Row) -> bool:
        """Whether this row is about to move.

        Who finds its file elsewhere may itself wait for the row of that path to move, and so on. In
        a ring each would wait for the next: there nobody does.
        """
        number, passed = row.id, set[int]()
        while (mover := self._movers.get(number)) is not None and self._is_about(mover.key):
            passed.add(number)
            number = mover.row
            if number in passed:
                return False
        return bool(passed)

    def _is_about(self, key: Key) -> bool:
        """Whether a look at this path waits, or is under way."""
        return self._patience.has(key) or self._inbox.knows(key) or self._locks.is_held(key)

    def _take_former(self, turn: Turn, origin: Origin, group: Mapping[Key, Turn]) -> bool:
        """Hold the path that the row leaves; the two ends of a rename often come together."""
        key = origin.row.key
        other = group.get(key)
        if other is not None:
            busy = other.result is not None or other.trigger.event != "look"
            if busy or other.lent or turn.lent:
                return False
            other.lent = True
            other.slot.row = None
            return True
        slot = self._locks.take_if_free(key)
        turn.former = (key, slot) if slot else None
        return slot is not None

    def _wait(self, turn: Turn) -> bool:
        self._patience.wait(turn.trigger)
        return True

    def _overwritten(self, turn: Turn, origin: Origin) -> bool:
        """One file was renamed over another: the row stays, and knows what was done with the new.

        Whoever saves by renaming a new file over the old one means the same file. But where there
        are steps for removed files they undo what was done under the other name, and so it has to
        be done again under this one.
        """
        undone = turn.facts.removal_steps and not turn.facts.takes_away
        known = origin.row.done if origin.row.done == origin.row.content and not undone else None
        turn.facts = replace(turn.facts, inherited=known)
        return False

    def _move(self, turn: Turn, row: Row, seen: Fingerprint | None, to: Key) -> Transition | None:
        # The other end of a rename is in the same watch.
        facts = Facts(row, now_us(), seen, moved_to=to, rank=turn.tree.rank(to.path))
        decision = decide(facts, "move", turn.trigger, self._attempt_id(), self._node)
        return decision if isinstance(decision, Transition) else None


def _is_being_taken(turn: Turn) -> bool:
    """Whoever takes it away just now will say where to."""
    return turn.key.path in turn.tree.taking


def _is_swapped(row: Row, origin: Origin) -> bool:
    """The two files have each other's path."""
    there = origin.there
    return there is not None and row.seen is not None and there.content == row.seen.content
