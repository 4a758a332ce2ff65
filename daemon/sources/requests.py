"""What operators ask of the running daemon: takes up what comes into the spool."""

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from functools import partial
from pathlib import Path

from daemon.core.model import Key
from daemon.core.texts import path_fields
from daemon.engine.inbox import Inbox
from daemon.engine.journal import Journal
from daemon.engine.lookout import Lookout
from daemon.engine.notice import noticing
from daemon.engine.trees import Tree
from daemon.store.spool import Request, is_asked, waiting

# Where nobody tells of a request that comes; and in case that one was not told of.
LOOK_SECONDS, RARE_SECONDS = 1.0, 30.0


class Requests:
    """Sees to each request, and then removes it: whoever asked waits for that.

    `confirm` is told that what is missing in a tree was removed, and says whether that can hold;
    `confirm_archive`, that the folders that its files are taken to are the right ones.
    """

    def __init__(
        self,
        folder: Path,
        trees: Mapping[str, Tree],
        inbox: Inbox,
        journal: Journal,
        confirm: Callable[[Tree], Awaitable[bool]],
        confirm_archive: Callable[[Tree], Awaitable[bool]],
    ) -> None:
        self._folder = folder
        self._trees = trees
        self._inbox = inbox
        self._journal = journal
        self._confirm = confirm
        self._confirm_archive = confirm_archive
        self._disk = Lookout("requests", partial(is_asked, folder), LOOK_SECONDS)
        # Seen to, and there all the same: what cannot be removed must not be done every second.
        self._stuck: set[Path] = set()
        self._under_way: set[Path] = set()

    async def run(self) -> None:
        """See to what is asked for, until cancelled."""
        try:
            async with asyncio.TaskGroup() as tasks:
                with noticing(self._folder, self._disk.due.set) as is_told:
                    self._disk.seconds = RARE_SECONDS if is_told else LOOK_SECONDS
                    while True:
                        self._disk.due.clear()
                        await self.take(tasks)
                        await self._disk.due.wait()
        finally:
            await self._disk.close()

    async def take(self, tasks: asyncio.TaskGroup) -> None:
        """Begin to see to everything that is asked for now.

        Each by itself: one about a tree that hangs waits for that.
        """
        try:
            found = await self._disk.run(partial(waiting, self._folder))
        except OSError:
            # Whoever asks gets no further than this, and is told.
            return
        for path, request in found:
            if path not in self._stuck and path not in self._under_way:
                self._under_way.add(path)
                tasks.create_task(self._answer(path, request))

    async def _answer(self, path: Path, request: Request | str) -> None:
        try:
            await self._work_off(path, request)
        finally:
            self._under_way.discard(path)

    async def _work_off(self, path: Path, request: Request | str) -> None:
        if isinstance(request, str):
            self._complain(path, f"a request cannot be understood: {request}")
        else:
            await self._see_to(path, request)
        try:
            await self._disk.run(partial(path.unlink, missing_ok=True))
        except OSError as error:
            self._stuck.add(path)
            self._complain(path, f"a request cannot be removed: {error.strerror}")

    async def _see_to(self, path: Path, request: Request) -> None:
        for name in request.reconcile or self._trees:
            tree = self._trees.get(name)
            if tree is None:
                self._complain(path, f"a request names a watch that this daemon has not: {name}")
            else:
                await self._see_to_tree(tree, request)

    async def _see_to_tree(self, tree: Tree, request: Request) -> None:
        if request.archive and not await self._confirm_archive(tree):
            self._refuse(tree, "an archive cannot be confirmed while it is away")
        if request.confirm and not await self._confirm(tree):
            self._refuse(tree, "removals cannot be confirmed while the root is away")
        else:
            self._inbox.request_scan(Key(tree.name, b""), "request")

    def _refuse(self, tree: Tree, reason: str) -> None:
        self._journal.daemon("degraded", "warning", watch=tree.name, reason=reason)

    def _complain(self, path: Path, reason: str) -> None:
        where = path_fields("path", bytes(path))
        self._journal.daemon("degraded", "warning", **where, reason=reason)
