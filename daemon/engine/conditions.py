"""What a file waits for beside its own quiet: what becomes of it."""

from msgspec.structs import replace

from daemon.core.model import Transition, Trigger
from daemon.engine.inbox import Inbox
from daemon.engine.ledger import Ledger
from daemon.engine.turns import Turn


class Conditions:
    """Sees to what turns of watches with such conditions leave to be done."""

    def __init__(self, inbox: Inbox, ledger: Ledger) -> None:
        self._inbox = inbox
        self._ledger = ledger

    def leave(self, turn: Turn) -> None:
        """Nothing was to be committed: what it was all about may be another file."""
        seen = turn.look.seen
        if seen is not None and turn.is_touched and turn.facts.fresh and turn.digest:
            self._ledger.note_ctime(replace(turn.row, seen=seen))

    def follow(self, turn: Turn, transition: Transition) -> None:
        """A transition is committed."""
        del turn
        after = transition.after
        if transition.event == "move" and after.state == "settling":
            # What it waits for may have come to the new path before the file.
            self._inbox.put(Trigger(after.key, "look", transition.cause or "hint"))
