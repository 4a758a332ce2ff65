"""One step of a watch: who runs, who is about to, who waits, and why nobody is started."""

import asyncio
from collections.abc import Callable, Iterator

from msgspec.structs import replace

from daemon.config_steps import Step
from daemon.core.model import Key, Row
from daemon.engine.backlog import Backlog
from daemon.engine.breaker import Breaker
from daemon.engine.clock import now_us
from daemon.engine.ledger import Ledger
from daemon.engine.rate import Rate
from daemon.engine.standing import Standing
from daemon.engine.trees import Tree
from daemon.handlers import Handler, Outcome

# A file that could not be started though it is still ready is left alone: so long at first, twice
# as long each time, and so long at most.
DEFER_SECONDS = 5.0
DEFER_LONGEST = 300.0
# What a lane waits after the machine was too short of something to start a program.
SHORTAGE_SECONDS = 1.0


class Lane:
    """At most `places` files at once, as fast and as long as the step's policies let them.

    Times are the loop's, in seconds.
    """

    def __init__(self, tree: Tree, step: Step, handler: Handler, ledger: Ledger) -> None:
        self.tree = tree
        self.step = step
        self.handler = handler
        self.places = step.places
        self.backlog = Backlog(tree, step, ledger)
        self.breaker = Breaker(step.breaker)
        self.rate = Rate(step.max_per_minute) if step.max_per_minute else None
        self.starting: set[Key] = set()
        self.running: dict[Key, asyncio.Task[Outcome]] = {}
        # Those of the running that were told to end, for their file has changed.
        self.overtaken: set[Key] = set()
        # Until when nothing is started, and why.
        self.paused_until = 0.0
        self.pause_reason = ""
        self.standing = Standing()
        # How often in a row the start of a file did not come about.
        self._deferred: dict[Key, int] = {}

    @property
    def taken(self) -> int:
        """How many places are not free."""
        return len(self.running) + len(self.starting)

    @property
    def urgency(self) -> int:
        """The priority of the next row."""
        if self.tree.ranks.by_pattern:
            return -self.backlog.queue[0].rank
        return self.tree.watch.priority

    def room(self, now: float) -> int:
        """How many may be started now, if there are so many; negative where there are too many."""
        if now < self.paused_until or not self.breaker.lets_pass(now):
            return 0
        room = self.places - self.taken
        if self.rate:
            room = min(room, self.rate.room(now) - len(self.starting))
        return min(room, 1) if self.breaker.is_open else room

    def startable(self, now: float) -> int:
        """How many of the rows in memory may be started now."""
        queue = self.backlog.queue
        return min(self.room(now), len(queue)) if queue else 0

    def is_hungry(self, now: float) -> bool:
        """It is time to read more rows from the database."""
        return self.backlog.more and self.backlog.is_low(room=self.room(now) > 0)

    def opens_at(self, now: float) -> float | None:
        """When files may be started that may not now; None: there are none, or time is not all."""
        waits = [] if self.backlog.is_empty else [at for at in self._obstacles(now) if at > now]
        return max(waits, default=None)

    def _obstacles(self, now: float) -> Iterator[float]:
        yield self.paused_until
        if self.breaker.is_open and self.breaker.probing is None:
            yield self.breaker.probe_at
        if self.rate and self.rate.room(now) <= len(self.starting):
            yield self.rate.opens_at

    def take(self) -> Row:
        """The next row; while the breaker is open another one for each probe, as far as there are.

        One file that no server likes would otherwise stand for all of them.
        """
        if not self.breaker.is_open:
            return self.backlog.take()
        row = self.backlog.take(self.breaker.probes)
        self.breaker.probe(row.key)
        return row

    def put_back(self, row: Row) -> None:
        """What was taken is not started now."""
        self.breaker.ended(row.key)
        self.backlog.put_back(row.key)

    def started(self, row: Row, now: float) -> None:
        """The start of a row is on record."""
        self.starting.discard(row.key)
        self._deferred.pop(row.key, None)
        self.backlog.hold(row.key)
        if self.rate:
            self.rate.started(now)

    def not_started(self, key: Key, *, is_same: bool) -> float | None:
        """A start did not come about. `is_same`: nothing is wrong with the row.

        Returns for how long it is to be left alone then: longer each time.
        """
        self.starting.discard(key)
        self.breaker.ended(key)
        if not is_same:
            self._deferred.pop(key, None)
            self.backlog.put_back(key)
            return None
        times = self._deferred[key] = self._deferred.get(key, -1) + 1
        return min(DEFER_SECONDS * 2.0 ** min(times, 10), DEFER_LONGEST)

    def judge(self, row: Row, outcome: Outcome, now: float, wake: Callable[[], None]) -> Outcome:
        """Draw from an outcome what it says about the step; the outcome as it counts for the file.

        `wake` is called when a file that was left alone may be started again.
        """
        if outcome.verdict == "defer":
            self._pause(now + SHORTAGE_SECONDS, "the machine is short of something")
        elif outcome.verdict == "unavailable" or outcome.suspect:
            return self._suffer(row, outcome, now, wake)
        elif self.breaker.answers():
            self.backlog.bring_all_back()
            self.standing = Standing()
        return outcome

    def ended(self, row: Row) -> None:
        """This row's handler does not run any more, and has been judged."""
        self.breaker.ended(row.key)
        self.overtaken.discard(row.key)

    def reopen(self, former: Standing, now: float) -> None:
        """The step was open when the daemon ended: its first file is a probe, at once."""
        self.breaker.failures = former.failures
        self.breaker.open(now, 0.0)
        self.standing = replace(former, probe_at=now_us())

    def hasten(self, now: float) -> None:
        """What the step needs may be there again: whoever waits for that tries it now."""
        self.backlog.bring_all_back()
        if self.breaker.is_open:
            self.breaker.probe_at = min(self.breaker.probe_at, now)
            self.standing = replace(self.standing, probe_at=now_us())

    def _pause(self, until: float, reason: str) -> None:
        if until > self.paused_until:
            self.paused_until, self.pause_reason = until, reason

    def _suffer(self, row: Row, outcome: Outcome, now: float, wake: Callable[[], None]) -> Outcome:
        breaker = self.breaker
        just_opened = breaker.suffers(row.key, now, outcome.after)
        if not breaker.is_open:
            if outcome.verdict == "unavailable":
                if outcome.after:
                    longest = min(outcome.after, self.step.breaker.max)
                    self._pause(now + longest, "it was asked to wait")
                # Else a file whose part of the step is away would come back at once, for ever.
                seconds = breaker.patience(breaker.failures - 1)
                self.backlog.set_aside(row.key, row.version + 1, seconds, wake)
            return outcome
        if just_opened:
            self.backlog.bring_all_back()
        wall = now_us()
        probe_at = wall + int((breaker.probe_at - now) * 1_000_000)
        since = wall if just_opened else self.standing.open_since
        self.standing = Standing(since, breaker.failures, outcome.error, probe_at)
        # Known to be away: whoever met it has spent nothing, a server's own error included.
        return replace(outcome, verdict="unavailable")
