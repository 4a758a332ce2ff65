"""The first verb: what ledger and disk say about some paths, asked in a few hops for all."""

from collections.abc import Mapping, Sequence

from daemon.core.decide import OUTCOMES
from daemon.core.model import Row
from daemon.core.settle import Look
from daemon.engine.batching import Batcher
from daemon.engine.contents import Contents
from daemon.engine.disk import Question
from daemon.engine.ledger import Ledger
from daemon.engine.line import NoAnswer
from daemon.engine.loops import Loops
from daemon.engine.renames import Origin, Renames
from daemon.engine.trees import Tree
from daemon.engine.turns import Turn


class Evidence:
    """Gathers for turns what they are to be judged by: row, look, and a row under another path.

    And a digest, where it is known; where one is needed it is asked for, and brings the file back.
    """

    def __init__(self, trees: Mapping[str, Tree], ledger: Ledger, contents: Contents) -> None:
        self._ledger = ledger
        self._contents = contents
        self._looks: dict[str, Batcher[Question, Look]] = {
            name: Batcher(tree.disk.look) for name, tree in trees.items()
        }
        self.loops = Loops(ledger)
        self.renames = Renames(trees, ledger)

    async def gather(self, turns: Sequence[Turn]) -> Sequence[Turn]:
        """Complete the turns, all of one tree; those are left out whose row was not the one meant.

        No other tree has to wait for its disk.
        """
        current = await self._load(turns)
        # What is adopted as it was found stands where it stood before the watch began, for a rename
        # sets ctime. That of a folder does not, and its files are not taken as found. An insert
        # follows.
        asked = await self._look(current)
        await self._find_origins(asked)
        await self._make_sure(asked)
        for turn in current:
            if turn.tree.by_content and turn.needs_digest and turn.origin is None:
                self._contents.want(turn)
        return current

    async def look(self, tree: Tree, questions: Sequence[Question]) -> Sequence[Look]:
        """What stands at some paths now, asked together with whatever else is asked of the tree."""
        return await self._looks[tree.name].ask(questions)

    async def _load(self, turns: Sequence[Turn]) -> Sequence[Turn]:
        unknown = [turn for turn in turns if turn.slot.row is None]
        ask = [turn for turn in unknown if not self._is_new(turn)]
        rows = await self._ledger.rows([turn.key for turn in ask]) if ask else ()
        for turn, row in zip(ask, rows, strict=True):
            turn.slot.row = row
        for turn in turns:
            turn.row = turn.slot.row or Row(0, turn.key)
        return [turn for turn in turns if not turn.is_stale]

    def _is_new(self, turn: Turn) -> bool:
        """A scan saw no row; if it was wrong, an insert loses, and that is found out then."""
        return (
            turn.trigger.found is not None and not turn.lost and not self._ledger.recalls(turn.key)
        )

    async def _make_sure(self, turns: Sequence[Turn]) -> None:
        """Read the rows after all where no insert follows, which would find out about them."""
        unsure = [turn for turn in turns if self._is_new(turn) and turn.inserts_nothing]
        rows = await self._ledger.rows([turn.key for turn in unsure]) if unsure else ()
        known = [(turn, row) for turn, row in zip(unsure, rows, strict=True) if row is not None]
        for turn, row in known:
            turn.row = turn.slot.row = row
            turn.origin = None
            if turn.look.kind != "error":
                turn.judge()
        await self._find_origins([turn for turn, _ in known])

    async def _look(self, turns: Sequence[Turn]) -> Sequence[Turn]:
        """Look, and judge what is seen; returns those that were not adopted as they were found."""
        ask = []
        for turn in turns:
            if turn.needs_no_look:
                turn.look = Look("file", turn.trigger.found)
            else:
                ask.append(turn)
        questions = [turn.question() for turn in ask]
        looks = await self.look(ask[0].tree, questions) if ask else ()
        for turn, look in zip(ask, looks, strict=True):
            turn.look = look
            if look.kind == "error" and turn.trigger.event in OUTCOMES:
                # How the handler fared is recorded, whatever the disk will not show.
                turn.look = Look("file", turn.row.seen, error=look.error)
        await self.loops.examine(ask)
        for turn in turns:
            if turn.tree.by_content and turn.look.seen is not None:
                turn.digest = self._contents.known(turn.key, turn.look.seen)
            if turn.look.kind != "error":
                turn.judge()
        return ask

    async def _find_origins(self, turns: Sequence[Turn]) -> None:
        strangers = {turn: stranger for turn in turns if (stranger := turn.stranger())}
        try:
            origins = await self.renames.origins([*strangers.values()]) if strangers else {}
        except NoAnswer as error:
            for turn in strangers:
                turn.look = Look("error", error=error.strerror)
            return
        for turn in turns:
            origin = origins.get(turn.key)
            turn.origin = origin if origin is None or origin.sure else self._proven(turn, origin)

    def _proven(self, turn: Turn, origin: Origin) -> Origin | None:
        """By its digest, the file is the row's or is not; it remains unsure until that is known."""
        if not turn.tree.by_content:
            return None
        if turn.digest is None:
            self._contents.want(turn)
            return origin
        return origin._replace(sure=True) if turn.digest == origin.row.digest else None
