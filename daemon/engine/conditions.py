"""What a file waits for beside its own quiet: what becomes of markers, manifests and digests."""

from msgspec.structs import replace

from daemon.core.model import Transition, Trigger
from daemon.engine.inbox import Inbox
from daemon.engine.journal import Journal
from daemon.engine.ledger import Ledger
from daemon.engine.marking import Markers
from daemon.engine.patience import Patience
from daemon.engine.turns import SETTLED, Turn

_SETTLING = frozenset({"settle", "discover"})


class Conditions:
    """Sees to what turns of watches with such conditions leave to be done."""

    def __init__(self, inbox: Inbox, ledger: Ledger, journal: Journal, patience: Patience) -> None:
        self._inbox = inbox
        self._ledger = ledger
        self._markers = Markers(inbox, ledger, journal, patience)

    async def close(self) -> None:
        """End what works beside the pipeline."""
        await self._markers.close()

    def leave(self, turn: Turn) -> None:
        """Nothing was to be committed: what it was all about may be another file."""
        look, tree, path = turn.look, turn.tree, turn.key.path
        if look.seen is None:
            return
        if tree.is_marker(path):
            self._markers.heard(tree, turn.trigger)
        elif turn.is_touched and turn.facts.fresh and turn.digest:
            self._ledger.note_ctime(replace(turn.row, seen=look.seen))
        elif look.marked and turn.facts.fresh and turn.row.state in SETTLED:
            # Whoever was to remove it has died, or had no permission to.
            self._use_up(turn)

    def follow(self, turn: Turn, transition: Transition) -> None:
        """A transition is committed."""
        after, look = transition.after, turn.look
        if transition.event == "move" and after.state == "settling":
            # What it waits for may have come to the new path before the file.
            self._inbox.put(Trigger(after.key, "look", transition.cause or "hint"))
        elif transition.event in _SETTLING and after.state in SETTLED and look.marked:
            self._use_up(turn)

    def _use_up(self, turn: Turn) -> None:
        if turn.look.marker is not None:
            self._markers.use_up(turn.tree, turn.key.path, turn.look.marker)
