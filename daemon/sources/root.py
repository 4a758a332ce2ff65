"""One tree's root: which directory stands there, and what that is to the one that is known."""

import asyncio
from typing import NamedTuple

from daemon.core.removals import Mark, Verdict, judge
from daemon.engine.identity import RootId, mark_of
from daemon.engine.lookout import LATE_SECONDS, Lookout
from daemon.engine.trees import Tree

CHECK_SECONDS = 2.0
# A file system that does not answer for so long is as good as away.
ANSWER_SECONDS = 30.0
SILENT = "its file system does not answer"


class Found(NamedTuple):
    """Which directory stands at a root's path, and what can be remembered of it."""

    root: RootId
    mark: Mark


class Root:
    """One tree's root: what it is known to be, and what may have come of it.

    `known` is what the database remembers, `mark` what it is to remember of what stands there, and
    `mount` the mount that it is on while this process runs. `lost`: that was said, and not yet that
    it is back; what stands there meanwhile, if anything does, is watched, but not trusted.
    `confirmed`: an operator did, for one scan. `pause` and `scan_at`: while the share has frozen
    it, when it is worth another scan.
    """

    def __init__(self, tree: Tree) -> None:
        self.tree = tree
        self.known: Mark | None = None
        self.mark: Mark | None = None
        self.mount = 0
        self.lost = False
        self.confirmed = False
        self.pause = self.scan_at = 0.0
        self.lock = asyncio.Lock()
        self.worker = Lookout(f"root-{tree.name}", self._is_another, CHECK_SECONDS)
        self._seen: RootId | str | None = None
        self._asked: asyncio.Future[Found | str] | None = None

    async def look(self, patience: float) -> Found | str:
        """Which directory stands there now, or why none can be used. A disk that hangs is one."""
        if self._asked is None:
            self._asked = self.worker.run(self._find)
            await asyncio.wait([self._asked], timeout=patience)
        if not self._asked.done():
            self._seen = SILENT
            return SILENT
        found, self._asked = self._asked.result(), None
        self._seen = found if isinstance(found, str) else found.root
        return found

    def _find(self) -> Found | str:
        found = self.tree.find_root()
        return found if isinstance(found, str) else Found(found, mark_of(found))

    def judge(self, found: Found) -> Verdict:
        """What this directory is to the one that is known."""
        if self.known is None:
            return Verdict("same", "it was not there")
        # An unknown mount, as after a start, is no other one.
        mount = found.root.mount
        remounted = 0 not in {self.mount, mount} and self.mount != mount
        return judge(self.known, found.mark, remounted=remounted)

    @property
    def silent_for(self) -> float:
        """For how many seconds, at least, its file system has not answered; 0 while it does."""
        return self.tree.disk.looks.silent_for or (LATE_SECONDS if self.worker.is_late() else 0.0)

    @property
    def has_news(self) -> bool:
        """Its file system has ceased to answer, or does again, and that was not said yet."""
        return (self.tree.detection.silent_since is None) == (self.silent_for > 0)

    def put_off(self, seconds: float) -> None:
        """The next scan after so long, but no rarer than any tree is scanned."""
        self.pause = min(seconds, self.tree.watch.reconcile)
        self.scan_at = asyncio.get_running_loop().time() + self.pause

    @property
    def is_worth_a_scan(self) -> bool:
        """What the last one missed may be there again."""
        frozen = self.tree.detection.frozen is not None and not self.lost
        return frozen and asyncio.get_running_loop().time() >= self.scan_at

    def _is_another(self) -> bool:
        """Whether something else stands there than at the last look. Blocks."""
        return self.tree.find_root() != self._seen
