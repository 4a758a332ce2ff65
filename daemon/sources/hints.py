"""The watcher: hints from watchfiles, and what to do when it fails, goes blind, or loses its root.

watchfiles loses events in new directories, in directories moved in, and when the kernel's queue
overflows; one name that is not UTF-8 ends its iterator. So a hint is never more than a reason to
look, every directory that appears is scanned, and every end of a watcher is followed by a scan.
"""

import asyncio
import os
from collections.abc import Iterable

import watchfiles

from daemon.core.model import Key, Trigger
from daemon.engine.inbox import Inbox
from daemon.engine.journal import Journal
from daemon.engine.trees import Tree

# Latency against idle wake-ups: 16 ms and 0.7 % of a core at 50/10, 0.4 % at a step of 20.
DEBOUNCE_MS = 50
STEP_MS = 20
# How often the root's identity is checked: a watcher on a root that was replaced just falls silent.
ROOT_CHECK_MS = 1_000
BACKOFF_FIRST, BACKOFF_LONGEST = 0.1, 5.0
# A watcher that lived so long has recovered: the next failure starts with the short pause again.
HEALTHY_SECONDS = 30.0


class Hints:
    """Watches one tree for as long as the daemon runs."""

    def __init__(self, tree: Tree, inbox: Inbox, journal: Journal, *, polled: bool) -> None:
        self._tree = tree
        self._inbox = inbox
        self._journal = journal
        self._polled = polled
        self._backoff = BACKOFF_FIRST
        # Set when the first watcher is in place: a scan that starts now misses nothing.
        self.watching = asyncio.Event()

    async def run(self) -> None:
        """Watch; whenever that ends, scan the tree, and watch again."""
        loop = asyncio.get_running_loop()
        while True:
            await self._await_root()
            since = loop.time()
            reason = await (self._poll_root() if self._polled else self._watch())
            if loop.time() - since > HEALTHY_SECONDS:
                self._backoff = BACKOFF_FIRST
            await self._await_root()
            self._journal.daemon(
                "watcher_restarted", "warning", watch=self._tree.name, reason=reason
            )
            await asyncio.sleep(self._backoff)
            self._backoff = min(self._backoff * 2, BACKOFF_LONGEST)
            self._inbox.request_scan(Key(self._tree.name, b""), "watcher")

    async def _watch(self) -> str:
        """Pass hints on until the watcher ends or the root is another; why it ended."""
        stop = asyncio.Event()
        changes = watchfiles.awatch(
            os.fsdecode(self._tree.root),
            watch_filter=None,
            debounce=DEBOUNCE_MS,
            step=STEP_MS,
            rust_timeout=ROOT_CHECK_MS,
            yield_on_timeout=True,
            stop_event=stop,
            ignore_permission_denied=True,
        )
        try:
            # The first step of the iterator sets the watches before it waits: by the time the
            # loop comes round to this call they are in place, or have failed.
            asyncio.get_running_loop().call_soon(self.watching.set)
            async for batch in changes:
                if self._lost_root(batch) or (not batch and self._tree.rerooted.is_set()):
                    return "the root is another directory"
                await self._pass_on(os.fsencode(path) for _, path in batch)
        except Exception as error:  # noqa: BLE001 - the scan stands in for whatever was lost
            return _words(error)
        finally:
            stop.set()
            await changes.aclose()
        return "watchfiles ended"

    async def _poll_root(self) -> str:
        """Without a watcher only the root is looked after; the periodic scan does the rest."""
        self.watching.set()
        await self._tree.rerooted.wait()
        return "the root is another directory"

    async def _pass_on(self, paths: Iterable[bytes]) -> None:
        for absolute in paths:
            path = self._tree.relative(absolute)
            if path is not None and self._concerns_us(path):
                await self._inbox.offer(Trigger(Key(self._tree.name, path), "look", "hint"))

    def _concerns_us(self, path: bytes) -> bool:
        """Files we want, and any folder: whether it is one, only the look can tell."""
        return self._tree.matcher.wants(path) or self._tree.matcher.enters(path)

    def _lost_root(self, batch: set[tuple[watchfiles.Change, str]]) -> bool:
        """The one trace of a root that was removed and made anew: it may get the same inode."""
        return (watchfiles.Change.deleted, os.fsdecode(self._tree.root)) in batch

    async def _await_root(self) -> None:
        """Wait for a root to watch; whoever looks after the roots says what happens to it."""
        if not self._tree.rooted.is_set():
            # Nothing is there: a scan that starts now misses nothing.
            self.watching.set()
            await self._tree.rooted.wait()
        self._tree.rerooted.clear()


def _words(error: Exception) -> str:
    """What went wrong, without the groups that task groups wrap around it."""
    first: BaseException = error
    while isinstance(first, BaseExceptionGroup):
        first = first.exceptions[0]
    return f"{type(first).__name__}: {first}"
