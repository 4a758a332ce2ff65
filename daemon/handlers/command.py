"""The `command` handler: one program, run once for each file.

argv without a shell, in a process group of its own, so that an end reaches everything the program
started. The exit status is the verdict: 0 success, 65 never (`EX_DATAERR`), anything else later.
"""

import asyncio
import errno
import os
import re
import signal
import subprocess
import sys
import time
from contextlib import suppress

from daemon.handlers import Job, Outcome, Verdict

_REJECTED = 65
_KEPT = 4096
# How long the end of stderr may lag behind the end of the program: a grandchild that inherited
# it may hold it open for ever.
_GRACE = 0.1
# systemd's private words to the daemon: a handler that used them would speak in its name. And what
# only some jobs have: what the daemon itself was started with is not of them.
_PRIVATE = re.compile(
    rb"NOTIFY_SOCKET|WATCHDOG_USEC|WATCHDOG_PID|LISTEN_.*|TREEWARDEN_PREVIOUS", re.DOTALL
)
_FIELDS = ("path", "relpath", "name", "watch", "step")
_TOKEN = re.compile(r"\{\{|\}\}|\{(\w+)\}|[{}%]|\0")


# Of these the machine has too few just now: nothing that the file could be blamed for.
_SHORTAGE = frozenset({errno.EAGAIN, errno.EMFILE, errno.ENFILE, errno.ENOMEM})


class CommandHandler:
    """Runs `command` for each job; `timeout` and `kill_after` are seconds.

    `{path}`, `{relpath}`, `{name}`, `{watch}` and `{step}` are replaced inside an argument, which
    is never split; `{{` and `}}` are braces. Any other brace raises `ValueError`.
    """

    def __init__(self, command: tuple[str, ...], *, timeout: float, kill_after: float) -> None:
        if not command:
            raise ValueError("a command needs at least the name of a program")
        self._templates = tuple(map(_template, command))
        self._inherited = {k: v for k, v in os.environb.items() if not _PRIVATE.fullmatch(k)}
        self._timeout = timeout
        self._kill_after = kill_after

    async def run(self, job: Job) -> Outcome:
        """Run the program on one file, and see it, and its whole group when cut short, to the end.

        Cancelling sends TERM, and KILL after `kill_after`; cancelling again sends KILL at once.
        """
        began = time.monotonic()
        fields = _fields(job)
        argv = [template % fields for template in self._templates]
        process = _Process(self._timeout, self._kill_after)
        life = asyncio.create_task(process.live(argv, self._inherited | _environment(job)))
        await _outlast(life, process)
        verdict, error = life.result()
        return Outcome(verdict, error, round((time.monotonic() - began) * 1000, 3))

    async def close(self) -> None:
        """See `Handler`. Between jobs there is nothing."""


def install_child_watcher() -> None:
    """Let Python 3.11 wait for children as later versions do: by pidfd, without a thread for each.

    Measured with /bin/true, two at once: 1,650 starts/s against 1,200. Without pidfds (an old
    kernel, or a Python built for one) the threads stay. From 3.12 on there is nothing to install.
    """
    if sys.version_info >= (3, 12):
        return
    with suppress(AttributeError, OSError):
        os.close(os.pidfd_open(os.getpid()))
        asyncio.set_child_watcher(asyncio.PidfdChildWatcher())


class _Process(asyncio.SubprocessProtocol):
    """One run of the program. Every reason to end it is a push: the first TERM, the next KILL."""

    def __init__(self, timeout: float, kill_after: float) -> None:
        self._timeout = timeout
        self._kill_after = kill_after
        self._loop = asyncio.get_running_loop()
        self._exited = asyncio.Event()
        self._drained = asyncio.Event()
        self._tail = bytearray()
        self._group: int | None = None
        self._alarm: asyncio.TimerHandle | None = None
        self._pushes = 0
        self._timed_out = False

    async def live(
        self, argv: list[bytes], environment: dict[bytes, bytes]
    ) -> tuple[Verdict, str | None]:
        """Start the program, wait for its end, and judge it."""
        try:
            transport = await self._start(argv, environment)
        except Exception as error:  # noqa: BLE001 - the protocol lets nothing escape, and whatever kept the program from starting is news about this file, not the daemon's end
            short = isinstance(error, OSError) and error.errno in _SHORTAGE
            return "defer" if short else "retry", _cannot_run(argv[0], error)
        try:
            await self._exited.wait()
            if not self._drained.is_set():
                await self._end_of_stderr()
        finally:
            transport.close()  # kills what still runs, which only a loop torn down leaves so
            await self._drained.wait()  # only now is the descriptor of the pipe closed
            await self._exited.wait()
        return self._verdict(transport.get_returncode())

    def end(self) -> None:
        """Ask the group to end, and force it after `kill_after`; called again, force it now."""
        self._pushes += 1
        if self._group is not None:
            self._push()

    async def _start(
        self, argv: list[bytes], environment: dict[bytes, bytes]
    ) -> asyncio.SubprocessTransport:
        transport, _ = await self._loop.subprocess_exec(
            lambda: self,
            *argv,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            start_new_session=True,
            env=environment,
        )
        return transport

    async def _end_of_stderr(self) -> None:
        with suppress(TimeoutError):
            async with asyncio.timeout(_GRACE):
                await self._drained.wait()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.SubprocessTransport)  # noqa: S101 - for mypy
        self._group = transport.get_pid()
        self._alarm = self._loop.call_later(self._timeout, self._expire)
        if self._pushes:  # cancelled between fork and here
            self._push()

    def pipe_data_received(self, fd: int, data: bytes) -> None:  # noqa: ARG002 - only stderr is a pipe
        self._tail += data[-_KEPT:]
        del self._tail[:-_KEPT]

    def pipe_connection_lost(self, fd: int, exc: Exception | None) -> None:  # noqa: ARG002
        self._drained.set()

    def process_exited(self) -> None:
        self._disarm()
        if self._pushes:  # whoever of the group is still there outlived its leader's TERM
            self._signal(signal.SIGKILL)
        # The leader was reaped a few turns of the loop ago: its number is free once its group is
        # empty, and from here on never signalled again.
        self._group = None
        self._exited.set()

    def _expire(self) -> None:
        self._timed_out = True
        self.end()

    def _push(self) -> None:
        self._disarm()
        if self._pushes == 1:
            self._signal(signal.SIGTERM)
            self._alarm = self._loop.call_later(self._kill_after, self.end)
        else:
            self._signal(signal.SIGKILL)

    def _disarm(self) -> None:
        if self._alarm is not None:
            self._alarm.cancel()

    def _signal(self, number: signal.Signals) -> None:
        # The group may have emptied itself, or hold only programs that became another user's.
        with suppress(ProcessLookupError, PermissionError):
            if self._group is not None:
                os.killpg(self._group, number)

    def _verdict(self, status: int | None) -> tuple[Verdict, str | None]:
        if self._timed_out:
            return "retry", self._said(f"timed out after {self._timeout:g}s")
        if status == 0:
            return "success", None
        return "reject" if status == _REJECTED else "retry", self._said(_how_it_ended(status))

    def _said(self, what: str) -> str:
        tail = _text(bytes(self._tail))
        return f"{what}: {tail}" if tail else what


async def _outlast(life: asyncio.Task[tuple[Verdict, str | None]], process: _Process) -> None:
    # The life itself is never cancelled: a program half started would be left without a guardian.
    try:
        await asyncio.wait((life,))
    except asyncio.CancelledError:
        process.end()
        await _outlast(life, process)
        raise


def _template(argument: str) -> bytes:
    """Compile an argument to a bytes format: `--in={path}` becomes `--in=%(path)b`."""

    def piece(token: re.Match[str]) -> str:
        if token[1] in _FIELDS:
            return f"%({token[1]})b"
        if token[0] in {"{{", "}}", "%"}:
            return "%%" if token[0] == "%" else token[0][0]
        known = ", ".join(f"{{{field}}}" for field in _FIELDS)
        raise ValueError(f"{argument!r}: {token[0]!r} is none of {known}, {{{{, }}}}")

    return os.fsencode(_TOKEN.sub(piece, argument))


def _fields(job: Job) -> dict[bytes, bytes]:
    return {
        b"path": job.path,
        b"relpath": job.file.path,
        b"name": job.file.name,
        b"watch": os.fsencode(job.file.watch),
        b"step": os.fsencode(job.step),
    }


def _environment(job: Job) -> dict[bytes, bytes]:
    previous = {b"TREEWARDEN_PREVIOUS": os.fsencode(job.previous)} if job.previous else {}
    return {
        **previous,
        b"TREEWARDEN_PATH": job.path,
        b"TREEWARDEN_RELPATH": job.file.path,
        b"TREEWARDEN_WATCH": os.fsencode(job.file.watch),
        b"TREEWARDEN_STEP": os.fsencode(job.step),
        b"TREEWARDEN_ATTEMPT": b"%d" % job.attempt,
        b"TREEWARDEN_FILE_ID": b"%d" % job.file_id,
        b"TREEWARDEN_VERSION": b"%d" % job.version,
        b"TREEWARDEN_KEY": os.fsencode(job.idempotency_key),
    }


def _cannot_run(program: bytes, error: Exception) -> str:
    reason = str(error) or repr(error)
    if isinstance(error, OSError) and error.strerror:
        reason = error.strerror
        if error.errno == errno.ENOENT and os.path.exists(program):  # noqa: PTH110 - bytes
            reason = "the interpreter that its first line names does not exist"
        elif os.path.isdir(program):  # noqa: PTH112 - bytes
            reason = os.strerror(errno.EISDIR)
    return f"cannot run {_text(program)}: {reason}"


def _how_it_ended(status: int | None) -> str:
    if status is None or status >= 0:
        return f"exit status {status}"
    with suppress(ValueError):  # a real-time signal has no name
        return f"killed by {signal.Signals(-status).name}"
    return f"killed by signal {-status}"


def _text(raw: bytes) -> str:
    """Readable, valid UTF-8 without NUL (PostgreSQL refuses it), of at most 4 KB."""
    if len(raw) >= _KEPT:  # cut short, perhaps inside a character
        raw = re.sub(rb"\A[\x80-\xbf]{1,3}", b"", raw)
    text = raw.decode("utf-8", "backslashreplace").replace("\0", "\\x00").strip()
    return text.encode()[-_KEPT:].decode("utf-8", "ignore")
