"""What a rename does to rows: the file's row takes the new path, and whoever had it gives it up."""

from collections.abc import Callable

from msgspec.structs import replace

from daemon.core.decide import decide
from daemon.core.facts import Facts
from daemon.core.model import Fingerprint, Key, Row, Transition
from daemon.engine.clock import now_us
from daemon.engine.locks import LockMap
from daemon.engine.patience import Patience
from daemon.engine.renames import Origin
from daemon.engine.turns import Turn


class Moves:
    """Decides for a path at which a file stands that has a row under another one."""

    def __init__(
        self, locks: LockMap, patience: Patience, node: str, attempt_id: Callable[[], str]
    ) -> None:
        self._locks = locks
        self._patience = patience
        self._node = node
        self._attempt_id = attempt_id
        # Rows whose handler runs while their file stands elsewhere already.
        self._awaited: set[int] = set()

    def decides(self, turn: Turn, origin: Origin) -> bool:
        """Give the turn its transitions, or let it wait; False: look no further than its path."""
        row = turn.row
        if origin.row.state == "processing":
            self._awaited.add(origin.row.id)
            return self._wait(turn)
        if row.id and row.state != "gone" and not _is_swapped(row, origin):
            # Another file had the path: it may itself have been renamed, and be found in a moment.
            return self._overwritten(turn, origin) if turn.trigger.waited else self._wait(turn)
        slot = self._locks.take_if_free(origin.row.key)
        if slot is None:
            return self._wait(turn)
        turn.former = (origin.row.key, slot)
        turn.result = self._move(turn, origin.row, turn.look.seen, turn.key)
        if row.id:
            turn.displaced = self._move(turn, row, origin.there, origin.row.key)
        return turn.result is not None

    def awaits(self, row: Row) -> bool:
        """Whether somebody waits for this row to have its outcome, so that it can move. Once."""
        if row.id not in self._awaited:
            return False
        self._awaited.discard(row.id)
        return True

    def give_back(self, turn: Turn) -> None:
        """Let go of the former path."""
        if turn.former is not None:
            key, slot = turn.former
            displaced = turn.displaced
            slot.row = displaced.after if displaced else None
            self._locks.give_back(key)
            turn.former = turn.displaced = None

    def _wait(self, turn: Turn) -> bool:
        self._patience.wait(turn.trigger)
        return True

    def _overwritten(self, turn: Turn, origin: Origin) -> bool:
        """One file was renamed over another: the row stays, and knows what was done with the new.

        Whoever saves by renaming a new file over the old one means the same file.
        """
        known = origin.row.done if origin.row.done == origin.row.content else None
        turn.facts = replace(turn.facts, inherited=known)
        return False

    def _move(self, turn: Turn, row: Row, seen: Fingerprint | None, to: Key) -> Transition | None:
        facts = Facts(row, now_us(), seen, moved_to=to)
        decision = decide(facts, "move", turn.trigger, self._attempt_id(), self._node)
        return decision if isinstance(decision, Transition) else None


def _is_swapped(row: Row, origin: Origin) -> bool:
    """The two files have each other's path."""
    there = origin.there
    return there is not None and row.seen is not None and there.content == row.seen.content
