"""A rename that never replaces: renameat2(2), which `os` does not offer, or what stands in."""

import ctypes
import errno
import os
from collections.abc import Callable

AT_FDCWD = -100
_NOREPLACE = 1
# An old kernel, or a file system that cannot be told not to replace.
_NO_SUCH_CALL = frozenset({errno.ENOSYS, errno.EINVAL})


def rename_new(
    name: bytes, target: bytes, folder: int = AT_FDCWD, target_folder: int = AT_FDCWD
) -> None:
    """Give a file another name, which must be free; each name below its folder.

    Raises:
        FileExistsError: it is not.
        OSError: whatever else rename(2) says.
    """
    code = _ask(folder, name, target_folder, target)
    if code in _NO_SUCH_CALL:
        _rename_reserved(name, target, folder, target_folder)
    elif code:
        raise OSError(code, os.strerror(code), target)


def _ask(folder: int, name: bytes, target_folder: int, target: bytes) -> int:
    if _renameat2 is None:
        return errno.ENOSYS
    failed = _renameat2(folder, name, target_folder, target, _NOREPLACE)
    return ctypes.get_errno() if failed else 0


def _rename_reserved(name: bytes, target: bytes, folder: int, target_folder: int) -> None:
    """The same where the kernel cannot: an empty file of ours keeps the name, and is replaced."""
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
    os.close(os.open(target, flags, 0o600, dir_fd=_or_none(target_folder)))
    try:
        os.rename(name, target, src_dir_fd=_or_none(folder), dst_dir_fd=_or_none(target_folder))
    except BaseException:
        os.unlink(target, dir_fd=_or_none(target_folder))
        raise


def _or_none(folder: int) -> int | None:
    return None if folder == AT_FDCWD else folder


def _find_renameat2() -> Callable[..., int] | None:
    """The C library's; None where it has none."""
    try:
        call = ctypes.CDLL(None, use_errno=True).renameat2
    except (AttributeError, OSError):
        return None
    call.restype = ctypes.c_int
    call.argtypes = (ctypes.c_int, ctypes.c_char_p, ctypes.c_int, ctypes.c_char_p, ctypes.c_uint)
    found: Callable[..., int] = call
    return found


_renameat2 = _find_renameat2()
