"""Which file system a path lies on, and whether the kernel reports changes on it."""

import re
from pathlib import Path
from typing import Literal, NamedTuple

# Others write to these without this kernel knowing: inotify sees our own changes only.
_REMOTE = frozenset(
    {"9p", "afs", "beegfs", "ceph", "cifs", "coda", "glusterfs", "gpfs", "lustre", "ncpfs", "nfs"}
    | {"nfs4", "ocfs2", "orangefs", "pvfs2", "smb3", "smbfs", "vboxsf", "virtiofs"}
)
_ESCAPE = re.compile(rb"\\([0-7]{3})")


class Mount(NamedTuple):
    """What holds a path: where it is mounted, and its type, such as `ext4`."""

    point: bytes
    kind: str


def mount_of(path: bytes, mountinfo: Path = Path("/proc/self/mountinfo")) -> Mount:
    """The mount that holds an absolute path; see proc(5).

    Raises:
        OSError: `/proc` cannot be read.
    """
    found, kind = b"", "unknown"
    for line in mountinfo.read_bytes().splitlines():
        before, _, after = line.partition(b" - ")
        point = _ESCAPE.sub(lambda m: bytes([int(m[1], 8)]), before.split(b" ")[4])
        # The last mount on a point hides those before it, so equal lengths go to the later line.
        if len(point) >= len(found) and _is_below(path, point):
            found, kind = point, after.split(b" ")[0].decode(errors="replace")
    return Mount(found, kind)


def file_system_of(path: bytes, mountinfo: Path = Path("/proc/self/mountinfo")) -> str:
    """The type of the file system that holds an absolute path.

    Raises:
        OSError: `/proc` cannot be read.
    """
    return mount_of(path, mountinfo).kind


def _is_below(path: bytes, point: bytes) -> bool:
    return path == point or path.startswith(point.rstrip(b"/") + b"/")


def is_remote(kind: str) -> bool:
    """Whether changes may come from elsewhere: network and FUSE file systems."""
    return kind in _REMOTE or kind.startswith("fuse")


def must_poll(mode: Literal["auto", "inotify", "poll"], path: bytes) -> bool:
    """Whether a watch is scanned at short intervals instead of being watched."""
    if mode != "auto":
        return mode == "poll"
    return is_remote(file_system_of(path))
