"""The folders of a tree that RustNotify has trouble with, for a watcher's process.

Its walk follows links, and ends in silence at the first folder that it cannot watch: one that may
not be read, say, as `lost+found`.
"""

import posix
from _stat import S_ISDIR

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

ADDED, DELETED = 1, 3
Changes = set[tuple[int, str]]


class Outdated(Exception):  # noqa: N818 - no error: the tree is another than the one watched
    """The watches do not fit the tree any more."""


class Folders:
    """What is known of a tree's links and of its closed folders.

    The kernel has one watch for a folder and all links to it: what happens in the folder is told of
    one of them, and when that link is removed, so is the watch. `_links`: where they lead, None if
    out of the tree. `_linked`: they, and the folders above them. `_unreadable`: not to be listed.
    `turn` is called at every folder of a long walk.
    """

    def __init__(self, root: str, turn: "Callable[[], object]") -> None:
        self._root = root
        self._turn = turn
        self._links: dict[str, str | None] = {}
        self._linked: set[str] = set()
        self._unreadable: set[str] = set()
        self._cut_short = False

    def survey(self, top: str) -> None:
        """Walk from this folder on, without a stat: the listing tells what is what."""
        waiting = [top]
        while waiting:
            folder = waiting.pop()
            self._turn()
            try:
                waiting += self._list(folder)
            except (FileNotFoundError, NotADirectoryError):
                continue
            except OSError:
                self._unreadable.add(folder)

    def routes(self) -> list[str]:
        """From where to walk, the root first, so that no walk has to come past what ends it."""
        passed = {self._root, *(up for path in self.obstacles for up in self._above(path))}
        routes = [self._root, *passed]
        for folder in passed:
            routes += [path for path in self._list(folder) if path not in passed]
        return [path for path in routes if path not in self._unreadable and _is_utf8(path)]

    @property
    def obstacles(self) -> set[str]:
        """Where a walk may end before its time: behind a link there may be anything."""
        return self._unreadable | self._links.keys()

    def straighten(self, paths: set[str]) -> set[str]:
        """The same paths, none of them through a link, without those that are out of the tree.

        The name of a link itself stays: with one rename a file stands where the link was.
        """
        if not self._links:
            return paths
        return {path for path in map(self._straight, paths) if path is not None}

    def grow(self, paths: "Iterable[str]") -> set[str]:
        """Survey the folders among these paths, which are new; the topmost of them."""
        new = {path for path in paths if _is_folder(path)}
        topmost = {path for path in new if path.rpartition("/")[0] not in new}
        for path in topmost:
            self.survey(path)
        unreadable = self._unreadable
        self._cut_short |= any(up in new for folder in unreadable for up in self._above(folder))
        return topmost

    def check(self, changes: Changes) -> None:
        """See whether the watches still fit.

        Raises:
            Outdated: they do not.
        """
        if not (self._links or self._unreadable):
            return
        if self._cut_short:
            raise Outdated("a new folder holds one that cannot be read")
        for kind, path in changes:
            if kind == DELETED and path in self._linked:
                raise Outdated("a link to a folder was removed, and the folder's watch with it")
            if path in self._unreadable and posix.access(path, posix.R_OK):
                raise Outdated("a folder can be read that could not be")

    def _list(self, folder: str) -> list[str]:
        """The folders in a folder. Its links to folders are noted down."""
        folders = []
        with posix.scandir(folder) as entries:
            for entry in entries:
                if entry.is_dir(follow_symlinks=False):
                    folders.append(entry.path)
                elif entry.is_symlink() and _is_folder(entry.path + "/"):
                    self._add_link(entry.path)
        return folders

    def _add_link(self, link: str) -> None:
        try:
            target, root = _real(link), _real(self._root)
        except OSError:
            # It has just gone: no reason to leave out what else is in its folder.
            return
        inside = (target + "/").startswith(root + "/")
        self._links[link] = self._root + target[len(root) :] if inside else None
        self._linked |= {link, *self._above(link)}

    def _above(self, path: str) -> "Iterator[str]":
        while len(path := path.rpartition("/")[0]) > len(self._root):
            yield path

    def _straight(self, path: str) -> str | None:
        at = path.find("/", len(self._root) + 1)
        while at >= 0:
            head = path[:at]
            if head in self._links:
                target = self._links[head]
                if target is None:
                    return None
                path, at = target + path[at:], len(target)
            at = path.find("/", at + 1)
        return path


def _is_folder(path: str) -> bool:
    """Whether a folder is there, and no link to one, unless a slash at the end asks for it."""
    try:
        return S_ISDIR(posix.lstat(path).st_mode)
    except OSError:
        return False


def _real(path: str) -> str:
    """The path without links, in the kernel's own words."""
    descriptor = posix.open(path, posix.O_PATH | posix.O_CLOEXEC)
    try:
        return posix.readlink(f"/proc/self/fd/{descriptor}")
    finally:
        posix.close(descriptor)


def spelled(folder: str) -> str:
    """A path of this folder that RustNotify can take: it knows UTF-8 only."""
    if _is_utf8(folder):
        return folder
    return f"/proc/self/fd/{posix.open(folder, posix.O_PATH | posix.O_DIRECTORY | posix.O_CLOEXEC)}"


def _is_utf8(path: str) -> bool:
    try:
        path.encode()
    except UnicodeEncodeError:
        return False
    return True
