"""What names mean in a watched tree: which are files that it wants, which are signs for others.

For whoever explains a file as well, so nothing here waits, or needs a loop.
"""

from collections.abc import Callable

from daemon.config import Watch
from daemon.core.hidden import is_hidden
from daemon.core.manifest import Manifests
from daemon.core.markers import Marker
from daemon.core.policy import Matcher


class Names:
    """The policy of a watch as far as paths go, with everything computed once. `quiet`: in us.

    `wants(path)` is about files, as that of its `Matcher`, and leaves signs out: markers and
    manifests, which speak for others.
    """

    wants: Callable[[bytes], bool]

    def __init__(self, watch: Watch) -> None:
        settle = watch.settle
        self.watch = watch
        self.name = watch.name
        self.root = watch.root
        self.quiet = int(settle.quiet * 1_000_000)
        self.probe = settle.writers == "probe"
        # A file may have settled when a watcher first sees it.
        self.probes_at_once = self.probe and not self.quiet
        self.matcher = Matcher(watch.include, watch.exclude)
        self.marker = Marker(settle.marker) if settle.marker else None
        self.manifests = Manifests(settle.manifest) if settle.manifest else None
        self.has_signs = self.marker is not None or self.manifests is not None
        self.wants = self._wants if self.has_signs else self.matcher.wants

    def concerns(self, path: bytes) -> bool:
        """Files we want and their signs, and any folder: whether it is one, only a look can tell.

        Signs are let through though a pattern excludes them, unless it excludes their folder.
        """
        if is_hidden(path):
            return False
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
