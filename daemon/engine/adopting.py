"""The straight way of new files that are adopted as a scan has found them: a million of them, once.

One of a bundle is judged and decided like any file. No guard asks which file it is, so the others
are decided alike; nothing has to be looked at, and nothing follows. That takes a third of the time.
What is in any way unusual is left to the general way.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

from daemon.core.decide import adopt_alike, decide
from daemon.core.model import Fingerprint, Key, Row, Transition, Trigger
from daemon.core.settle import Look
from daemon.engine.inbox import Bundle
from daemon.engine.ledger import Ledger
from daemon.engine.locks import LockMap, Slot
from daemon.engine.trees import Tree
from daemon.engine.turns import Turn


class Found(NamedTuple):
    """A file that is to be adopted, whose path is held."""

    trigger: Trigger
    key: Key
    seen: Fingerprint


class Adopter:
    """Puts on record what was there before its watch."""

    def __init__(
        self,
        node: str,
        trees: Mapping[str, Tree],
        ledger: Ledger,
        locks: LockMap,
        attempt_id: Callable[[], str],
    ) -> None:
        self._node = node
        self._trees = trees
        self._ledger = ledger
        self._locks = locks
        self._attempt_id = attempt_id

    async def adopt(self, triggers: Sequence[Trigger]) -> Sequence[Trigger]:
        """Adopt what of a bundle can be; returns those that have to go the general way."""
        if not isinstance(triggers, Bundle):
            return triggers
        tree = self._trees[triggers[0].key.watch]
        if not tree.adopt_before or not tree.is_plain:
            return triggers
        files, left = self._take(tree, triggers)
        try:
            return left + await self._commit(tree, files)
        finally:
            for file in files:
                self._locks.give_back(file.key)

    def _take(self, tree: Tree, bundle: Bundle) -> tuple[list[Found], list[Trigger]]:
        """Hold the paths of those that can be adopted as they were found."""
        files: list[Found] = []
        left: list[Trigger] = []
        before, wants = tree.adopt_before, tree.wants
        recalls, take_if_free = self._ledger.recalls, self._locks.take_if_free
        for trigger in bundle:
            key, seen = trigger.key, trigger.found
            if (
                seen is not None
                and seen.ctime_ns // 1000 < before
                and wants(key.path)
                and not recalls(key)
                and take_if_free(key)
            ):
                files.append(Found(trigger, key, seen))
            else:
                left.append(trigger)
        return files, left

    async def _commit(self, tree: Tree, files: Sequence[Found]) -> list[Trigger]:
        """Returns those of which nothing is on record: a path had a row after all, for one."""
        if not files:
            return []
        try:
            transitions = self._decide(tree, files)
            results = await self._ledger.commit(transitions) if transitions else [None] * len(files)
        except Exception:  # noqa: BLE001 - the general way meets it again, file by file, and says so
            results = [None] * len(files)
        return [file.trigger for file, own in zip(files, results, strict=True) if own is None]

    def _decide(self, tree: Tree, files: Sequence[Found]) -> list[Transition]:
        """What the life cycle says of the first goes for all; nothing if it is not the usual."""
        trigger, key, seen = files[0]
        turn = Turn(trigger, Slot(), tree)
        turn.row, turn.look = Row(0, key), Look("file", seen)
        turn.judge()
        first = decide(turn.facts, "discover", trigger, self._attempt_id(), self._node)
        if not isinstance(first, Transition) or first.guard != "adopted":
            return []
        rank, attempt_id = tree.rank, self._attempt_id
        others = [(key, seen, rank(key.path), attempt_id()) for _, key, seen in files[1:]]
        return [first, *adopt_alike(first, others)]
