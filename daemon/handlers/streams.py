"""What a program reads from and writes to: its standard streams, as its step asks for."""

import asyncio
import errno
import os
from collections.abc import Sequence
from functools import partial
from types import TracebackType
from typing import Self

from daemon.config_steps import CommandStep
from daemon.errors import SHORTAGE
from daemon.handlers import RESULT_BYTES, Job, Verdict
from daemon.handlers.arguments import fields_of, lines_of, names_of
from daemon.handlers.opened import Replaced, open_seen
from daemon.handlers.running import Pipe
from daemon.handlers.said import KEPT
from daemon.handlers.start import Start
from daemon.handlers.threads import Threads

_NULL = os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC)
# A link that others have put there is not followed, and a FIFO does not block.
_APPEND = (
    os.O_WRONLY
    | os.O_APPEND
    | os.O_CREAT
    | os.O_CLOEXEC
    | os.O_NOFOLLOW
    | os.O_NONBLOCK
    | os.O_NOCTTY
)
_MODE = 0o640
# What the name of a file makes of the name of its output.
_OF_THE_NAME = frozenset({errno.ENAMETOOLONG, errno.ELOOP, errno.EISDIR, errno.ENXIO})


class CannotBegin(Exception):  # noqa: N818 - a verdict before there is a program to give it
    """A run is over before it began; `verdict` says whose fault that is."""

    def __init__(self, verdict: Verdict, error: str) -> None:
        super().__init__(error)
        self.verdict = verdict
        self.error = error


class Streams:
    """The three streams of one run. A context manager: at its end all of them are closed.

    `answer` is the pipe for a result, where there is to be one. `lent_to`: a start whose thread may
    have to do with them beyond that end; then they are closed when it is over.
    """

    def __init__(
        self, step: CommandStep, output: bytes | None, jobs: Sequence[Job], threads: Threads
    ) -> None:
        self._step = step
        self._threads = threads
        self._outlives = step.on_restart == "wait"
        self._jobs = jobs
        self._files: list[int] = []
        self._output = None if output is None else os.fsdecode(output % fields_of(jobs[0]))
        self._pipes: list[Pipe] = []
        self._said: Pipe | None = None
        self.answer: Pipe | None = None
        self.lent_to: Start | None = None
        self.stdin = self.stdout = self.stderr = _NULL

    @property
    def are_files(self) -> bool:
        """Some of them have to be opened."""
        return self._step.stdin != "none" or self._output is not None

    async def open(self) -> None:
        """Open those that are files.

        Raises:
            CannotBegin: a file that is to be read or written is not to be had.
            OSError: there are no descriptors for them.
        """
        if self._step.stdin != "none":
            self.stdin = await self._input()
            self._files.append(self.stdin)
        if self._output is not None:
            self.stdout = self.stderr = self._append(self._output)
            self._files.append(self.stderr)

    def make_pipes(self) -> None:
        """Make those that are pipes. In any thread.

        Raises:
            OSError: there are no descriptors for them.
        """
        if self._output is None:
            self._said = Pipe(KEPT, outlives=self._outlives)
            self._pipes.append(self._said)
            self.stderr = self._said.inlet
        if self._step.result == "stdout":
            self.answer = Pipe(RESULT_BYTES + 1, first=True, outlives=self._outlives)
            self._pipes.append(self.answer)
            self.stdout = self.answer.inlet

    def given(self) -> None:
        """The program has them: what is its own is closed here. In any thread."""
        self._close_files()
        for pipe in self._pipes:
            pipe.close_inlet()

    def listen(self) -> None:
        """The program still runs: have what it says read as it comes.

        Of one that is over it is in the pipes, and is read when it is asked for.
        """
        for pipe in self._pipes:
            pipe.open()

    def hush(self) -> None:
        """It has succeeded, and nobody wants to know what it said. In any thread."""
        if self._said is not None:
            self._said.close()

    async def last_words(self) -> bytes:
        """The end of what it said on standard error, or where that can be read."""
        if self._said is not None:
            return await self._said.end()
        return os.fsencode(f"see {self._output}")

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self.lent_to is None:
            self._close()
        else:
            self.lent_to.afterwards(self._close)

    def _close(self) -> None:
        self._close_files()
        for pipe in self._pipes:
            pipe.close()

    def _close_files(self) -> None:
        while self._files:
            os.close(self._files.pop())

    async def _input(self) -> int:
        if self._step.stdin == "file":
            return await _opened(self._jobs[0], self._threads)
        write = names_of if self._step.stdin == "paths0" else lines_of
        # A file in memory, not a pipe: it needs nobody to feed it, however long it is.
        with os.fdopen(os.memfd_create("treewarden"), "wb") as file:
            file.write(write(self._jobs))
            file.flush()
            os.lseek(file.fileno(), 0, os.SEEK_SET)
            return os.dup(file.fileno())

    def _append(self, path: str) -> int:
        try:
            fd = os.open(path, _APPEND, _MODE)
        except OSError as error:
            if error.errno in SHORTAGE:
                raise
            verdict: Verdict = "retry" if error.errno in _OF_THE_NAME else "unavailable"
            raise CannotBegin(verdict, f"cannot write to {path}: {error.strerror}") from error
        os.set_blocking(fd, True)  # of a FIFO that somebody reads a program expects to wait
        return fd


async def _opened(job: Job, threads: Threads) -> int:
    """The file itself. Looked for in a thread: its disk may hang."""
    opening = threads.run(partial(open_seen, job))
    try:
        return await asyncio.shield(opening)
    except asyncio.CancelledError:
        # A thread cannot be cancelled, and a descriptor must not be lost.
        opening.add_done_callback(_close_unwanted)
        raise
    except Replaced as error:
        raise CannotBegin("retry", str(error)) from error
    except OSError as error:
        if error.errno in SHORTAGE:
            raise
        raise CannotBegin("retry", f"cannot open the file: {error.strerror}") from error


def _close_unwanted(opening: "asyncio.Future[int]") -> None:
    if not opening.cancelled() and opening.exception() is None:
        os.close(opening.result())
