"""Every error that treewarden raises on purpose, and the exit code that each one means.

    TreewardenError
    +-- ConfigError          78  the configuration cannot be used; carries every problem
    +-- StoreError
    |   +-- StoreUnavailable 74  the database cannot be read or written now; it may come back
    |   |   +-- StoreLost    74  another file, or none, stands where the open database was
    |   +-- StoreTooNew      78  the database was written by a newer treewarden
    |   +-- NoDatabase       69  there is no database: no daemon has run yet
    |   +-- NotPermitted     77  this user may not read the database, or ask the daemon
    +-- ServiceError         74  a folder, the log or another part of the system refuses
    +-- AlreadyRunning       75  another daemon holds this state folder
    +-- NotRunning           69  no daemon holds this state folder
    +-- TryLater             75  the daemon did not answer in time

An error says what failed, where, and what to do about it.
"""

import errno
from typing import NamedTuple

# Of these the machine has too few just now: it passes, and no file can be blamed for it.
SHORTAGE = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.ENOBUFS})
# These last until somebody changes a mode or a name, of which a hint tells. Any other may pass.
LASTING = frozenset({errno.EACCES, errno.EPERM, errno.ELOOP, errno.ENAMETOOLONG})


class TreewardenError(Exception):
    """The root of all of them; `exit_code` follows sysexits.h."""

    exit_code = 70


# The way to a key of the configuration, such as ("watch", 0, "settle", "quiet").
Location = tuple[str | int, ...]


class Problem(NamedTuple):
    """One thing that is wrong with a configuration or its surroundings."""

    file: str
    line: int | None
    key: str
    found: str
    remedy: str

    def __str__(self) -> str:
        where = self.file if self.line is None else f"{self.file}:{self.line}"
        key = f" {self.key}:" if self.key else ""
        return f"{where}:{key} {self.found}; {self.remedy}"


class ConfigError(TreewardenError):
    """The configuration cannot be used; `problems` holds all that was found, not only the first."""

    exit_code = 78

    def __init__(self, problems: list[Problem]) -> None:
        super().__init__("\n".join(map(str, problems)))
        self.problems = problems


class StoreError(TreewardenError):
    """Something about the database."""

    exit_code = 74


class StoreUnavailable(StoreError):  # noqa: N818 - a state of the store, and read as one
    """The database cannot be read or written now: locked, full, read-only, or an I/O error."""


class StoreLost(StoreUnavailable):
    """The file that was opened is not there any more, and will not come back to this process."""


class StoreTooNew(StoreError):  # noqa: N818 - as above
    """The database has a schema that this program does not know."""

    exit_code = 78


class NoDatabase(StoreError):  # noqa: N818 - as above
    """There is no database yet."""

    exit_code = 69


class NotPermitted(StoreError):  # noqa: N818 - as above
    """This user may not read the database, or write a request beside it."""

    exit_code = 77


class ServiceError(TreewardenError):
    """A folder, the log, or another part of the system that the daemon needs refuses."""

    exit_code = 74


class AlreadyRunning(TreewardenError):  # noqa: N818 - as above
    """Another daemon holds the state folder. `pid` is the holder's, 0 where it is unreadable."""

    exit_code = 75

    def __init__(self, message: str, pid: int) -> None:
        super().__init__(message)
        self.pid = pid


class NotRunning(TreewardenError):  # noqa: N818 - as above
    """No daemon holds the state folder, and what was asked for takes one."""

    exit_code = 69


class TryLater(TreewardenError):  # noqa: N818 - as above
    """The daemon did not answer in time; nothing is wrong with the question."""

    exit_code = 75
