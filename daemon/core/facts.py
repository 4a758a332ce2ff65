"""What a decision may look at: the row, the disk as just seen, and the operator's policy.

The attributes and properties that the life cycle names as guards are all here, once.
`decide` evaluates them by name, and python-statemachine resolves the same names on the same object.
"""

from msgspec import Struct

from daemon.config_names import ON_DONE
from daemon.core.model import Fingerprint, Key, Row


class Facts(Struct, frozen=True, gc=False):
    """Evidence for one decision. Times in microseconds since the epoch.

    `digest`: of what is seen, where the watch goes by content. `inherited`: what another row knows
    to be done, whose file has taken this one's place. `moved_to`: where the file is now.
    `result`: what a step that succeeded hands on. `rank`: how urgent the file is. `target`: where
    we have taken the file. `loop`: why it is not to be handed over once more.
    """

    row: Row
    now: int = 0
    seen: Fingerprint | None = None
    settled: bool = False
    adopted: bool = False
    steps: tuple[str, ...] = ()
    removal_steps: tuple[str, ...] = ()
    attempts: int = 1
    interruptions: int = 1
    crashed: bool = False
    alarm: bool = False
    settle_at: int = 0
    retry_at: int = 0
    digest: str | None = None
    inherited: str | None = None
    moved_to: Key | None = None
    result: str | None = None
    rank: int = 0
    target: bytes | None = None
    loop: str | None = None

    @property
    def plan_steps(self) -> tuple[str, ...]:
        """The steps of the plan that the row follows."""
        return self.steps if self.row.plan == "process" else self.removal_steps

    @property
    def known_step(self) -> str | None:
        """The row's own step; the first of the plan when the configuration no longer has it."""
        names = self.plan_steps
        if self.row.step in names:
            return self.row.step
        return names[0] if names else None

    @property
    def next_step(self) -> str | None:
        """The step after the row's own; None after the last, or when its step left the plan."""
        names = self.plan_steps
        if self.row.step not in names:
            return None
        following = names.index(self.row.step) + 1
        return names[following] if following < len(names) else None

    @property
    def fresh(self) -> bool:
        """The disk still shows what the row says.

        Inode, size and mtime can all be given to other bytes; digests tell, where both are known.
        """
        row = self.row
        if (row.seen.content if row.seen else None) != (self.seen.content if self.seen else None):
            return False
        return self.digest is None or row.digest is None or self.digest == row.digest

    @property
    def content(self) -> str | None:
        """The identity of what is seen: its digest where there is one."""
        return self.digest or (self.seen.content if self.seen else None)

    @property
    def changed(self) -> bool:
        """There is a file, and its content is not what the row knows."""
        return self.seen is not None and not self.fresh

    @property
    def absent(self) -> bool:
        """The file is off the disk, and the row is not there because of that."""
        return self.seen is None and self.row.plan == "process"

    @property
    def as_done(self) -> bool:
        """Settled, with the very content that was last done."""
        known = self.row.done
        if not self.settled or self.seen is None or known is None:
            return False
        return known in {self.seen.content, self.digest}

    @property
    def takes_away(self) -> bool:
        """No file of this watch stays that is done: its last step takes it away."""
        return self.steps[-1:] == (ON_DONE,)

    @property
    def left_behind(self) -> bool:
        """Settled, with the content that was last done, in a watch where no such file stays."""
        return self.as_done and self.takes_away

    @property
    def first_step(self) -> str:
        """Where a content begins that has settled: what is done has only to be taken away."""
        return ON_DONE if self.left_behind else self.steps[0]

    @property
    def tracked_only(self) -> bool:
        """Settled, in a watch without steps."""
        return self.settled and not self.steps

    @property
    def looping(self) -> bool:
        """Settled, and come back so often that a handler must be bringing it."""
        return self.settled and self.loop is not None

    @property
    def step_follows(self) -> bool:
        """The plan has a step after this one."""
        return self.next_step is not None

    @property
    def taken(self) -> bool:
        """What succeeded was the last step of all, which takes the file away."""
        return self.row.step == ON_DONE and self.row.plan == "process"

    @property
    def put_aside(self) -> bool:
        """The file is where `on_quarantine` has taken it."""
        return self.target is not None

    @property
    def removal(self) -> bool:
        """The plan is that for a removed file."""
        return self.row.plan == "remove"

    @property
    def removal_planned(self) -> bool:
        """The file is off the disk, and its watch has steps for what was once done with it.

        Where no file stays that is done, it was taken away for good, and not removed.
        """
        if not self.absent or not self.removal_steps:
            return False
        return self.row.state == "done" or (self.row.done is not None and not self.takes_away)

    @property
    def removal_pending(self) -> bool:
        """The plan for a removed file is not through, and the file has not come back."""
        return self.removal and self.seen is None and bool(self.removal_steps)

    @property
    def attempts_left(self) -> bool:
        """This failure is not the last that the step allows."""
        return self.row.failures + 1 < self.attempts

    @property
    def interruptions_left(self) -> bool:
        """A stop of the daemon is nobody's fault; a crash counts, up to the limit."""
        return not self.crashed or self.row.interruptions + 1 < self.interruptions
