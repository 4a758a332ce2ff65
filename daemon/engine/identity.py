"""Which directory a root is: while this process runs, and over restarts."""

import errno
import os
from pathlib import Path
from typing import NamedTuple

from daemon.core.removals import Mark
from daemon.core.texts import readable
from daemon.engine.births import born_ns, mount_id
from daemon.engine.filesystems import Mount, mount_of

_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")


class RootId(NamedTuple):
    """Which directory a root is while this process runs, whatever its path shows later.

    `mount` and `born` are 0 where the kernel or the file system does not know. Without `born` a
    directory that is made anew may well get the number of the one that was removed.
    """

    path: bytes
    dev: int
    ino: int
    mount: int = 0
    born: int = 0


def find_root(root: bytes) -> RootId | str:
    """Which directory stands at a path, or why none that can be read and entered. Blocks: 7 us."""
    # Past a link, which a root may have become: the end of the path is what it leads to.
    path = root + b"/"
    try:
        st = os.stat(path)  # noqa: PTH116 - a path of bytes
    except OSError as error:
        return f"{error.strerror}"
    if not os.access(path, os.R_OK | os.X_OK, effective_ids=True):
        return os.strerror(errno.EACCES)
    return RootId(root, st.st_dev, st.st_ino, mount_id(path) or 0, born_ns(path) or 0)


def mark_of(root: RootId) -> Mark:
    """What can be told of a root beyond this process, and beyond this run of the system. Blocks."""
    try:
        mount = mount_of(os.path.realpath(root.path))
        boot = _BOOT_ID.read_text(encoding="ascii").strip()
    except OSError:
        mount, boot = Mount(b"", "unknown"), ""
    return Mark(root.dev, root.ino, root.born, mount.kind, readable(mount.point), boot)
