"""The folders that files are taken to: each is known, and nothing goes to another in its place.

A mount point without its mount would take files as well, and the next mount would hide them. Which
folder it is, is on record from its first use on, over restarts too.
"""

import asyncio
import os
import shlex
from collections import defaultdict
from collections.abc import Callable
from functools import partial

import msgspec

from daemon.config_after import After, FilingStep, Move, base_of
from daemon.core.archives import strangeness
from daemon.core.removals import Mark, read_mark
from daemon.core.texts import path_fields
from daemon.engine.births import identity_of
from daemon.engine.identity import RootId, folder_id, mark_of
from daemon.engine.journal import Journal
from daemon.engine.ledger import Ledger
from daemon.engine.trees import Tree
from daemon.handlers.archive import held
from daemon.handlers.threads import Threads

# One that does not answer an operator for so long is away. Less than the command waits.
ANSWER_SECONDS = 5.0

# Device, inode and birth.
Identity = tuple[int, int, int]


class Archive:
    """The folder that one `on_done` or `on_quarantine` takes files to. See `Guard`.

    It is known by device, inode and birth while it stands there, and by nothing while that is in
    doubt: so its file system is asked for at the first file, when another folder is met, and for
    each try until the known one is back.
    """

    def __init__(
        self, base: bytes, watch: str, step: str, threads: Threads, ledger: Ledger, journal: Journal
    ) -> None:
        self.watch, self.step = watch, step
        self._identity: Identity | None = None
        # The mount that it is on while this process runs, 0 where that is not known.
        self._mount = 0
        self._base = base
        self._threads = threads
        self._ledger = ledger
        self._journal = journal
        self._lost = False
        self._lock = asyncio.Lock()

    @property
    def is_sure(self) -> bool:
        """See `Guard`."""
        return self._identity is not None

    def knows(self, fd: int) -> bool:
        """See `Guard`. One call of the system."""
        return identity_of(fd) == self._identity

    async def meet(self) -> str | None:
        """See `Guard`. The first folder that is ever met is the right one."""
        async with self._lock:
            found, mark = await self._look()
            known = await self._known()
            remounted = 0 not in {self._mount, found.mount} and self._mount != found.mount
            what = None if known is None else strangeness(known, mark, remounted=remounted)
            if what is None:
                await self._accept(found, mark, known)
                return None
            return self._lose(what)

    async def confirm(self) -> bool:
        """An operator says that what stands there now is right; False where that cannot be told."""
        try:
            async with asyncio.timeout(ANSWER_SECONDS), self._lock:
                found, mark = await self._look()
                await self._accept(found, mark, await self._known())
        except (OSError, RuntimeError):  # the first is a TimeoutError as well
            return False
        return True

    async def _look(self) -> tuple[RootId, Mark]:
        return await self._threads.run(partial(_look, self._base))

    async def _known(self) -> Mark | None:
        """On record: others may take files there as well, and have learnt what is right."""
        read = partial(self._ledger.store.archive, self._base)
        return read_mark(await self._ledger.insist("read", read))

    async def _accept(self, found: RootId, mark: Mark, known: Mark | None) -> None:
        """Before the first file goes there: a crash right after it must not forget where."""
        if mark != known:
            text = msgspec.json.encode(mark).decode()
            keep = partial(self._ledger.store.keep_archive, self._base, text)
            await self._ledger.insist("write", keep)
        self._identity, self._mount = (found.dev, found.ino, found.born), found.mount
        if self._lost:
            self._lost = False
            self._journal.daemon("archive_back", **self._about())

    def _lose(self, what: str) -> str:
        self._identity = None
        command = shlex.join(confirmation(self.watch))
        remedy = f"mount it, or, if files are to go to what is there now: {command}"
        if not self._lost:
            self._lost = True
            reason = f"{what}; {remedy}"
            self._journal.daemon("archive_lost", "error", **self._about(), reason=reason)
        return f"{os.fsdecode(self._base)!r} is not the archive that is known: {what}; {remedy}"

    def _about(self) -> dict[str, str]:
        return {"watch": self.watch, "step": self.step, **path_fields("path", self._base)}


class Archives:
    """All of them. `hasten` has a step try again what it could not reach."""

    def __init__(
        self, ledger: Ledger, journal: Journal, hasten: Callable[[str, str], None]
    ) -> None:
        self._ledger = ledger
        self._journal = journal
        self._hasten = hasten
        self._of: defaultdict[str, list[Archive]] = defaultdict(list)

    def guard_of(self, step: FilingStep, threads: Threads) -> Archive | None:
        """The guard of `on_done`."""
        return self.guard(step.after, step.watch, step.name, threads)

    def guard(self, after: After, watch: str, step: str, threads: Threads) -> Archive | None:
        """What knows the folder where files are taken; None where they go nowhere."""
        if not isinstance(after, Move):
            return None
        base = os.fsencode(base_of(after.move, watch))
        archive = Archive(base, watch, step, threads, self._ledger, self._journal)
        self._of[watch].append(archive)
        return archive

    async def confirm(self, tree: Tree) -> bool:
        """An operator says of a tree's archives that they are right; False where one is away."""
        archives = self._of[tree.name]
        answers = await asyncio.gather(*(archive.confirm() for archive in archives))
        for archive in archives:
            self._hasten(archive.watch, archive.step)
        tree.quarantined.set()
        return all(answers)


def confirmation(watch: str) -> list[str]:
    """What an operator types to have files go to what stands there now."""
    name = ["--", watch] if watch.startswith("-") else [watch]
    return ["treewarden", "reconcile", "--confirm-archive", *name]


def _look(base: bytes) -> tuple[RootId, Mark]:
    with held(base, None):
        found = folder_id(base)
        return found, mark_of(found)
