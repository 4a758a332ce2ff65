"""Starts programs the way that a step asks for: where, as whom, within which limits.

No shell and no function between fork and exec: limits, which `Popen` cannot set, are put on by
prlimit(1), which then becomes the program: one exec more, for who asks for limits.
"""

import errno
import math
import os
import pwd
import re
import signal
import subprocess
from contextlib import suppress
from typing import Any, Protocol

from daemon.config_program import Limits
from daemon.config_steps import ProgramStep
from daemon.errors import SHORTAGE
from daemon.handlers import Verdict
from daemon.handlers.spawning import Spawner

# systemd's private words to the daemon: a handler that used them would speak in its name. And what
# is ours to say, and not of every run: what the daemon itself was started with is not of them.
_PRIVATE = re.compile(
    rb"NOTIFY_SOCKET|WATCHDOG_USEC|WATCHDOG_PID|LISTEN_.*"
    rb"|TREEWARDEN_(?:PREVIOUS|RUN|COUNT|PATH|RELPATH|ATTEMPT|FILE_ID|VERSION|KEY)",
    re.DOTALL,
)
# By the interpreter; a program expects them as they are by default.
_IGNORED_BY_US = (signal.SIGPIPE, signal.SIGXFSZ)
_PRLIMIT = b"prlimit"
# What prlimit says, and how it ends, when it cannot become the program.
_ITS_WORDS = b"prlimit: "
_ITS_ENDS = frozenset({1, 126, 127})
# EAGAIN is what a process more than there may be gets.
TOO_FEW = SHORTAGE | {errno.EAGAIN}
# And these come of what the file's name makes of the arguments.
_OF_THE_FILE = frozenset({errno.E2BIG, errno.ENAMETOOLONG})


class HasStreams(Protocol):
    """The descriptors of what a program reads from and writes to."""

    stdin: int
    stdout: int
    stderr: int


class Launcher:
    """Starts the programs of one step. `program_varies`: which one depends on the file."""

    def __init__(self, step: ProgramStep, *, program_varies: bool = False) -> None:
        self._inherited = {k: v for k, v in os.environb.items() if not _PRIVATE.fullmatch(k)}
        self._options: dict[str, Any] = {"cwd": step.cwd and os.fspath(step.cwd)}
        self._user = step.user
        if step.user:
            self._become(pwd.getpwnam(step.user))
        self._inherited |= {os.fsencode(k): os.fsencode(v) for k, v in step.env.items()}
        self._prefix = _limiting(step.limits)
        self._nice = step.nice
        # What `posix_spawn` cannot do is done by `Popen`. It searches our PATH.
        self._spawner: Spawner | None = None
        if self._options == {"cwd": None} and "PATH" not in step.env:
            with suppress(NotImplementedError):
                self._spawner = Spawner(_IGNORED_BY_US, self._inherited)
        _seal()
        self._program_varies = program_varies

    def _become(self, user: pwd.struct_passwd) -> None:
        told = {"HOME": user.pw_dir, "USER": user.pw_name, "LOGNAME": user.pw_name}
        self._inherited |= {os.fsencode(k): os.fsencode(v) for k, v in told.items()}
        if user.pw_uid != os.geteuid():
            groups = os.getgrouplist(user.pw_name, user.pw_gid)
            self._options |= {"user": user.pw_uid, "group": user.pw_gid, "extra_groups": groups}

    @property
    def room(self) -> int:
        """How many bytes of arguments and variables a run may have beside what all runs have."""
        fixed = sum(len(k) + len(v) + 10 for k, v in self._inherited.items())
        return os.sysconf("SC_ARG_MAX") - fixed - sum(len(a) + 9 for a in self._prefix) - 8_192

    def start(self, argv: list[bytes], variables: dict[bytes, bytes], streams: HasStreams) -> int:
        """Start it as the leader of a session, and so of a group, of its own; its process id.

        May be called in a thread; it returns when the program is loaded.

        Raises:
            OSError, ValueError: it cannot be started; `judge` tells what that means.
        """
        argv = [*self._prefix, *argv]
        if self._spawner is None:
            pid = self._fork(argv, self._inherited | variables, streams)
        else:
            fds = (streams.stdin, streams.stdout, streams.stderr)
            pid = self._spawner.spawn(argv, variables, fds)
        if self._nice:
            # The whole group: what the program has started meanwhile is of it. `check` says
            # where a priority is not ours to give.
            with suppress(ProcessLookupError, PermissionError):
                os.setpriority(os.PRIO_PGRP, pid, self._nice)
        return pid

    def _fork(self, argv: list[bytes], environment: dict[bytes, bytes], streams: HasStreams) -> int:
        process = subprocess.Popen(
            argv,
            stdin=streams.stdin,
            stdout=streams.stdout,
            stderr=streams.stderr,
            start_new_session=True,
            env=environment,
            **self._options,
        )
        # Who has the number waits for it; the object would warn that it has not.
        process.returncode = 0
        return process.pid

    def judge(self, program: bytes, error: Exception) -> tuple[Verdict, str]:
        """What it means that a start failed: whose fault it is, and why."""
        started = self._prefix[0] if self._prefix else program
        said = f"cannot run {os.fsdecode(started)}: {_reason(started, error)}"
        if not isinstance(error, OSError):
            return "retry", said
        if error.errno in TOO_FEW:
            return "defer", said
        if error.errno in _OF_THE_FILE:
            return "retry", said
        # What failed before there was a program has no program's name.
        if error.filename != started and error.filename is not None:
            return "unavailable", f"cannot enter {self._options['cwd']}: {error.strerror}"
        if error.errno == errno.EPERM and "user" in self._options:
            return "unavailable", f"cannot become user {self._user}: {error.strerror}"
        return self.verdict_without_program, said

    @property
    def verdict_without_program(self) -> Verdict:
        """A program that is not there is not the file's fault, unless the file names it."""
        return "retry" if self._program_varies else "unavailable"

    def was_not_run(self, status: int, stderr: bytes) -> bool:
        """It ended so because the limits, or the program under them, could not be had."""
        return bool(self._prefix) and status in _ITS_ENDS and stderr.startswith(_ITS_WORDS)


def _seal() -> None:
    """See to it that no program inherits what we were started with: ours never are inherited."""
    with suppress(OSError):
        for fd in map(int, os.listdir("/proc/self/fd")):  # noqa: PTH208 - names, which are numbers
            with suppress(OSError):  # that of the listing itself is closed by now
                os.set_inheritable(fd, fd <= 2)  # noqa: PLR2004 - the standard streams


def _limiting(limits: Limits) -> tuple[bytes, ...]:
    options = []
    if limits.cpu is not None:
        # First the signal that says why, and one second later the one that cannot be ignored.
        seconds = math.ceil(limits.cpu)
        options.append(f"--cpu={seconds}:{seconds + 1}")
    if limits.memory is not None:
        options.append(f"--as={limits.memory}")
    if limits.files is not None:
        options.append(f"--nofile={limits.files}")
    return (_PRLIMIT, *(option.encode() for option in options)) if options else ()


def _reason(program: bytes, error: Exception) -> str:
    if isinstance(error, OSError) and error.strerror:
        if error.errno == errno.ENOENT and os.path.exists(program):  # noqa: PTH110 - bytes
            return "the interpreter that its first line names does not exist"
        if os.path.isdir(program):  # noqa: PTH112 - bytes
            return os.strerror(errno.EISDIR)
        return error.strerror
    return str(error) or repr(error)
