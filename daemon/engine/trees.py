"""One watched tree as the engine sees it: its policy with everything computed once."""

import asyncio

from daemon.config import Step, Watch
from daemon.core.policy import Matcher
from daemon.engine.detection import Detection
from daemon.engine.identity import RootId, find_root


class Tree:
    """A watch at run time. Durations in microseconds."""

    def __init__(self, watch: Watch) -> None:
        self.watch = watch
        self.name = watch.name
        self.root = watch.root
        self.steps = watch.step_names
        self.quiet = int(watch.settle.quiet * 1_000_000)
        self.probe = watch.settle.writers == "probe"
        self.matcher = Matcher(watch.include, watch.exclude)
        self.root_id: RootId | None = None
        # Others write to it from elsewhere: their clock sets the times, and no lease knows of them.
        self.remote = False
        # Files that the kernel last touched before this moment are adopted, not processed.
        self.adopt_before = 0
        self.detection = Detection()
        # Set while a directory stands at the root's path that can be watched.
        self.rooted = asyncio.Event()
        # Set when it is another than the one that is being watched: the watcher begins anew.
        self.rerooted = asyncio.Event()
        self._step = {step.name: step for step in watch.step}

    def step(self, name: str | None) -> Step | None:
        """The configuration of a step; None for one that is no longer configured."""
        return self._step.get(name or "")

    def absolute(self, path: bytes) -> bytes:
        """A path below the root as the kernel takes it."""
        return self.root + b"/" + path if path else self.root

    def relative(self, absolute: bytes) -> bytes | None:
        """The path below the root; None for the root itself and for what lies elsewhere."""
        if not absolute.startswith(self.root + b"/"):
            return None
        return absolute[len(self.root) + 1 :]

    def identify_root(self) -> RootId | None:
        """Which directory stands at the root's path now; None where none can be used. Blocks."""
        found = self.find_root()
        return found if isinstance(found, RootId) else None

    def find_root(self) -> RootId | str:
        """The same, or the system's words for why it cannot be read and entered. Blocks."""
        return find_root(self.root)
