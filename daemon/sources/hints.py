"""The hints: what a tree's watcher tells goes into the inbox; one watcher after another.

A watcher loses events in new folders, in folders that are moved in, and when the kernel's queue
runs over; a name that is not UTF-8 ends it. So a hint is never more than a reason to look, every
folder that appears is scanned, and after the end of a watcher the whole tree is, once the next one
is in place.
"""

import asyncio
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from daemon.core.model import Fingerprint, Key, Sight, Trigger
from daemon.engine.inbox import Inbox
from daemon.engine.inotify import remedy
from daemon.engine.journal import Journal
from daemon.engine.trees import Tree
from daemon.sources.watch_doubts import Doubts
from daemon.sources.watcher import (
    Canary,
    Changes,
    Ended,
    Exhausted,
    Flood,
    Proven,
    Ready,
    Report,
    RootDeleted,
    Watcher,
)

if TYPE_CHECKING:
    from daemon.engine.identity import RootId
    from daemon.engine.sight import Sights

# Why the end of a watcher makes a scan necessary: what the files that it finds are counted under.
_CAUSES = {"overflow": "overflow", "stopped": "root"}
BACKOFF_FIRST, BACKOFF_LONGEST = 0.1, 5.0
# A watcher that lived so long has recovered: the next failure starts with the short pause again.
HEALTHY_SECONDS = 30.0
# A limit of inotify is raised by a person.
SHORTAGE_SECONDS = 60.0
# A walk over a slow disk, or through a link to somewhere large, must not hold up the first scan.
PATIENCE_SECONDS = 60.0
# A burst is over when nothing of it came for so long; in one that lasts scans come in between.
LULL_SECONDS, BURST_SECONDS = 0.2, 5.0


class Hints:
    """Watches one tree for as long as the daemon runs."""

    def __init__(
        self,
        tree: Tree,
        inbox: Inbox,
        journal: Journal,
        *,
        canary: Path,
        polled: bool,
        on_root_deleted: Callable[[], object] = lambda: None,
    ) -> None:
        self._tree = tree
        self._inbox = inbox
        self._journal = journal
        self._canary = canary
        self._polled = polled
        self._on_root_deleted = on_root_deleted
        self._burst = Burst(lambda: self._request_scan("burst"))
        self._backoff = BACKOFF_FIRST
        # The root of the present watcher, and when that was in place.
        self._watched: RootId | None = None
        self._since: float | None = None
        # Why the tree is to be scanned when the next one is; why the last one that was ended.
        self._cause: str | None = None
        self._restarted: str | None = None
        self._doubts = Doubts(inbox.traffic, tree.name)
        # What was last said to be amiss; the shortage that keeps the watcher from starting.
        self._degraded: str | None = None
        self._short_of: str | None = None
        # Set when the first watcher is in place, so that a scan which starts now misses nothing; or
        # when that does not come about, and the tree is polled.
        self.watching = asyncio.Event()

    async def run(self) -> None:
        """Watch; whenever that ends, watch again, and scan."""
        if self._polled:
            own = self._tree.watch.mode == "poll"
            self._poll("the configuration says so" if own else "it is on a network file system")
            return
        patience = asyncio.get_running_loop().call_later(PATIENCE_SECONDS, self._begin_without)
        try:
            while True:
                await self._rooted()
                await self._recover(await self._watch())
        finally:
            patience.cancel()
            self._burst.forget()

    async def _rooted(self) -> None:
        """Wait for a root to watch."""
        if not self._tree.rooted.is_set():
            self._poll("the root is lost")
            self._cause = "root"
        await self._tree.rooted.wait()
        self._tree.rerooted.clear()

    async def _watch(self) -> Ended:
        """Pass on what a watcher tells until it ends, or the root is another; why it ended."""
        try:
            tree = self._tree
            self._watched = tree.root_id
            made = Watcher(tree.root, self._canary, probe=tree.probes_at_once)
            async with made as watcher:
                rerooted = asyncio.ensure_future(self._tree.rerooted.wait())
                rerooted.add_done_callback(lambda _: watcher.stop())
                try:
                    async for report in watcher:
                        await self._take(report)
                finally:
                    rerooted.cancel()
                    self._doubts.lose()
        except OSError as error:
            return Ended("died", f"it cannot be started: {error.strerror or error}")
        return watcher.ended

    async def _take(self, report: Report) -> None:
        match report:
            case Changes():
                await self._pass_on(report)
            case Canary():
                self._tree.detection.latency_us = report.latency_us
            case Ready():
                self._begin(report)
            case Proven():
                self._doubts.prove(report.canary)
            case Flood():
                self._burst.go_on()
            case Exhausted():
                self._run_short(report.limit)
            case RootDeleted():
                self._on_root_deleted()

    async def _pass_on(self, changes: Changes) -> None:
        """Files that are wanted, and any folder: whether it is one, only the look can tell."""
        if changes.latency_us is not None:
            self._tree.detection.latency_us = changes.latency_us
        # The inbox has not room for all of a burst: the two ends of a rename may be far apart.
        self._doubts.begin_batch()
        await self._inbox.offer_all(self._sights(changes.present))
        await self._inbox.offer_all(self._looks(changes.removed))
        if not changes.more:
            # What is there comes before what is not.
            self._doubts.end_batch(changes.canary if changes.removed else None)
        if changes.burst:
            self._burst.go_on()
        else:
            self._burst.end()
        # A pipe that is full again at once would not let anybody else have the loop.
        await asyncio.sleep(0)

    def _looks(self, paths: Iterable[bytes]) -> Iterable[Trigger]:
        name, concerns = self._tree.name, self._tree.concerns
        return (Trigger(Key(name, path), "look", "hint") for path in paths if concerns(path))

    def _sights(self, paths: "Sights") -> Iterable[Trigger]:
        name, concerns = self._tree.name, self._tree.concerns
        for path, sight in paths:
            if concerns(path):
                shown = sight and Sight(Fingerprint._make(sight[0]), sight[1])
                yield Trigger(Key(name, path), "look", "hint", sight=shown)

    def _begin(self, ready: Ready) -> None:
        """A watcher is in place."""
        self._since = asyncio.get_running_loop().time()
        self._tree.watchers += 1
        detection = self._tree.detection
        detection.mode, detection.reason = "inotify", None
        detection.latency_us = ready.latency_us
        if self._restarted is not None:
            detection.restarts += 1
            self._say("watcher_restarted", reason=self._restarted)
        if ready.complete:
            self._degraded = None
        else:
            self._run_short("max_user_watches")
        if self._cause is not None:
            self._request_scan(self._cause)
        self._cause = self._restarted = None
        self.watching.set()

    def _begin_without(self) -> None:
        """The first walk takes long: what happens until its end, a scan after it finds."""
        if not self.watching.is_set():
            self._cause = "watcher"
            self._poll("the watcher is still being set up")

    async def _recover(self, ended: Ended) -> None:
        """Have the tree polled until the next watcher is in place, and scanned then."""
        since, self._since = self._since, None
        self._burst.forget()
        self._cause = _CAUSES.get(ended.cause, "watcher")
        rooted = self._tree.rooted.is_set() and self._watched == self._tree.root_id
        if ended.cause == "stopped" and not rooted:
            self._poll("the root is another one")
            return
        if ended.cause == "stopped":
            # It did hear, but not all: a scan after a burst has found that out, and said it.
            self._cause, self._restarted = "overflow", "the queue ran over in a burst"
            self._poll(self._restarted)
            return
        self._poll(self._short_of or ended.reason)
        if ended.cause == "overflow":
            self._tree.detection.overflows += 1
            self._say("overflow", reason=ended.reason)
        if since is not None:
            self._restarted = ended.reason
        elif self._short_of is None:
            self._degrade(ended.reason)
        await asyncio.sleep(self._pause(ended, since))

    def _pause(self, ended: Ended, since: float | None) -> float:
        if self._short_of is not None:
            self._short_of = None
            return SHORTAGE_SECONDS
        if since is not None and asyncio.get_running_loop().time() - since > HEALTHY_SECONDS:
            self._backoff = BACKOFF_FIRST
        pause = self._backoff
        # One that was never in place has walked the tree for nothing: so it is with a folder in it
        # whose name is not UTF-8.
        self._backoff = min(pause * 2, BACKOFF_LONGEST if since is not None else SHORTAGE_SECONDS)
        # The watcher did what it could, and the sooner it is back the less is left to the scan.
        return 0.0 if ended.cause == "overflow" and pause == BACKOFF_FIRST else pause

    def _poll(self, reason: str) -> None:
        detection = self._tree.detection
        detection.mode, detection.reason, detection.latency_us = "polled", reason, None
        self.watching.set()

    def _run_short(self, limit: str) -> None:
        """Not everything can be watched, or nothing, until somebody raises a limit."""
        detection = self._tree.detection
        setting = remedy(limit, detection.directories or 0)
        reason = f"no inotify {limit.rpartition('_')[2]} are left"
        fields = setting._asdict() if setting else {}
        if setting:
            reason += f": set {setting.sysctl} to {setting.value}"
        detection.mode, detection.reason = "partly", reason
        if limit == "max_user_instances":
            self._short_of = reason
        self._degrade(reason, **fields)

    def _degrade(self, reason: str, **fields: str | int) -> None:
        """Say so, once until all is well."""
        if reason != self._degraded:
            self._degraded = reason
            self._say("degraded", reason=reason, **fields)

    def _say(self, event: str, **fields: str | int) -> None:
        self._journal.daemon(event, "warning", watch=self._tree.name, **fields)

    def _request_scan(self, cause: str) -> None:
        self._inbox.request_scan(Key(self._tree.name, b""), cause)


class Burst:
    """Many changes at once, after which a scan is asked for: when they are over, or at times."""

    def __init__(self, ask: Callable[[], None]) -> None:
        self._ask = ask
        self._end: asyncio.TimerHandle | None = None
        self._since = 0.0

    def go_on(self) -> None:
        """It has begun, or there is more of it."""
        loop = asyncio.get_running_loop()
        if self._end is None:
            self._since = loop.time()
        self.forget()
        self._end = loop.call_at(
            min(loop.time() + LULL_SECONDS, self._since + BURST_SECONDS), self.end
        )

    def end(self) -> None:
        """It is over, if there was one."""
        if self._end is not None:
            self.forget()
            self._ask()

    def forget(self) -> None:
        """Whatever it left out is found otherwise."""
        if self._end is not None:
            self._end.cancel()
            self._end = None
