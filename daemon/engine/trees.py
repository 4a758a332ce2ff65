"""One watched tree as the engine sees it: its policy with everything computed once."""

import asyncio

from daemon.config import Watch
from daemon.config_steps import Step
from daemon.core.policy import Ranks
from daemon.engine.asking import Disk
from daemon.engine.detection import Detection
from daemon.engine.identity import RootId, find_root
from daemon.engine.names import Names


class Tree(Names):
    """A watch at run time. `is_plain`: no file waits for anything beside itself."""

    def __init__(self, watch: Watch) -> None:
        super().__init__(watch)
        self.steps = watch.step_names
        urgencies = [(each.patterns, each.priority) for each in watch.priorities]
        self.ranks = Ranks(watch.priority, urgencies)
        self.rank = self.ranks.of
        self.removal_steps = tuple(step.name for step in watch.removed)
        self.by_content = watch.identity == "content"
        self.disk = Disk(watch.name)
        self.is_plain = not self.has_signs and not self.by_content
        # Cleared while so many digests wait that a scan is not to bring more.
        self.room = asyncio.Event()
        self.room.set()
        self.root_id: RootId | None = None
        # Others write to it from elsewhere: their clock sets the times, and no lease knows of them.
        self.remote = False
        # Files that the kernel last touched before this moment are adopted, not processed.
        self.adopt_before = 0
        self.detection = Detection()
        # How many watchers have been in place.
        self.watchers = 0
        # Set while a directory stands at the root's path that can be watched.
        self.rooted = asyncio.Event()
        # Set when it is another than the one that is being watched: the watcher begins anew.
        self.rerooted = asyncio.Event()
        # Set while its file system does not answer, as far as that was said.
        self.silent = asyncio.Event()
        # Set when a file was quarantined; and what is being taken out of the tree for that.
        self.quarantined = asyncio.Event()
        self.taking: set[bytes] = set()
        self._step = {step.name: step for step in watch.all_steps}

    def step(self, name: str | None) -> Step | None:
        """The configuration of a step; None for one that is no longer configured."""
        return self._step.get(name or "")

    async def identify_root(self) -> RootId | None:
        """Which directory stands at the root's path now; None where none can be used.

        Raises:
            NoAnswer: its file system does not say.
        """
        found = await self.disk.looks.run(self.find_root)
        return found if isinstance(found, RootId) else None

    def find_root(self) -> RootId | str:
        """The same, or the system's words for why it cannot be read and entered. Blocks."""
        return find_root(self.root)
