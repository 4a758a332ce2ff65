"""One watched tree as the engine sees it: its policy with everything computed once."""

import asyncio
from collections.abc import Callable

from daemon.config import Watch
from daemon.config_steps import Step
from daemon.core.manifest import Manifests
from daemon.core.markers import Marker
from daemon.core.policy import Matcher
from daemon.engine.detection import Detection
from daemon.engine.identity import RootId, find_root


class Tree:
    """A watch at run time. Durations in microseconds.

    `wants(path)` is about files, as that of its `Matcher`, and leaves signs out: markers and
    manifests, which speak for others. `is_plain`: no file waits for anything beside itself.
    """

    wants: Callable[[bytes], bool]

    def __init__(self, watch: Watch) -> None:
        self.watch = watch
        self.name = watch.name
        self.root = watch.root
        self.steps = watch.step_names
        self.quiet = int(watch.settle.quiet * 1_000_000)
        self.probe = watch.settle.writers == "probe"
        self.matcher = Matcher(watch.include, watch.exclude)
        settle = watch.settle
        self.marker = Marker(settle.marker) if settle.marker else None
        self.manifests = Manifests(settle.manifest) if settle.manifest else None
        self.by_content = watch.identity == "content"
        has_signs = self.marker is not None or self.manifests is not None
        self.is_plain = not has_signs and not self.by_content
        self.wants = self._wants if has_signs else self.matcher.wants
        # Cleared while so many digests wait that a scan is not to bring more.
        self.room = asyncio.Event()
        self.room.set()
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

    def concerns(self, path: bytes) -> bool:
        """Files we want and their signs, and any folder: whether it is one, only a look can tell.

        Signs are let through though a pattern excludes them, unless it excludes their folder.
        """
        if self.matcher.wants(path) or self.matcher.enters(path):
            return True
        return self.is_sign(path) and self.matcher.enters(path.rpartition(b"/")[0])

    def is_sign(self, path: bytes) -> bool:
        """Whether a file of this name speaks for others, and is none to its watch."""
        return self.is_marker(path) or self.is_manifest(path)

    def is_marker(self, path: bytes) -> bool:
        """Whether this is the name of a marker."""
        return self.marker is not None and self.marker.is_marker(path)

    def is_manifest(self, path: bytes) -> bool:
        """Whether this is the name of a manifest. A name that fits both patterns is a marker."""
        is_one = self.manifests is not None and self.manifests.is_manifest(path)
        return is_one and not self.is_marker(path)

    def marker_of(self, path: bytes) -> bytes | None:
        """Where the kernel finds the marker that a file waits for, if its watch asks for one."""
        if self.marker is None or self.marker.is_marker(path):
            return None
        return self.absolute(self.marker.marker_of(path))

    def _wants(self, path: bytes) -> bool:
        return self.matcher.wants(path) and not self.is_sign(path)

    def absolute(self, path: bytes) -> bytes:
        """A path below the root as the kernel takes it."""
        return self.root + b"/" + path if path else self.root

    def identify_root(self) -> RootId | None:
        """Which directory stands at the root's path now; None where none can be used. Blocks."""
        found = self.find_root()
        return found if isinstance(found, RootId) else None

    def find_root(self) -> RootId | str:
        """The same, or the system's words for why it cannot be read and entered. Blocks."""
        return find_root(self.root)
