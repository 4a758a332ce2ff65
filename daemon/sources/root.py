"""One tree's root: which directory stands there, and what that is to the one that is known."""

import asyncio
from functools import partial

from daemon.core.removals import Mark, Verdict, judge
from daemon.engine.identity import RootId, mark_of
from daemon.engine.lookout import Lookout
from daemon.engine.trees import Tree

CHECK_SECONDS = 1.0
# A file system that does not answer for so long is as good as away.
ANSWER_SECONDS = 30.0


class Root:
    """One tree's root: what it is known to be, and what may have come of it.

    `known` is what the database remembers, and `mount` the mount that it is on while this process
    runs. `lost`: that was said, and not yet that it is back; what stands there meanwhile, if
    anything does, is watched, but not trusted. `confirmed`: an operator did, for one scan.
    `pause` and `scan_at`: while the share has frozen it, when it is worth another scan.
    """

    def __init__(self, tree: Tree) -> None:
        self.tree = tree
        self.known: Mark | None = None
        self.mount = 0
        self.lost = False
        self.confirmed = False
        self.pause = self.scan_at = 0.0
        self.lock = asyncio.Lock()
        self.worker = Lookout(f"root-{tree.name}", self._is_another, CHECK_SECONDS)
        self._seen: RootId | str | None = None
        self._asked: asyncio.Future[RootId | str] | None = None

    async def look(self) -> RootId | str:
        """Which directory stands there now, or why none can be used. A disk that hangs is one."""
        if self._asked is None:
            self._asked = self.worker.run(self.tree.find_root)
            await asyncio.wait([self._asked], timeout=ANSWER_SECONDS)
        if self._asked.done():
            self._seen, self._asked = self._asked.result(), None
        else:
            self._seen = "its file system does not answer"
        return self._seen

    async def judge(self, found: RootId) -> Verdict:
        """What this directory is to the one that is known."""
        if self.known is None:
            return Verdict("same", "it was not there")
        # An unknown mount, as after a start, is no other one.
        remounted = 0 not in {self.mount, found.mount} and self.mount != found.mount
        return judge(self.known, await self.mark(found), remounted=remounted)

    async def mark(self, found: RootId) -> Mark:
        """What can be remembered of it."""
        return await self.worker.run(partial(mark_of, found))

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
