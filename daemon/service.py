"""The composition root: builds the parts, starts them in order, and stops them in order."""

import asyncio
import os
import time
from collections.abc import Callable
from contextlib import AsyncExitStack, suppress
from functools import partial

from daemon import __version__
from daemon.config import Config
from daemon.engine.archives import Archives
from daemon.engine.clock import now_us
from daemon.engine.dispatcher import Dispatcher
from daemon.engine.filesystems import must_poll
from daemon.engine.filing import Unfinished, tidy
from daemon.engine.inbox import Inbox
from daemon.engine.journal import Journal
from daemon.engine.ledger import Ledger
from daemon.engine.output import Output
from daemon.engine.pipeline import Pipeline
from daemon.engine.quarantine import Quarantine
from daemon.engine.scanner import Scanner
from daemon.engine.snapshots import Bulletin, Snapshots
from daemon.engine.trees import Tree
from daemon.engine.tuning import tune_process
from daemon.engine.turn import turn
from daemon.errors import StoreLost
from daemon.handlers.opening import handler_of
from daemon.handlers.record import Record
from daemon.ops.folders import make_folders
from daemon.ops.lockfile import hold_state_dir
from daemon.ops.signals import stopped_by_signals
from daemon.ops.systemd import Notifier, feed_watchdog
from daemon.sources.alarms import Alarms
from daemon.sources.hints import Hints
from daemon.sources.reconciler import Reconciler
from daemon.sources.recovery import Survivors, recover
from daemon.sources.requests import Requests
from daemon.sources.roots import Roots
from daemon.store import Store
from daemon.store.opening import open_store
from daemon.store.spool import folder_of

# A log whose reader stalls, or a database that is away, may hold up the stop for so long.
FLUSH_SECONDS = 5.0
IDLE_SECONDS = 20.0
CANCEL_SECONDS = 5.0
STORE_CHECK_SECONDS = 10.0
PATIENCE_SECONDS = 30.0
# After the drain: handlers that ignore TERM, the last commits, the last lines.
STOP_SECONDS = 60.0
Listed = Callable[[], None]


class Service:
    """One daemon, from its first line to its last."""

    def __init__(
        self, config: Config, store: Store, journal: Journal, ledger: Ledger, notifier: Notifier
    ) -> None:
        self._config = config
        self._store = store
        self._journal = journal
        self.ledger = ledger
        self._notifier = notifier
        self.trees = {watch.name: Tree(watch) for watch in config.watch}
        self.inbox = Inbox()
        self.dispatcher = Dispatcher(self.inbox, ledger, journal, config.daemon.concurrency)
        self._record = Record.open(config.daemon.state_dir)
        self.archives = Archives(ledger, journal, self.dispatcher.hasten)
        make = partial(
            handler_of,
            node=config.daemon.node,
            record=self._record,
            say=journal.daemon,
            guard_of=self.archives.guard_of,
        )
        for tree in self.trees.values():
            self.dispatcher.add(tree, {step.name: make(step) for step in tree.watch.all_steps})
        self._survivors = Survivors(self._record, self.trees, self.dispatcher.survivors)
        self._alarms = Alarms(self.inbox, ledger, list(self.trees))
        self._snapshots = Snapshots(self.trees, ledger, journal.subscribe())
        standings = self.dispatcher.standings
        self._bulletin = Bulletin(self.trees, ledger, standings, journal.subscribe())
        self.roots = Roots(self.trees.values(), self.inbox, ledger, journal, self._snapshots)
        spool = folder_of(config.daemon.state_dir)
        confirm = self.roots.confirm, self.archives.confirm
        self._requests = Requests(spool, self.trees, self.inbox, journal, *confirm)
        self.scanner = Scanner(self.inbox, ledger, journal, self.roots)
        self.reconciler = Reconciler(self.trees, self.inbox, ledger, journal, self.scanner)
        self.pipeline = Pipeline(
            config.daemon.node,
            self.trees,
            self.inbox,
            ledger,
            journal,
            self.dispatcher,
            self._alarms,
        )
        self._quarantines = [
            Quarantine(tree, move, self.inbox, ledger, journal, self._record.parts, self.archives)
            for tree in self.trees.values()
            if (move := tree.watch.on_quarantine)
        ]
        self._lost: StoreLost | None = None
        self._stop = asyncio.Event()
        self._hurry = asyncio.Event()

    def stop(self) -> None:
        """End in good order; called a second time, end at once."""
        (self._hurry if self._stop.is_set() else self._stop).set()

    @property
    def stopping(self) -> bool:
        """Whether it was told to stop."""
        return self._stop.is_set()

    async def run(self) -> None:
        """Serve until told to stop, and write the last line.

        Raises:
            StoreLost: the database is not the file any more that was opened.
        """
        since = time.monotonic()
        self._journal.daemon("started", version=__version__, pid=os.getpid())
        async with asyncio.TaskGroup() as tasks:
            journal = tasks.create_task(self._journal.run())
            pipeline = tasks.create_task(self.pipeline.run())
            serving = tasks.create_task(self._serve())
            await self._stop.wait()
            self._notifier.extend_timeout(self._config.daemon.drain + STOP_SECONDS)
            await self._wind_down(serving, pipeline)
            self._journal.daemon("stopped", uptime_seconds=round(time.monotonic() - since, 3))
            self._journal.close()
            # What cannot be written now is owed, and the next start writes it.
            await asyncio.wait([journal], timeout=FLUSH_SECONDS)
            journal.cancel()
        if self._lost is not None:
            raise self._lost

    async def _wind_down(self, serving: asyncio.Task[None], pipeline: asyncio.Task[None]) -> None:
        """Nothing new comes in; what runs is finished or interrupted; all of it is committed."""
        self._notifier.stopping()
        self._journal.daemon("stopping", running=len(self.dispatcher.running))
        await _cancelled(serving)
        await self.pipeline.drop_waiting()
        await self.dispatcher.drain(self._config.daemon.drain, self._hurry)
        self.ledger.closing()
        # A disk that hangs must not hold up the stop for ever; the next start finds what is left.
        with suppress(TimeoutError):
            async with asyncio.timeout(IDLE_SECONDS):
                await self.inbox.idle()
        await _cancelled(pipeline)
        await self.ledger.close()
        await self.close()

    async def close(self) -> None:
        """End what handlers keep between files, and the threads that look at the trees."""
        await self.dispatcher.close()
        for quarantine in self._quarantines:
            await quarantine.close()
        self._record.close()
        await self.scanner.close()
        await self.roots.close()
        await asyncio.gather(*(tree.disk.close() for tree in self.trees.values()))

    async def _serve(self) -> None:
        """Everything that brings work in, or begins it."""
        await self.know_trees()
        # What is missing may have been renamed: only the first scan tells, and it comes last.
        listed = {name: self.inbox.begin(name) for name in self.trees}
        await self._survivors.find()
        await tidy(self.trees.values(), self.ledger, self._record.parts)
        for quarantine in self._quarantines:
            await quarantine.resume()
        unfinished = Unfinished(self.dispatcher)
        keepers = self._survivors, unfinished
        await recover(self.trees.values(), self.inbox, self.ledger, keepers)
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(unfinished.report(self.inbox))
            tasks.create_task(self._survivors.see_off(self.inbox, self._journal))
            tasks.create_task(self.dispatcher.run())
            for quarantine in self._quarantines:
                tasks.create_task(quarantine.run())
            tasks.create_task(self._alarms.run())
            tasks.create_task(self.roots.run())
            tasks.create_task(self._requests.run())
            tasks.create_task(self._snapshots.run())
            tasks.create_task(self._bulletin.run(self.dispatcher.resumed))
            tasks.create_task(self.reconciler.run_requests())
            tasks.create_task(self.reconciler.run_suspects())
            tasks.create_task(self._check_store())
            tasks.create_task(feed_watchdog(self._notifier, self._store.ping))
            patience = tasks.create_task(self._ask_for_patience())
            begun = (self._begin(tree, tasks, listed[tree.name]) for tree in self.trees.values())
            await asyncio.gather(*begun)
            patience.cancel()
            self._journal.daemon("ready", watches=len(self.trees))
            self._notifier.ready()
            self._notifier.status(f"serving {len(self.trees)} watches")

    async def _ask_for_patience(self) -> None:
        """A first scan of millions of files takes minutes; systemd is told that it goes on."""
        while True:
            self._notifier.extend_timeout(2 * PATIENCE_SECONDS)
            await asyncio.sleep(PATIENCE_SECONDS)

    async def _check_store(self) -> None:
        """End, for another start, when the database was replaced or removed under us."""
        while self._lost is None:
            await turn(STORE_CHECK_SECONDS)
            try:
                await self.ledger.insist("check", self._store.ping)
            except StoreLost as error:
                self._lost = error
                self.stop()

    async def know_trees(self) -> None:
        """Learn what is to be adopted, and what the roots are since the last run."""
        for tree in self.trees.values():
            mark_watch = partial(self._store.mark_watch, tree.name, now_us())
            mark = await self.ledger.insist("write", mark_watch)
            if tree.watch.existing == "adopt" and not mark.adopted:
                tree.adopt_before = mark.first_seen
        await self.roots.begin()

    async def _begin(self, tree: Tree, tasks: asyncio.TaskGroup, listed: Listed) -> None:
        """Have a tree watched, and wait for its first scan, unless its disk does not answer."""
        scanned = tasks.create_task(self._watch(tree, tasks, listed))
        silent = tasks.create_task(tree.silent.wait())
        await asyncio.wait({scanned, silent}, return_when=asyncio.FIRST_COMPLETED)
        silent.cancel()

    async def _watch(self, tree: Tree, tasks: asyncio.TaskGroup, listed: Listed) -> None:
        """Watch a tree, and only then scan it: what changes in between is seen by the watcher."""
        ask = partial(must_poll, tree.watch.mode, tree.root)
        polled = tree.remote = await tree.disk.scan.run(ask)
        hints = Hints(
            tree,
            self.inbox,
            self._journal,
            canary=self._config.daemon.state_dir / "canary" / tree.name,
            polled=polled,
            on_root_deleted=lambda: tasks.create_task(self.roots.check(tree)),
        )
        tasks.create_task(hints.run())
        async with self.scanner.reading_ahead(tree):
            await hints.watching.wait()
        counts = await self.reconciler.reconcile(tree, "start", listed)
        # Without its root nothing was adopted, which may still be there when that is back.
        if tree.adopt_before and counts.directories:
            tasks.create_task(self._finish_adoption(tree))
        tasks.create_task(self.reconciler.run(tree))

    async def _finish_adoption(self, tree: Tree) -> None:
        """Once what the first scan found is on record, an old file is as new as any other."""
        await self.inbox.unseen.over(tree.name)
        await self.inbox.idle(tree.name)
        await self.ledger.insist("write", partial(self._store.mark_adopted, tree.name))
        tree.adopt_before = 0


async def _cancelled(task: asyncio.Task[None]) -> None:
    """End a task. Asked again at times: a cancellation that a library loses must not hang us."""
    while not task.done():
        task.cancel()
        await asyncio.wait([task], timeout=CANCEL_SECONDS)


async def serve(config: Config) -> None:
    """Run the daemon that a configuration describes until a signal ends it.

    Raises:
        AlreadyRunning: another daemon has this state folder.
        StoreTooNew: a newer treewarden wrote the database.
        StoreUnavailable: the database cannot be opened.
        ServiceError: the metrics cannot be served where they should be.
        OSError: a folder or the log cannot be made.
    """
    tune_process()
    make_folders(config)
    async with AsyncExitStack() as stack:
        stack.enter_context(hold_state_dir(config.daemon.state_dir))
        opened = open_store(config.daemon.store, config.daemon.state_dir)
        store = await stack.enter_async_context(opened)
        output = Output.to(config.log.output)
        position = await store.journaled()
        journal = Journal(output, store, position, config.log.level, config.daemon.node)
        notifier = stack.enter_context(Notifier())
        ledger = Ledger(store, await store.last_ids(), journal, notifier.status)
        service = Service(config, store, journal, ledger, notifier)
        if config.metrics.listen:
            from daemon.ops import http, metrics  # noqa: PLC0415 - 13 MB and 0.1 s

            answers = metrics.Answers(service, journal).by_path
            await stack.enter_async_context(http.serve(config.metrics.listen, answers))
        stack.enter_context(stopped_by_signals(service.stop))
        await service.run()
