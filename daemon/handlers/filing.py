"""The handler of `on_done`: takes a file away that was handled, and can tell that it did.

It runs as the last step, through the dispatcher like every other one: so the success that allows it
is committed before, and a place that is full or away costs no attempt.
"""

import asyncio
import errno
import os
import threading
import time
from contextlib import suppress

from daemon.config_after import After, Move, base_of
from daemon.core.model import Fingerprint, Key
from daemon.core.targets import Target
from daemon.handlers import Job, Outcome, Verdict, relocate
from daemon.handlers.below import Absent, Changed, File
from daemon.handlers.copying import Stopped
from daemon.handlers.launching import TOO_FEW
from daemon.handlers.parts import NOWHERE, Parts
from daemon.handlers.relocate import Place

# What the file itself has to do with: its name, its size, or another file in place of a folder.
_NEVER = frozenset({errno.ENAMETOOLONG, errno.EFBIG})
_PERHAPS = frozenset({errno.ENOTDIR, errno.EEXIST, errno.EINVAL, errno.EILSEQ, errno.EISDIR})


class Filing:
    """Where the files of a watch go, by an `on_done` or `on_quarantine`. Its methods block."""

    def __init__(self, after: After, watch: str, parts: Parts = NOWHERE) -> None:
        self._parts = parts
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
        return Place(self._base, self._target.of(key, seen), self._overwrite)

    def take(self, key: Key, file: File, stopped: threading.Event) -> Outcome:
        """Take a file away; whatever is in the way is the outcome's error.

        What is `stopped` is not asked for what it came to, unless it is a success.
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


class FilingHandler:
    """`on_done` of a watch. Its copies are on record in `parts` while they are made."""

    def __init__(self, after: After, watch: str, parts: Parts = NOWHERE) -> None:
        self._filing = Filing(after, watch, parts)

    async def run(self, job: Job) -> Outcome:
        """See `Handler`. One that is cancelled has either taken the file away, or left it."""
        if job.seen is None:
            return Outcome("retry", "the file is not there any more")
        began = time.monotonic()
        stopped = threading.Event()
        file = file_of(job, job.seen)
        work = asyncio.ensure_future(asyncio.to_thread(self._filing.take, job.file, file, stopped))
        await _outlast(work, stopped)
        try:
            outcome = work.result()
        except RuntimeError as error:  # there is no thread for it now, and none is to have it later
            stopped.set()
            return Outcome("defer", f"cannot take it away: {error}")
        duration = round((time.monotonic() - began) * 1000, 3)
        return Outcome(outcome.verdict, outcome.error, duration, target=outcome.target)

    def taken(self, job: Job) -> Outcome | None:
        """What a run came to that a crash cut off, if the file was away by then. Blocks."""
        return None if job.seen is None else self._filing.taken(job.file, file_of(job, job.seen))

    def folder_of(self, job: Job) -> bytes | None:
        """The folder that is to hold a file; None where it has no place, or leads nowhere."""
        with suppress(ValueError):
            place = None if job.seen is None else self._filing.place_of(job.file, job.seen)
            return place.folder if place else None
        return None

    async def close(self) -> None:
        """See `Handler`. Between jobs there is nothing."""


def file_of(job: Job, seen: Fingerprint) -> File:
    """The file of a job, below the root of its watch."""
    root = job.path[: -len(job.file.path) - 1] or b"/"
    return File(root, job.file.path, seen)


async def _outlast(work: asyncio.Future[Outcome], stopped: threading.Event) -> None:
    """Wait for the thread, which nothing can cancel; what it achieved after all is a success."""
    try:
        await asyncio.wait((work,))
    except asyncio.CancelledError:
        stopped.set()
        await _outlast(work, stopped)
        if work.result().verdict != "success":
            raise


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
