"""Opens the file that a job is about, and no other that somebody put in its place meanwhile.

A program that is told a path opens it by itself, and is not protected by this. What we open for a
handler, its standard input or the body of a request, is.
"""

import ctypes
import errno
import os
import stat
from collections.abc import Iterable
from functools import cache

from daemon.core.model import Fingerprint
from daemon.handlers import Job

_FLAGS = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOCTTY
_FOLDER = os.O_PATH | os.O_NOFOLLOW | os.O_DIRECTORY | os.O_CLOEXEC
# The same number on every architecture that Python runs on.
_OPENAT2 = 437
# RESOLVE_NO_SYMLINKS | RESOLVE_BENEATH; see openat2(2).
_RESOLVE = 0x04 | 0x08
# The kernel does not know the call, a sandbox forbids it, somebody renames all the while, or the
# path is longer than one call takes: then it is walked.
_WALK = frozenset({errno.ENOSYS, errno.EPERM, errno.EAGAIN, errno.ENAMETOOLONG})
_SYMLINK = frozenset({errno.ELOOP, errno.EXDEV})


class Replaced(Exception):  # noqa: N818 - what happened to the file, and read as that
    """Something else stands at the path than what the job was made for."""


class _How(ctypes.Structure):
    _fields_ = (
        ("flags", ctypes.c_uint64),
        ("mode", ctypes.c_uint64),
        ("resolve", ctypes.c_uint64),
    )


def open_seen(job: Job) -> int:
    """Open the file for reading, as it had settled; the descriptor is the caller's to close.

    No symbolic link below the root is followed, whichever component it is, only a regular file is
    opened, and inode, size and time must be those of `job.seen`. The device is not compared: its
    number is another after a remount, and nothing but a mount leads to another one. Blocks.

    Raises:
        Replaced: what stands there is not what has settled.
        OSError: the file cannot be opened, is not there any more for instance.
    """
    if job.seen is None:
        raise Replaced("there is no file any more: its removal is what is handled")
    root = job.path[: -len(job.file.path) - 1] or b"/"
    try:
        fd = _open_beneath(root, job.file.path)
    except OSError as error:
        if error.errno in _SYMLINK:
            raise Replaced("a symbolic link has taken the place of the file or a folder") from error
        raise
    try:
        _compare(os.fstat(fd), job.seen)
        os.set_blocking(fd, True)
    except BaseException:
        os.close(fd)
        raise
    return fd


def _open_beneath(root: bytes, path: bytes) -> int:
    # The root's own path is the operator's, and was resolved when the configuration was read.
    folder = os.open(root, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        return _openat2(folder, path)
    except OSError as error:
        if error.errno not in _WALK:
            raise
        return _walk(folder, path)
    finally:
        os.close(folder)


def _openat2(folder: int, path: bytes) -> int:
    how = _How(_FLAGS, 0, _RESOLVE)
    fd = int(_syscall()(_OPENAT2, folder, path, ctypes.byref(how), ctypes.sizeof(how)))
    if fd < 0:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code), path)
    return fd


@cache
def _syscall() -> "ctypes._NamedFuncPointer":
    call = ctypes.CDLL(None, use_errno=True).syscall
    call.restype = ctypes.c_long
    call.argtypes = (
        ctypes.c_long,
        ctypes.c_long,
        ctypes.c_char_p,
        ctypes.c_void_p,
        ctypes.c_size_t,
    )
    return call


def _walk(root: int, path: bytes) -> int:
    """The same, one component after the other, each from the folder before."""
    *folders, name = path.split(b"/")
    folder = open_folder(root, folders)
    try:
        return os.open(name, _FLAGS, dir_fd=folder)
    finally:
        os.close(folder)


def open_folder(root: int, parts: Iterable[bytes]) -> int:
    """Enter one folder after the other, from an open one, through no symbolic link.

    Raises:
        OSError: one cannot be entered; ELOOP for a link.
    """
    folder = os.dup(root)
    try:
        for part in parts:
            inner = _enter(folder, part)
            os.close(folder)
            folder = inner
    except BaseException:
        os.close(folder)
        raise
    return folder


def _enter(folder: int, name: bytes) -> int:
    if name == b"..":  # what RESOLVE_BENEATH says of it, where it would lead out
        raise OSError(errno.EXDEV, os.strerror(errno.EXDEV), name)
    try:
        return os.open(name, _FOLDER, dir_fd=folder)
    except NotADirectoryError:
        # O_DIRECTORY | O_NOFOLLOW says the same of a symbolic link, which is another story.
        if stat.S_ISLNK(os.stat(name, dir_fd=folder, follow_symlinks=False).st_mode):
            raise OSError(errno.ELOOP, os.strerror(errno.ELOOP), name) from None
        raise


def _compare(st: os.stat_result, seen: Fingerprint) -> None:
    if not stat.S_ISREG(st.st_mode):
        raise Replaced("what stands there now is not a regular file")
    if not is_same(st, seen):
        raise Replaced("the file is not the one that has settled, or was changed since")


def is_same(st: os.stat_result, seen: Fingerprint) -> bool:
    """It is the very file that was seen, and holds the same."""
    return is_copy(st, seen) and not (st.st_ino - seen.ino) % 2**64


def is_copy(st: os.stat_result, seen: Fingerprint) -> bool:
    """It holds the same, as far as a size and a time can tell, in whichever file."""
    # Modulo: the database holds 64 bits with a sign, and some file systems use all of them.
    pairs = ((st.st_size, seen.size), (st.st_mtime_ns, seen.mtime_ns))
    return stat.S_ISREG(st.st_mode) and not any((now - then) % 2**64 for now, then in pairs)
