"""Requests to the running daemon: files in a folder beside the database. Both of its ends.

A file that is there is asked for; one that is gone was taken up. Only the daemon's own user, and
root, may write into the folder.
"""

import os
import time
from pathlib import Path

import msgspec
from msgspec import Struct

from daemon.errors import NotPermitted, ServiceError

_FOLDER = "requests"
_SUFFIX = ".json"
_LONGEST = 65_536
_FLAGS = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC


class Request(Struct, frozen=True, forbid_unknown_fields=True):
    """Compare these watches with the disk, all of them if none is named.

    `confirm`: what is missing there was removed, so its files may go, however many they are.
    `archive`: the folders that stand where its files are taken are the right ones.
    """

    reconcile: list[str]
    confirm: bool = False
    archive: bool = False


def folder_of(state_dir: Path) -> Path:
    """Where requests to the daemon of this state folder go."""
    return state_dir / _FOLDER


def make_folder(state_dir: Path) -> None:
    """Make the folder, and clear away what a client left half written."""
    folder = folder_of(state_dir)
    folder.mkdir(mode=0o750, exist_ok=True)
    for path in folder.glob(f".*{_SUFFIX}"):
        path.unlink()


def send(state_dir: Path, request: Request) -> Path:
    """Ask, and return the file that is gone as soon as the daemon has taken it up.

    Raises:
        NotPermitted: this user may not ask.
        ServiceError: the folder takes no file.
    """
    # In the order of time, for the daemon takes them in the order of names.
    name = f"{time.time_ns()}-{os.getpid()}{_SUFFIX}"
    folder = folder_of(state_dir)
    unseen, path = folder / f".{name}", folder / name
    try:
        unseen.write_bytes(msgspec.json.encode(request))
        # Root may have written it, under whatever umask, and the daemon is another user.
        unseen.chmod(0o644)
        unseen.rename(path)
    except PermissionError as error:
        remedy = "ask as the user that the daemon runs as, or as root"
        raise NotPermitted(f"{folder} is not for this user to write; {remedy}") from error
    except OSError as error:
        remedy = "see to that folder; the daemon makes it at its start"
        raise ServiceError(f"{folder}: {error.strerror}; {remedy}") from error
    return path


def withdraw(path: Path) -> bool:
    """Take back what was asked for; False where it had been taken up just before."""
    try:
        path.unlink()
    except FileNotFoundError:
        return False
    return True


def is_asked(folder: Path) -> bool:
    """Whether anything is asked for.

    Raises:
        OSError: the folder cannot be read.
    """
    return bool(_names(folder))


def waiting(folder: Path) -> list[tuple[Path, Request | str]]:
    """What is asked for, first come first; where a file says nothing usable, why.

    Raises:
        OSError: the folder cannot be read.
    """
    paths = [folder / name for name in sorted(_names(folder))]
    return [(path, _read(path)) for path in paths]


def _names(folder: Path) -> list[str]:
    with os.scandir(folder) as entries:
        names = [entry.name for entry in entries]
    return [name for name in names if name.endswith(_SUFFIX) and not name.startswith(".")]


def _read(path: Path) -> Request | str:
    try:
        fd = os.open(path, _FLAGS)
    except OSError as error:
        return f"{error.strerror}"
    try:
        return msgspec.json.decode(os.read(fd, _LONGEST), type=Request)
    except OSError as error:
        return f"{error.strerror}"
    except msgspec.MsgspecError as error:
        return f"{error}"
    finally:
        os.close(fd)
