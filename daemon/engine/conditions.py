"""What a file waits for beside its own quiet: what becomes of markers, manifests and digests."""

from msgspec.structs import replace

from daemon.core.model import Transition, Trigger
from daemon.core.settle import SETTLED
from daemon.engine.deliveries import Deliveries
from daemon.engine.inbox import Inbox
from daemon.engine.journal import Journal
from daemon.engine.ledger import Ledger
from daemon.engine.marking import Markers
from daemon.engine.patience import Patience
from daemon.engine.sets import Sets
from daemon.engine.turns import Turn

_SETTLING = frozenset({"settle", "discover"})
# States in which a file keeps back its set.
_INCOMPLETE = frozenset({"untracked", "gone", "settling", "held"})


class Conditions:
    """Sees to what turns of watches with such conditions leave to be done."""

    def __init__(
        self,
        inbox: Inbox,
        ledger: Ledger,
        journal: Journal,
        patience: Patience,
        deliveries: Deliveries,
    ) -> None:
        self._inbox = inbox
        self._ledger = ledger
        self._sets = Sets(inbox, journal, deliveries)
        self._markers = Markers(inbox, ledger, journal, patience)

    async def drop(self) -> None:
        """The daemon stops: nothing is begun any more that takes long."""
        await self._sets.close()

    async def close(self) -> None:
        """End what works beside the pipeline."""
        await self._sets.close()
        await self._markers.close()

    def leave(self, turn: Turn) -> None:
        """Nothing was to be committed: what it was all about may be another file."""
        look, tree, path = turn.look, turn.tree, turn.key.path
        if look.seen is None:
            return
        if tree.is_marker(path):
            self._markers.heard(tree, turn.trigger)
        elif tree.is_manifest(path):
            self._sets.heard(turn)
        elif turn.row.state == "settling" and _lacks_its_set(turn):
            self._sets.ready(turn)
        elif turn.is_touched and turn.facts.fresh and turn.digest:
            self._ledger.note_ctime(replace(turn.row, seen=look.seen))
        elif look.marked and turn.facts.fresh and turn.row.state in SETTLED:
            # Whoever was to remove it has died, or had no permission to.
            self._use_up(turn)

    def follow(self, turn: Turn, transition: Transition) -> None:
        """A transition is committed."""
        before, after, look = transition.before, transition.after, turn.look
        if turn.tree.manifests and before.state in _INCOMPLETE:
            self._follow_set(turn, transition)
        if transition.event == "move" and after.state == "settling":
            # What it waits for may have come to the new path before the file.
            self._inbox.put(Trigger(after.key, "look", transition.cause or "hint"))
        elif transition.event in _SETTLING and after.state in SETTLED and look.marked:
            self._use_up(turn)

    def _follow_set(self, turn: Turn, transition: Transition) -> None:
        before, after = transition.before, transition.after
        if after.state != "settling" or after.key != before.key:
            self._sets.over(before.key)
        elif _lacks_its_set(turn):
            self._sets.ready(turn)

    def _use_up(self, turn: Turn) -> None:
        if turn.look.marker is not None:
            self._markers.use_up(turn.tree, turn.key.path, turn.look.marker)


def _lacks_its_set(turn: Turn) -> bool:
    return turn.tree.manifests is not None and turn.look.settled and not turn.together
