"""One delivery: is its set complete, do its checksums hold, and then it settles as a whole.

It is examined without holding anything up: the manifest, the members, their bytes. Only when all is
well the paths of all members are held, everything is looked at once more, and what is still as it
was is committed in one transaction.
"""

import asyncio
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import islice
from typing import Literal, NamedTuple

from daemon.core.manifest import Checksum, Fault, Member
from daemon.core.model import Fingerprint, Key, Trigger
from daemon.core.settle import SETTLED, Look, look_again_at
from daemon.core.texts import path_fields, shown
from daemon.engine.catalog import Catalog
from daemon.engine.clock import now_us
from daemon.engine.disk import Question
from daemon.engine.evidence import Evidence
from daemon.engine.journal import Journal
from daemon.engine.line import NoAnswer
from daemon.engine.locks import LockMap, Slot
from daemon.engine.signs import Members
from daemon.engine.slices import slices
from daemon.engine.trees import Tree
from daemon.engine.turns import Turn
from daemon.errors import SHORTAGE

# Members whose checksums are asked for at once, so that their thread need not wait for the loop.
AHEAD = 8
# Checksums in memory that were found to hold: two sets of the largest size.
VERIFIED = 20_000
# Faults in memory that were said.
SAID = 1_000
AGAIN_US = 1_000_000
Settle = Callable[[Sequence[Turn]], Awaitable[None]]
# What each file was seen as when it had been so for the quiet time.
Stood = Mapping[bytes, Fingerprint]


class Delivery(NamedTuple):
    """A manifest, as it was seen. `stood`: the same, if that is a quiet time ago."""

    tree: Tree
    path: bytes
    seen: Fingerprint
    stood: Fingerprint | None = None

    @property
    def key(self) -> Key:
        """What names it."""
        return Key(self.tree.name, self.path)


class Verdict(NamedTuple):
    """What came of examining a delivery.

    `settled`: every member has. `waits`: for a `member` that is not as it should be. `later`: the
    manifest itself is to be looked at again, `at` a time. `busy`: others hold members just now.
    `faulty`: only another manifest could help. `gone`: there is none.
    """

    kind: Literal["settled", "waits", "later", "busy", "faulty", "gone"]
    seen: Fingerprint | None = None
    member: bytes | None = None
    at: int = 0


class Deliveries:
    """Examines deliveries, and settles those that are complete."""

    def __init__(
        self,
        journal: Journal,
        locks: LockMap,
        evidence: Evidence,
        settle: Settle,
    ) -> None:
        """`settle` commits, in one transaction, what it is given."""
        self._journal = journal
        self._locks = locks
        self._evidence = evidence
        self._settle = settle
        self.catalog = Catalog()
        self._verified: OrderedDict[Key, tuple[Fingerprint, Checksum]] = OrderedDict()
        self._said: OrderedDict[tuple[Key, Fingerprint, str], None] = OrderedDict()

    async def examine(self, delivery: Delivery, stood: Stood) -> Verdict:
        """Settle the delivery, or tell what keeps it back."""
        look = await self._look(delivery)
        if look.seen is None:
            return Verdict("gone")
        delivery = delivery._replace(seen=look.seen)
        members = await self.members(delivery) if look.settled else None
        if members is None:
            return Verdict("later", look.seen, at=_again_at(delivery, look))
        if isinstance(members, Fault):
            return Verdict("faulty", look.seen)
        turns = await _turns(delivery, ((path, Slot()) for path in members), stood)
        unfit = await self._unfit(delivery, turns) or await self._wrong(delivery, members, turns)
        return unfit or await self._conclude(delivery, members, stood)

    async def members(self, delivery: Delivery) -> Members | Fault | None:
        """What a manifest says, and its fault on the log; None where it is another by now."""
        tree, path, seen, _ = delivery
        try:
            members = await self.catalog.read(tree, path, seen)
        except NoAnswer:
            return None
        except OSError as error:
            if error.errno in SHORTAGE:
                return None
            members = Fault(None, error.strerror or str(error))
        if isinstance(members, Fault):
            self._complain(delivery, str(members), seen)
        return members

    async def _conclude(self, delivery: Delivery, members: Members, stood: Stood) -> Verdict:
        """Settle the members, if they and the manifest are what was examined."""
        with self._held(delivery.tree, members) as slots:
            if slots is None:
                return Verdict("busy", delivery.seen)
            turns = await _turns(delivery, slots.items(), stood)
            if unfit := await self._unfit(delivery, turns):
                return unfit
            for turn in turns:
                if not self._is_verified(members[turn.key.path], turn):
                    return Verdict("waits", delivery.seen, turn.key.path)
            look = await self._look(delivery._replace(stood=delivery.seen))
            if look.seen != delivery.seen or not look.settled:
                return Verdict("later", look.seen, at=_again_at(delivery, look))
            await self._settle([turn for turn in turns if turn.row.state == "settling"])
        return Verdict("settled", delivery.seen)

    @contextmanager
    def _held(self, tree: Tree, paths: Iterable[bytes]) -> Iterator[dict[bytes, Slot] | None]:
        """Hold all of the paths or none: whoever waited for one would keep the others from it."""
        slots: dict[bytes, Slot] = {}
        try:
            for path in paths:
                slot = self._locks.take_if_free(Key(tree.name, path))
                if slot is None:
                    break
                slots[path] = slot
            else:
                yield slots
                return
        finally:
            for path in slots:
                self._locks.give_back(Key(tree.name, path))
        yield None

    async def _look(self, delivery: Delivery) -> Look:
        tree, path, _, stood = delivery
        absolute = tree.absolute(path)
        own_clock = not tree.remote
        question = Question(absolute, tree.root_id, tree.quiet, tree.probe, stood, own_clock)
        (look,) = await self._evidence.look(tree, [question])
        return look

    async def _unfit(self, delivery: Delivery, turns: Sequence[Turn]) -> Verdict | None:
        """The first member that has not settled, or is newer than the manifest.

        Of those that lack nothing but their digest the last: by then all of them are read.
        """
        verdict = None
        for chunk in slices(turns):
            await self._evidence.gather(chunk)
            for turn in (turn for turn in chunk if not _is_fit(turn, delivery.seen)):
                verdict = Verdict("waits", delivery.seen, turn.key.path)
                if not turn.needs_digest:
                    return verdict
        return verdict

    async def _wrong(
        self, delivery: Delivery, members: Members, turns: Sequence[Turn]
    ) -> Verdict | None:
        """The first member whose checksum does not hold."""
        unread = (turn for turn in turns if not self._is_verified(members[turn.key.path], turn))
        while chunk := list(islice(unread, AHEAD)):
            asked = (self._verify(delivery, members[turn.key.path], turn) for turn in chunk)
            for turn, holds in zip(chunk, await asyncio.gather(*asked), strict=True):
                if not holds:
                    return Verdict("waits", delivery.seen, turn.key.path)
        return None

    def _is_verified(self, member: Member, turn: Turn) -> bool:
        checksum, seen = member.checksum, turn.look.seen
        return checksum is None or self._verified.get(turn.key) == (seen, checksum)

    async def _verify(self, delivery: Delivery, member: Member, turn: Turn) -> bool:
        """Read a member; what does not hold is on the log, once for what the member is now."""
        seen, checksum = turn.look.seen, member.checksum
        if seen is None or checksum is None:
            return checksum is None
        name = f"line {member.line}: '{shown(member.path)}'"
        try:
            holds = await _holds(delivery.tree, member.path, seen, checksum)
        except OSError as error:
            if error.errno not in SHORTAGE and not isinstance(error, NoAnswer):
                self._complain(delivery, f"{name} cannot be read: {error.strerror}", seen)
            return False
        if holds is False:
            self._complain(delivery, f"{name} has another checksum", seen)
        elif holds:
            self._verified[turn.key] = (seen, checksum)
            if len(self._verified) > VERIFIED:
                self._verified.popitem(last=False)
        return bool(holds)

    def _complain(self, delivery: Delivery, fault: str, seen: Fingerprint) -> None:
        """Once for each fault of what the file that is at fault is now."""
        what = (delivery.key, seen, fault)
        if what in self._said:
            return
        self._said[what] = None
        if len(self._said) > SAID:
            self._said.popitem(last=False)
        self._journal.daemon(
            "degraded",
            "warning",
            watch=delivery.tree.name,
            **path_fields("path", delivery.path),
            reason="a manifest does not hold, and its files do not settle",
            error=fault,
        )


async def _holds(tree: Tree, path: bytes, seen: Fingerprint, checksum: Checksum) -> bool | None:
    """Whether it is that of the file that was seen; None where that is another by now."""
    for algorithm in checksum.algorithms:
        digest = await tree.disk.digests.of(tree.absolute(path), seen, algorithm)
        if digest is None or digest == checksum.digest:
            return None if digest is None else True
    return False


async def _turns(
    delivery: Delivery, slots: Iterable[tuple[bytes, Slot]], stood: Stood
) -> list[Turn]:
    turns: list[Turn] = []
    for chunk in slices(slots):
        turns += [_turn(delivery, path, slot, stood) for path, slot in chunk]
        await asyncio.sleep(0)
    return turns


def _turn(delivery: Delivery, path: bytes, slot: Slot, stood: Stood) -> Turn:
    tree = delivery.tree
    trigger = Trigger(Key(tree.name, path), "look", "manifest", seen=stood.get(path))
    turn = Turn(trigger, slot, tree)
    turn.together = True
    return turn


def _is_fit(turn: Turn, manifest: Fingerprint) -> bool:
    """It has settled before and is what it was, or could settle now; and is not newer."""
    seen = turn.look.seen
    if seen is None or seen.mtime_ns > manifest.mtime_ns:
        return False
    if turn.row.state == "settling":
        return turn.event == "settle"
    return turn.row.state in SETTLED and turn.facts.fresh


def _again_at(delivery: Delivery, look: Look) -> int:
    """Of a manifest that is still written to, as of any file; else a shortage, or a race."""
    tree, now = delivery.tree, now_us()
    if look.settled:
        return now + AGAIN_US
    return look_again_at(look, now, tree.quiet, own_clock=not tree.remote)
