"""The straight way of files that are new: decided together, and put on record as they were seen.

Two kinds go it. A first scan finds files that were there before their watch, a million at once:
nothing has to be asked about them, and nothing follows. And a burst brings files that a watcher has
looked at: of these it is asked whether they have a row, here or under another path. The first of
those that look alike is judged and decided like any file. No guard asks which file it is, so the
others are decided alike. That takes a third of the time.
What is in any way unusual is left to the general way.
"""

from collections import defaultdict
from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping, Sequence
from typing import NamedTuple

from msgspec.structs import replace

from daemon.core.decide import decide, discover_alike
from daemon.core.model import Fingerprint, Key, Row, Transition, Trigger
from daemon.core.settle import Look, is_quiet, look_again_at
from daemon.engine.clock import now_us
from daemon.engine.evidence import Evidence
from daemon.engine.inbox import Bundle
from daemon.engine.ledger import Ledger
from daemon.engine.locks import LockMap, Slot
from daemon.engine.moves import Moves
from daemon.engine.sequels import Sequels
from daemon.engine.trees import Tree
from daemon.engine.turns import Turn


class Newcomer(NamedTuple):
    """A file that is taken for new, whose path is held."""

    trigger: Trigger
    key: Key
    seen: Fingerprint


class Alike(NamedTuple):
    """New files of one watch, and how each of them looks but for its fingerprint."""

    tree: Tree
    look: Look
    files: list[Newcomer]


class Newcomers:
    """Puts on record what is new, and sees to what follows."""

    def __init__(
        self,
        node: str,
        trees: Mapping[str, Tree],
        ledger: Ledger,
        locks: LockMap,
        evidence: Evidence,
        moves: Moves,
        sequels: Sequels,
        attempt_id: Callable[[], str],
    ) -> None:
        self._node = node
        self._trees = trees
        self._ledger = ledger
        self._locks = locks
        self._evidence = evidence
        self._moves = moves
        self._sequels = sequels
        self._attempt_id = attempt_id

    async def adopt(self, bundle: Bundle) -> Sequence[Trigger]:
        """Adopt what of a bundle can be; returns those that have to go the general way."""
        tree = self._trees[bundle[0].key.watch]
        if not tree.adopt_before or not tree.is_plain:
            return bundle
        files, left = self._take_found(tree, bundle)
        try:
            return left + await self._record(_found(tree, files), files)
        finally:
            self._give_back(files)

    async def discover(self, triggers: Sequence[Trigger]) -> Sequence[Trigger]:
        """Put on record what watchers have seen; returns those that have to go the general way.

        These have waited, and what was seen of them is of no more use.
        """
        files, left = self._take_seen(triggers)
        try:
            left += await self._record(self._seen(files), files)
        finally:
            self._give_back(files)
        return [replace(trigger, sight=None) for trigger in left]

    def _take_found(
        self, tree: Tree, bundle: Iterable[Trigger]
    ) -> tuple[list[Newcomer], list[Trigger]]:
        """Hold the paths of those that can be adopted as they were found."""
        files: list[Newcomer] = []
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
                files.append(Newcomer(trigger, key, seen))
            else:
                left.append(trigger)
        return files, left

    def _take_seen(self, triggers: Iterable[Trigger]) -> tuple[list[Newcomer], list[Trigger]]:
        """Hold the paths of those that can be put on record as they were seen."""
        files: list[Newcomer] = []
        left: list[Trigger] = []
        for trigger in triggers:
            key, sight = trigger.key, trigger.sight
            if sight and self._is_usual(key, sight.seen) and self._locks.take_if_free(key):
                files.append(Newcomer(trigger, key, sight.seen))
            else:
                left.append(trigger)
        return files, left

    def _is_usual(self, key: Key, seen: Fingerprint) -> bool:
        tree = self._trees[key.watch]
        return (
            tree.is_plain
            and seen.ctime_ns // 1000 >= tree.adopt_before
            and tree.wants(key.path)
            and not self._ledger.recalls(key)
            and not self._moves.expects(key)
            and not self._evidence.loops.continues(key)
        )

    async def _seen(self, files: Sequence[Newcomer]) -> list[Alike]:
        """Those that have no row, by how they look."""
        return self._sorted(await self._unknown(files)) if files else []

    async def _unknown(self, files: Sequence[Newcomer]) -> list[Newcomer]:
        """Those that have no row, under whatever path."""
        rows = await self._ledger.rows([file.key for file in files])
        for row in filter(None, rows):
            self._ledger.remember(row)
        new = [file for file, row in zip(files, rows, strict=True) if row is None]
        known = await self._evidence.renames.known([file.seen.ino for file in new])
        return [file for file in new if file.seen.ino not in known]

    def _sorted(self, files: Iterable[Newcomer]) -> list[Alike]:
        now = now_us()
        found: defaultdict[tuple[str, bool, bool | None], list[Newcomer]] = defaultdict(list)
        for file in files:
            tree, sight = self._trees[file.key.watch], file.trigger.sight
            quiet = is_quiet(file.seen, now, tree.quiet, None, own_clock=not tree.remote)
            found[tree.name, quiet, sight and sight.closed].append(file)
        return [
            Alike(self._trees[watch], Look("file", quiet=quiet, closed=closed), some)
            for (watch, quiet, closed), some in found.items()
            # That one was not probed when it was seen.
            if closed is not None or not quiet or not self._trees[watch].probe
        ]

    async def _record(
        self, groups: Awaitable[Iterable[Alike]], files: Iterable[Newcomer]
    ) -> list[Trigger]:
        """Returns those of which nothing is on record: a path had a row after all, for one."""
        decided: Sequence[Newcomer] = ()
        results: Sequence[Transition | None] = ()
        try:
            decided, transitions = self._decide_all(await groups)
            results = await self._ledger.commit(transitions) if transitions else ()
        except Exception:  # noqa: BLE001 - the general way meets it again, file by file, and says so
            decided = ()
        recorded = set()
        for file, own in zip(decided, results, strict=True):
            if own is not None:
                recorded.add(file.key)
                self._follow(file, own)
        return [file.trigger for file in files if file.key not in recorded]

    def _decide_all(self, groups: Iterable[Alike]) -> tuple[list[Newcomer], list[Transition]]:
        decided: list[Newcomer] = []
        transitions: list[Transition] = []
        for group in groups:
            if some := self._decide(*group):
                decided += group.files
                transitions += some
        return decided, transitions

    def _decide(self, tree: Tree, look: Look, files: Sequence[Newcomer]) -> list[Transition]:
        """What the life cycle says of the first goes for all; nothing if it says no."""
        trigger, key, seen = files[0]
        turn = Turn(trigger, Slot(), tree)
        turn.row, turn.look = Row(0, key), replace(look, seen=seen)
        turn.judge()
        first = decide(turn.facts, "discover", trigger, self._attempt_id(), self._node)
        if not isinstance(first, Transition):
            return []
        if turn.facts.settled:
            first = replace(first, evidence=turn.evidence)
        return [first, *discover_alike(first, self._others(first, tree, look, files[1:]))]

    def _others(
        self, first: Transition, tree: Tree, look: Look, files: Iterable[Newcomer]
    ) -> Iterator[tuple[Key, Fingerprint, int, int, str]]:
        rank, attempt_id, waits = tree.rank, self._attempt_id, first.after.due_at is not None
        at, quiet, own_clock = first.after.at, tree.quiet, not tree.remote
        settle_at = 0
        for _, key, seen in files:
            if waits:
                settle_at = look_again_at(replace(look, seen=seen), at, quiet, own_clock=own_clock)
            yield key, seen, settle_at, rank(key.path), attempt_id()

    def _follow(self, file: Newcomer, transition: Transition) -> None:
        try:
            self._sequels.begin(transition.after)
        except Exception as error:  # noqa: BLE001 - it is committed, and must not be done again
            turn = Turn(file.trigger, Slot(), self._trees[file.key.watch])
            turn.row = transition.after
            self._sequels.failed(turn, error)

    def _give_back(self, files: Iterable[Newcomer]) -> None:
        for file in files:
            self._locks.give_back(file.key)


async def _found(tree: Tree, files: list[Newcomer]) -> list[Alike]:
    """Those that were there before their watch: of these nothing has to be asked."""
    return [Alike(tree, Look("file"), files)] if files else []
