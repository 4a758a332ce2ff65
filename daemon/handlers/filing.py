"""The handler of `on_done`: takes a file away that was handled, and can tell that it did.

It runs as the last step, through the dispatcher like every other one: so the success that allows it
is committed before, and a place that is full or away costs no attempt.
"""

import asyncio
import errno
import os
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import partial
from operator import attrgetter

from daemon.config_after import After, Move, base_of
from daemon.core.model import Fingerprint, Key
from daemon.core.targets import Target
from daemon.handlers import Job, Outcome, Undecided, Verdict, relocate
from daemon.handlers.archive import Elsewhere, Guard
from daemon.handlers.below import Absent, Changed, File
from daemon.handlers.copying import Stopped
from daemon.handlers.launching import TOO_FEW
from daemon.handlers.parts import NOWHERE, Parts
from daemon.handlers.relocate import Place
from daemon.handlers.threads import Answer, Threads
from daemon.handlers.ticket import Ticket

# How long a stop waits for what is being taken away just now, of a copy the next chunk.
END_SECONDS = 5.0
# A file system that does not answer for so long is told of.
ANSWER_SECONDS = 30.0
# How often an archive that is not the known one is asked for what was taken there before a crash.
AGAIN_SECONDS = 5.0

# What the file itself has to do with: its name, its size, or another file in place of a folder.
_NEVER = frozenset({errno.ENAMETOOLONG, errno.EFBIG})
_PERHAPS = frozenset({errno.ENOTDIR, errno.EEXIST, errno.EINVAL, errno.EILSEQ, errno.EISDIR})


class Filing:
    """Where the files of a watch go, by an `on_done` or `on_quarantine`. Its methods block.

    `guard` knows which folder that is; without one whatever has its name is.
    """

    def __init__(
        self, after: After, watch: str, parts: Parts = NOWHERE, guard: Guard | None = None
    ) -> None:
        self._parts = parts
        self._guard = guard
        move = after if isinstance(after, Move) else None
        self._target = Target(move.move) if move else None
        self._base = os.fsencode(base_of(move.move, watch)) if move else b""
        self._overwrite = move is not None and move.overwrite

    def place_of(self, key: Key, seen: Fingerprint) -> Place | None:
        """Where a file goes; None where it is deleted.

        Raises:
            ValueError: its name leads nowhere.
        """
        if self._target is None:
            return None
        return Place(self._base, self._target.of(key, seen), self._overwrite, self._guard)

    def take(self, key: Key, file: File, stopped: threading.Event) -> Outcome:
        """Take a file away; whatever is in the way is the outcome's error.

        What is `stopped` is not asked for what it came to, unless it is a success.

        Raises:
            Elsewhere: the folder where it goes is not the one that is known.
        """
        try:
            return Outcome("success", target=self._take(key, file, stopped))
        except Absent as error:
            return self.taken(key, file) or Outcome("retry", str(error))
        except Changed as error:
            return Outcome("retry", str(error), target=error.target)
        except Stopped as error:
            return Outcome("retry", str(error))
        except ValueError as error:
            return Outcome("reject", str(error))
        except OSError as error:
            return Outcome(_verdict(error), _words(error))

    def _take(self, key: Key, file: File, stopped: threading.Event) -> bytes | None:
        if stopped.is_set():
            raise Stopped
        place = self.place_of(key, file.seen)
        if place is not None:
            return relocate.move(file, place, stopped.is_set, self._parts)
        relocate.delete(file)
        return None

    def taken(self, key: Key, file: File) -> Outcome | None:
        """The success of a run that was cut off when the file was away already; None without one.

        Another file may have come to its path since. Of what cannot be looked at nothing is known.
        What was withdrawn only, as `relocate` has it, is taken now.

        Raises:
            Elsewhere: the folder where it may be is not the one that is known.
        """
        if (left := relocate.left(file)) is not None:
            outcome = self.take(key, left, threading.Event())
            return outcome if outcome.verdict == "success" else None
        try:
            stands, place = relocate.stands(file), self.place_of(key, file.seen)
            if place is None:
                return None if stands else Outcome("success")
            target = (relocate.finish if stands == "itself" else relocate.find)(file, place)
        except (Absent, Changed, OSError, ValueError):
            return None
        return Outcome("success", target=target) if target is not None else None


class _Pulse(threading.Event):
    """Tells a thread to stop, and knows when that last asked: a copy does after every chunk."""

    def __init__(self) -> None:
        super().__init__()
        self.at, self.wall = time.monotonic(), time.time_ns() // 1000

    def is_set(self) -> bool:
        """Whether it is to stop."""
        self.at, self.wall = time.monotonic(), time.time_ns() // 1000
        return super().is_set()


class FilingHandler:
    """`on_done` of a watch. Its copies are on record in `parts` while they are made.

    What it does to files it does in `threads`, which are nobody else's: the place where they go may
    be on a file system that hangs.
    """

    def __init__(
        self,
        after: After,
        watch: str,
        threads: Threads,
        parts: Parts = NOWHERE,
        guard: Guard | None = None,
    ) -> None:
        self._filing = Filing(after, watch, parts, guard)
        self._threads = threads
        self._guard = guard
        self._pulses: set[_Pulse] = set()

    @property
    def silent_since(self) -> int | None:
        """Since when a thread waits for the disk, in microseconds of the epoch; None: not long."""
        oldest = min(self._pulses, key=attrgetter("at"), default=None)
        if oldest is None or time.monotonic() - oldest.at < ANSWER_SECONDS:
            return None
        return oldest.wall

    async def run(self, job: Job) -> Outcome:
        """See `Handler`. One that is cancelled has either taken the file away, or left it.

        Raises:
            Undecided: it was cancelled, and its thread hangs.
        """
        if job.seen is None:
            return Outcome("retry", "the file is not there any more")
        began = time.monotonic()
        with self._pulse() as pulse:
            outcome = await self._take_guarded(job, file_of(job, job.seen), pulse)
        duration = round((time.monotonic() - began) * 1000, 3)
        return Outcome(outcome.verdict, outcome.error, duration, target=outcome.target)

    async def taken(self, job: Job) -> Outcome | None:
        """What a run came to that a crash cut off, if the file was away by then.

        Of one that is away only the archive knows: while another folder stands there, that is
        waited for.
        """
        if job.seen is None:
            return None
        file = file_of(job, job.seen)
        while True:
            with suppress(Elsewhere):
                return await self._ask(partial(self._filing.taken, job.file, file))
            with self._pulse():
                refused = await self._meet()
            if refused is not None:
                if await self._ask(partial(_is_there, file)):
                    return None
                await asyncio.sleep(AGAIN_SECONDS)

    async def _ask(self, question: Callable[[], Answer]) -> Answer:
        with self._pulse():
            return await self._threads.run(question)

    def folder_of(self, job: Job) -> bytes | None:
        """The folder that is to hold a file; None where it has no place, or leads nowhere."""
        with suppress(ValueError):
            place = None if job.seen is None else self._filing.place_of(job.file, job.seen)
            return place.folder if place else None
        return None

    async def close(self) -> None:
        """End the threads; those that hang are left behind."""
        await self._threads.close()

    async def _take_guarded(self, job: Job, file: File, pulse: _Pulse) -> Outcome:
        """Take it away, once it is known that what stands there is where files go."""
        refused = None if self._guard is None or self._guard.is_sure else await self._meet()
        for _ in range(2):
            if refused is not None:
                return refused
            with suppress(Elsewhere):
                return await self._take(job, file, pulse)
            refused = await self._meet()
        return refused or Outcome("unavailable", "cannot take it away: other mounts come and go")

    async def _meet(self) -> Outcome | None:
        """Have the guard find out what stands there; None where files may go there."""
        try:
            reason = await self._guard.meet() if self._guard else None
        except OSError as error:
            # No file is to blame for that folder, whatever is wrong with it.
            return Outcome("defer" if error.errno in TOO_FEW else "unavailable", _words(error))
        except RuntimeError as error:
            return Outcome("defer", f"cannot take it away: {error}")
        return Outcome("unavailable", f"cannot take it away: {reason}") if reason else None

    async def _take(self, job: Job, file: File, pulse: _Pulse) -> Outcome:
        to_begin = Ticket()

        def take() -> Outcome:
            withdrawn = Outcome("retry", "it was withdrawn")
            return self._filing.take(job.file, file, pulse) if to_begin.take() else withdrawn

        try:
            work = self._threads.run(take)
        except RuntimeError as error:
            return Outcome("defer", f"cannot take it away: {error}")
        try:
            await asyncio.wait((work,))
        except asyncio.CancelledError:
            pulse.set()
            if to_begin.take() or (await _outlasted(work)).verdict != "success":
                raise
        return work.result()

    @contextmanager
    def _pulse(self) -> Iterator[_Pulse]:
        pulse = _Pulse()
        self._pulses.add(pulse)
        try:
            yield pulse
        finally:
            self._pulses.discard(pulse)


def file_of(job: Job, seen: Fingerprint) -> File:
    """The file of a job, below the root of its watch."""
    root = job.path[: -len(job.file.path) - 1] or b"/"
    return File(root, job.file.path, seen)


async def _outlasted(work: asyncio.Future[Outcome]) -> Outcome:
    """Wait for a thread, which nothing can cancel; what it achieved after all is a success."""
    with suppress(asyncio.CancelledError):  # once more: somebody is in a hurry
        await asyncio.wait((work,), timeout=END_SECONDS)
    if not work.done():
        raise Undecided("it is still being taken away: does the place where it goes hang?")
    try:
        return work.result()
    except Elsewhere:
        return Outcome("retry", "it was not begun")


def _is_there(file: File) -> bool:
    with suppress(OSError):
        return relocate.stands(file) == "itself"
    return False


def _verdict(error: OSError) -> Verdict:
    """Whether the file is to blame; a place that is full, away or forbidden is not its fault."""
    if error.errno in TOO_FEW:
        return "defer"
    if error.errno in _NEVER:
        return "reject"
    return "retry" if error.errno in _PERHAPS else "unavailable"


def _words(error: OSError) -> str:
    where = f" ({os.fsdecode(error.filename)})" if error.filename else ""
    return f"cannot take it away: {error.strerror}{where}"
