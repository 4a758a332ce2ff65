"""Which directory a root is: while this process runs, and over restarts."""

import errno
import os
from pathlib import Path
from typing import NamedTuple

from daemon.core.removals import UNKNOWN, Mark
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
    try:
        found = folder_id(root)
    except OSError as error:
        return f"{error.strerror}"
    if not os.access(root + b"/", os.R_OK | os.X_OK, effective_ids=True):
        return os.strerror(errno.EACCES)
    return found


def folder_id(path: bytes) -> RootId:
    """Which directory stands at a path, whether or not it can be read. Blocks.

    Raises:
        OSError: none does, or it cannot be told.
    """
    # Past a link, which it may have become: the end of the path is what it leads to.
    end = path + b"/"
    st = os.stat(end)  # noqa: PTH116 - a path of bytes
    return RootId(path, st.st_dev, st.st_ino, mount_id(end) or 0, born_ns(end) or 0)


def mark_of(root: RootId) -> Mark:
    """What can be told of a root beyond this process, and beyond this run of the system. Blocks."""
    try:
        mount = mount_of(os.path.realpath(root.path))
        boot = _BOOT_ID.read_text(encoding="ascii").strip()
        fsid = os.statvfs(root.path + b"/").f_fsid
    except OSError:
        mount, boot, fsid = Mount(b"", UNKNOWN), "", 0
    return Mark(root.dev, root.ino, root.born, mount.kind, readable(mount.point), boot, fsid)
