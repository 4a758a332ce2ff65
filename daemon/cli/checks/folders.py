"""The daemon's own folders: may it write there, is there room, and does the file system do."""

import os
import stat
from collections.abc import Iterator
from pathlib import Path

from daemon.cli.checks import Finding, quoted
from daemon.core.archives import strangeness
from daemon.core.removals import PASSING, Mark
from daemon.engine.disk import fingerprint
from daemon.engine.filesystems import file_system_of, is_remote
from daemon.engine.identity import folder_id, mark_of
from daemon.engine.sight import is_closed
from daemon.errors import NoDatabase, StoreError
from daemon.handlers.record import NAME as RECORD
from daemon.locate import DATABASE, LOCK
from daemon.store.inspect import inspect

_LEAST_FREE = 100 << 20
_OWN_FILES = (DATABASE, f"{DATABASE}-wal", f"{DATABASE}-shm", LOCK, RECORD)


def examine_state(folder: Path) -> Iterator[Finding]:
    """The state folder, what is in it, and what is under it."""
    writable = examine_writable("daemon.state_dir", folder)
    yield writable
    yield from _foreign_files(folder)
    yield _file_system(folder)
    yield _space(folder)
    if writable.level == "ok":
        yield _lease(nearest(folder))
    yield _database(folder)


def examine_writable(what: str, folder: Path) -> Finding:
    """Whether files can be made in a folder, or the folder itself can."""
    there = nearest(folder)
    absent = "" if there == folder else ", to be made"
    if reason := missing(there):
        return Finding("error", what, reason, "name a folder")
    if not may(there, os.W_OK | os.X_OK):
        detail = f"{quoted(folder)}{absent}: {quoted(there)} cannot be written by this user"
        return Finding("error", what, detail, "let the daemon's user own it, or name another")
    return Finding("ok", what, f"{quoted(folder)}{absent or ', writable'}")


def examine_base(what: str, base: Path, known: Mark | None, folder: Path | None = None) -> Finding:
    """Whether files can be taken to a folder, which may be one below the base, yet to be made.

    `known`: what is on record of the base, if it is.
    """
    if reason := missing(base):
        return Finding(
            "error", what, f"{reason}: files stay until there is", "make it, or mount it"
        )
    if known is not None and (strange := strangeness(known, mark_of(folder_id(bytes(base))))):
        detail = f"{quoted(base)} is not the archive that is known: {strange}: files stay"
        remedy = "mount it, or have it taken for right: treewarden reconcile --confirm-archive"
        return Finding("error", what, detail, remedy)
    return examine_writable(what, folder or base)


def nearest(path: Path) -> Path:
    """The path itself, or the first above it that is there."""
    while not os.path.lexists(path) and path != path.parent:
        path = path.parent
    return path


def missing(folder: Path) -> str | None:
    """Why there is no folder to put anything into; None where there is one.

    `Path.is_dir` and `Path.exists` raise where a folder above may not be entered.
    """
    try:
        mode = folder.stat().st_mode
    except (FileNotFoundError, NotADirectoryError):
        return f"there is no folder {quoted(folder)}"
    except OSError as error:
        return f"{quoted(folder)} cannot be looked at: {error.strerror}"
    return None if stat.S_ISDIR(mode) else f"{quoted(folder)} is not a folder"


def may(path: Path, mode: int) -> bool:
    """What the kernel would allow the effective user; a read-only file system counts as well."""
    return os.access(path, mode, effective_ids=True)


def _foreign_files(folder: Path) -> Iterator[Finding]:
    """A daemon that once ran as another user leaves files that this one cannot write."""
    for name in _OWN_FILES:
        path = folder / name
        if may(path, os.F_OK) and not may(path, os.R_OK | os.W_OK):
            detail = f"{quoted(path)} cannot be written by this user"
            remedy = "give it to the daemon's user with chown"
            yield Finding("error", "daemon.state_dir", detail, remedy)


def _file_system(folder: Path) -> Finding:
    what = "daemon.state_dir.filesystem"
    try:
        kind = file_system_of(os.fsencode(nearest(folder)))
    except OSError as error:
        return Finding("warning", what, f"not known: {error.strerror}", "mount /proc")
    if is_remote(kind):
        detail = f"{kind}: SQLite's write-ahead log is not safe on it"
        remedy = "put state_dir on a local disk"
        return Finding("warning" if kind.startswith("fuse") else "error", what, detail, remedy)
    if kind in PASSING:
        detail = f"{kind}: the state is lost when the machine restarts"
        return Finding("warning", what, detail, "put state_dir on a disk")
    return Finding("ok", what, kind)


def _space(folder: Path) -> Finding:
    what = "daemon.state_dir.space"
    try:
        disk = os.statvfs(nearest(folder))
    except OSError as error:
        return Finding("warning", what, f"not known: {error.strerror}", "see to that folder")
    free = disk.f_bavail * disk.f_frsize
    detail = f"{free >> 20} MiB free"
    if free < _LEAST_FREE:
        remedy = f"leave at least {_LEAST_FREE >> 20} MiB: a full disk stops the work"
        return Finding("warning", what, detail, remedy)
    return Finding("ok", what, detail)


def _lease(folder: Path) -> Finding:
    """Try it for real on a file of our own, made for that and gone again."""
    what = "daemon.state_dir.lease"
    try:
        written, closed = _leases(folder / f".treewarden-{os.urandom(8).hex()}")
    except OSError as error:
        return Finding("error", what, f"no file can be made: {error.strerror}", "see to that disk")
    if (written, closed) == (False, True):
        return Finding("ok", what, "a read lease tells a file that is being written")
    detail = "no read leases here: a file counts as complete by its quiet time alone"
    return Finding("ok", what, detail)


def _leases(path: Path) -> tuple[bool | None, bool | None]:
    """What the probe says of a file while it is written, and after."""
    name = os.fsencode(path)
    try:
        with path.open("xb") as file:
            written = is_closed(name, fingerprint(os.fstat(file.fileno())))
        return written, is_closed(name, fingerprint(path.lstat()))
    finally:
        path.unlink(missing_ok=True)


def _database(folder: Path) -> Finding:
    what = "database"
    try:
        with inspect(folder / DATABASE) as answers:
            return Finding("ok", what, f"schema {answers.schema()}")
    except NoDatabase:
        return Finding("ok", what, "none yet: the first start makes it")
    except StoreError as error:
        detail, _, remedy = str(error).partition("; ")
        return Finding("error", what, detail, remedy or None)
