"""One trigger on its way through the five verbs, and the evidence that is gathered for it."""

import random

from daemon.config_steps import Step
from daemon.core.decide import OUTCOMES, compare
from daemon.core.facts import Facts
from daemon.core.model import Event, Key, Refused, Row, Transition, Trigger
from daemon.core.policy import backoff_seconds
from daemon.core.settle import BACKSTOP_US, SETTLED, Look, look_again_at
from daemon.engine.clock import now_us
from daemon.engine.disk import Question
from daemon.engine.locks import Slot
from daemon.engine.renames import Origin, Stranger
from daemon.engine.trees import Tree

# States in which the disk may show that a file has settled.
SETTLES = frozenset({"untracked", "gone", "settling"})
# Without those whose outcome is followed by a look anyway.
_COMPARED = SETTLED - {"processing"}
_UNSEEN = Look("unseen")
_UNJUDGED = Facts(Row(0, Key("", b"")))


class Turn:
    """A trigger that holds its path. `result` is what came of it; None: nothing had to.

    Where it moves a row: `former` is the path that the row leaves, held as well, and `displaced`
    what becomes of the row that had this one. `lent`: another turn moves the row of this path away,
    so it is to be looked at again. `lost`: somebody else moved the row on meanwhile. `digest`: of
    what was seen, where that is known; empty where it cannot be read. `together`: a member of a set
    that is settled as a whole. `over`: committed, or nothing had to be. `loop`: why the
    file is not to be handed over once more.
    """

    __slots__ = (
        "digest",
        "displaced",
        "event",
        "facts",
        "former",
        "lent",
        "look",
        "loop",
        "lost",
        "origin",
        "over",
        "result",
        "row",
        "slot",
        "together",
        "tree",
        "trigger",
    )

    def __init__(self, trigger: Trigger, slot: Slot, tree: Tree) -> None:
        self.trigger = trigger
        self.slot = slot
        self.tree = tree
        self.row = _UNJUDGED.row
        self.look = _UNSEEN
        self.facts = _UNJUDGED
        self.event: Event | None = None
        self.origin: Origin | None = None
        self.result: Transition | Refused | None = None
        self.former: tuple[Key, Slot] | None = None
        self.displaced: Transition | None = None
        self.lent = False
        self.lost = False
        self.digest: str | None = None
        self.together = False
        self.loop: str | None = None
        self.over = False

    def again(self) -> "Turn":
        """A look at the same path, which is still held."""
        return Turn(Trigger(self.key, "look", self.trigger.cause), self.slot, self.tree)

    def give_up(self) -> None:
        """Nothing came of it that is known of: its row is to be read again."""
        self.slot.row = self.result = None
        self.over = True

    @property
    def needs_look(self) -> bool:
        """What changed under a handler's hands is not to wait for a scan; a refusal may show more.

        The look that judged a success came after the handler: what it did not show has its own
        hint.
        """
        if self.trigger.event in OUTCOMES:
            seen_after = self.trigger.event == "succeed" and self.is_as_given
            return self.result is not None and not seen_after
        return isinstance(self.result, Refused)

    @property
    def transitions(self) -> list[Transition]:
        """What is to be committed, in one transaction."""
        if not isinstance(self.result, Transition):
            return []
        return [self.result, self.displaced] if self.displaced else [self.result]

    @property
    def key(self) -> Key:
        """The path that is held."""
        return self.trigger.key

    @property
    def is_stale(self) -> bool:
        """The row was claimed at a version that it does not have any more."""
        return self.trigger.version is not None and self.trigger.version != self.row.version

    def refusal(self) -> Refused:
        """A handler's result came when its row had moved on: nothing follows from it."""
        event, started, row = self.trigger.event, self.trigger.version, self.row
        reason = f"{event} of what was started at version {started}: the row has {row.version}"
        return Refused("version", reason)

    @property
    def is_overtaken(self) -> bool:
        """What a handler was given is not what the disk shows now: other bytes, or nothing."""
        absent = self.facts.absent and self.tree.detection.frozen is None
        return absent or self.facts.changed

    @property
    def is_as_given(self) -> bool:
        """The disk was seen to show just what the row knows, ctime and all."""
        return self.look.error is None and self.look.seen == self.row.seen

    @property
    def needs_no_look(self) -> bool:
        """A scan has just seen a file that is to be adopted as it is, and still has no row."""
        found = self.trigger.found
        if found is None or self.row.id:
            return False
        return found.ctime_ns // 1000 < self.tree.adopt_before

    @property
    def is_replaced(self) -> bool:
        """Another file has taken the place of the one that the row knows."""
        seen, known = self.look.seen, self.row.seen
        return (
            self.event == "change"
            and seen is not None
            and known is not None
            and seen.ino != known.ino
        )

    def question(self) -> Question:
        """What to ask the disk."""
        tree, trigger = self.tree, self.trigger
        quiet = tree.quiet if self.row.state in SETTLES else None
        path = tree.absolute(trigger.key.path)
        marker = tree.marker_of(trigger.key.path) if tree.marker else None
        own_clock = not tree.remote
        return Question(path, tree.root_id, quiet, tree.probe, trigger.seen, own_clock, marker)

    def judge(self) -> None:
        """Put the evidence together, and see which event it calls for."""
        self.facts = self._facts()
        event = self.trigger.event
        self.event = compare(self.facts) if event == "look" else event
        if self.event == "discover" and self.facts.adopted and self.needs_digest:
            # What is adopted goes on record as done, and with its digest: so not yet.
            self.event = None

    @property
    def is_wanted(self) -> bool:
        """Whether the watch has any business with this event at this path."""
        if self.event == "discover":
            return self.tree.wants(self.key.path)
        # It may have been a file like others before its watch knew of signs.
        return self.event not in {"change", "settle"} or not self.tree.is_sign(self.key.path)

    @property
    def inserts_nothing(self) -> bool:
        """The path has no row, as far as it was asked, and gets none that is new."""
        return not self.row.id and (self.look.kind != "file" or self.origin is not None)

    @property
    def is_complete(self) -> bool:
        """Settled, and in all that its watch asks for besides."""
        return self.is_ripe and (bool(self.digest) or not self.tree.by_content)

    @property
    def is_ripe(self) -> bool:
        """Settled, and alone or together as its watch wants it: only its digest may be missing."""
        return self.look.settled and (self.together or self.tree.manifests is None)

    @property
    def is_touched(self) -> bool:
        """The row's inode, size and mtime, but not its ctime: the bytes may have been changed."""
        seen, row = self.look.seen, self.row
        return (
            seen is not None
            and row.seen is not None
            and row.digest is not None
            and row.state in _COMPARED
            and row.seen.content == seen.content
            and row.seen.ctime_ns != seen.ctime_ns
        )

    @property
    def needs_digest(self) -> bool:
        """What the file holds has to be known before anything is concluded."""
        if not self.tree.by_content or self.digest is not None or self.look.seen is None:
            return False
        if self.row.state not in SETTLES:
            return self.is_touched
        ripe = self.is_ripe or (self.facts.adopted and self.row.state != "settling")
        return ripe and self.tree.wants(self.key.path)

    def stranger(self) -> Stranger | None:
        """The file, if its inode is new at this path: it may have a row under another."""
        seen, known = self.look.seen, self.row.seen
        if seen is None or self.event not in {"discover", "change"}:
            return None
        if known is not None and known.ino == seen.ino:
            return None
        return Stranger(self.key, self.tree.absolute(self.key.path), seen)

    def _facts(self) -> Facts:
        tree, row, look, trigger = self.tree, self.row, self.look, self.trigger
        now = now_us()
        seen = look.seen
        step = tree.step(row.step) if row.step else None
        adopted = seen is not None and seen.ctime_ns // 1000 < tree.adopt_before
        settled = look.settled if tree.is_plain else self.is_complete
        # By position, as everywhere on the way of every file: naming them costs 0.5 us.
        return Facts(
            row,
            now,
            seen,
            settled,
            adopted,
            tree.steps,
            tree.removal_steps,
            step.attempts if step else 1,
            tree.watch.interruptions,
            trigger.cause == "crash",  # crashed
            trigger.cause == "alarm",
            0 if adopted else self._settle_at(now, settled=settled),
            _retry_at(step, trigger, row, now) if trigger.event == "fail" else 0,
            self.digest or None,
            None,  # inherited
            None,  # moved_to
            trigger.result,
            tree.rank(row.key.path),
            trigger.target,
            self.loop,
        )

    def _settle_at(self, now: int, *, settled: bool) -> int:
        tree, look = self.tree, self.look
        if look.settled and not settled:
            return now + BACKSTOP_US
        return look_again_at(look, now, tree.quiet, own_clock=not tree.remote)

    @property
    def evidence(self) -> str:
        """What "settled" rests on."""
        return f"{self.look.evidence}+manifest" if self.together else self.look.evidence


def _retry_at(step: Step | None, trigger: Trigger, row: Row, now: int) -> int:
    wait = trigger.after
    if wait is None:
        if step is None:
            return now
        wait = backoff_seconds(step.backoff, row.failures + 1, random.random())  # noqa: S311 - jitter
    return now + int(wait * 1_000_000)
