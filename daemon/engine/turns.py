"""One trigger on its way through the five verbs, and the evidence that is gathered for it."""

import random

from daemon.config import Step
from daemon.core.decide import compare
from daemon.core.facts import Facts
from daemon.core.model import Event, Key, Refused, Row, Transition, Trigger
from daemon.core.policy import backoff_seconds
from daemon.core.settle import Look, look_again_at
from daemon.engine.clock import now_us
from daemon.engine.disk import Question
from daemon.engine.locks import Slot
from daemon.engine.renames import Origin, Stranger
from daemon.engine.trees import Tree

# States in which the disk may show that a file has settled.
_SETTLES = frozenset({"untracked", "gone", "settling"})
_UNSEEN = Look("unseen")
_UNJUDGED = Facts(Row(0, Key("", b"")))


class Turn:
    """A trigger that holds its path. `result` is what came of it; None: nothing had to.

    Where it moves a row: `former` is the path that the row leaves, held as well, and `displaced`
    what becomes of the row that had this one. `lent`: another turn moves the row of this path away,
    so it is to be looked at again.
    """

    __slots__ = (
        "displaced",
        "event",
        "facts",
        "former",
        "lent",
        "look",
        "origin",
        "result",
        "row",
        "slot",
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
        return self.trigger.version not in {None, self.row.version}

    @property
    def needs_no_look(self) -> bool:
        """A scan has just seen a file that is to be adopted as it is."""
        found = self.trigger.found
        return found is not None and found.ctime_ns // 1000 < self.tree.adopt_before

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
        quiet = tree.quiet if self.row.state in _SETTLES else None
        path = tree.absolute(trigger.key.path)
        return Question(path, tree.root_id, quiet, tree.probe, trigger.seen, not tree.remote)

    def judge(self) -> None:
        """Put the evidence together, and see which event it calls for."""
        self.facts = self._facts()
        event = self.trigger.event
        self.event = compare(self.facts) if event == "look" else event

    def stranger(self) -> Stranger | None:
        """The file, if its inode is new at this path: it may have a row under another."""
        seen, known = self.look.seen, self.row.seen
        if seen is None or self.event not in {"discover", "change"} or self.needs_no_look:
            # A rename sets ctime: what is adopted has had its path since before the watch began.
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
        return Facts(
            row,
            now,
            seen,
            settled=look.settled,
            adopted=adopted,
            steps=tree.steps,
            attempts=step.attempts if step else 1,
            interruptions=tree.watch.interruptions,
            crashed=trigger.cause == "crash",
            alarm=trigger.cause == "alarm",
            settle_at=0
            if adopted
            else look_again_at(look, now, tree.quiet, own_clock=not tree.remote),
            retry_at=_retry_at(step, row, now) if trigger.event == "fail" else 0,
        )


def _retry_at(step: Step | None, row: Row, now: int) -> int:
    if step is None:
        return now
    wait = backoff_seconds(step.backoff, row.failures + 1, random.random())  # noqa: S311 - jitter
    return now + int(wait * 1_000_000)
