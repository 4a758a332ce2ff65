"""When a file was born, and on which mount a path lies: statx(2), which `os` does not offer.

2 us a call through ctypes. Where the C library, the kernel or the file system does not know, and on
any error, the answer is None.
"""

import ctypes
import os
import struct
from collections.abc import Callable
from typing import cast

_AT_FDCWD = -100
_AT_EMPTY_PATH = 0x1000
_AT_SYMLINK_NOFOLLOW = 0x100
# stat(2) implies it, statx(2) does not: to look must not mount anything.
_AT_NO_AUTOMOUNT = 0x800
_INO = 0x100
_BTIME = 0x800
# The plain id of a mount goes to the next one that is made after an umount, and so do device and
# inode of a tmpfs: seen on Linux 6.18. The unique id is known from Linux 6.8 on, and wins when both
# are asked for; both are in the same place.
_MNT_ID = 0x1000
_MNT_ID_UNIQUE = 0x4000
# `struct statx` of <linux/stat.h>: the same layout on every architecture.
_SIZE = 256
_MASK_AT = 0
_INO_AT = 32
_BTIME_AT = 80
_DEV_AT = 136
_MNT_ID_AT = 144

Statx = Callable[[int, bytes, int, int, ctypes.Array[ctypes.c_char]], int]


def find_function(name: str) -> Statx | None:
    """A function of the C library; None where this one has none of that name."""
    try:
        found = getattr(ctypes.CDLL(None), name)
    except (AttributeError, OSError):
        return None
    found.argtypes = (ctypes.c_int, ctypes.c_char_p, ctypes.c_int, ctypes.c_uint, ctypes.c_void_p)
    found.restype = ctypes.c_int
    return cast("Statx", found)


_statx = find_function("statx")
_Buffer = ctypes.c_char * _SIZE


def born_ns(path: bytes) -> int | None:
    """When the file at this path was made; a symlink's own time. Blocks."""
    found = _ask(path, _AT_SYMLINK_NOFOLLOW, _BTIME)
    return None if found is None else _born(found) or None


def identity_of(fd: int) -> tuple[int, int, int]:
    """Device, inode and birth of what is open: 0 for that where nobody knows. Blocks.

    Raises:
        OSError: it cannot be told.
    """
    found = _ask(b"", _AT_EMPTY_PATH, _INO | _BTIME, fd)
    if found is None:
        st = os.fstat(fd)
        return st.st_dev, st.st_ino, 0
    (ino,) = struct.unpack_from("=Q", found, _INO_AT)
    is_born = struct.unpack_from("=I", found, _MASK_AT)[0] & _BTIME
    dev = os.makedev(*struct.unpack_from("=II", found, _DEV_AT))
    return dev, ino, _born(found) if is_born else 0


def _born(found: ctypes.Array[ctypes.c_char]) -> int:
    """Zero is what an inode holds that was written without a birth time."""
    seconds, nanoseconds = struct.unpack_from("=qI", found, _BTIME_AT)
    return cast("int", seconds * 1_000_000_000 + nanoseconds)


def mount_id(path: bytes) -> int | None:
    """Which mount a path lies on, symlinks followed as by `os.stat`. Blocks.

    Two ids may be compared while this system runs; after a restart they mean nothing.
    """
    found = _ask(path, 0, _MNT_ID | _MNT_ID_UNIQUE)
    return None if found is None else cast("int", struct.unpack_from("=Q", found, _MNT_ID_AT)[0])


def _ask(
    path: bytes, flags: int, mask: int, folder: int = _AT_FDCWD
) -> ctypes.Array[ctypes.c_char] | None:
    """The filled structure, if it holds any of what `mask` asks for."""
    found = _Buffer()
    if _statx is None or _statx(folder, path, flags | _AT_NO_AUTOMOUNT, mask, found):
        return None
    return found if struct.unpack_from("=I", found, _MASK_AT)[0] & mask else None
