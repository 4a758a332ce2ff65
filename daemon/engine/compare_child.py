"""The program of a process that helps with a large scan: it compares, and sends what differs.

It knows nothing of what the watch wants, reads the rows by itself, and imports next to nothing:
8 ms to start, 14 MB. To its standard input comes first what to read and where, and then one request
after another; to its standard output goes an answer to each, None if the database cannot be read
now. It ends when its input does. The requests, and their answers:

    ("summarize", directories)           the number of the last transition, and for each directory a
                                         `Summary` of its rows, None if there are too many
    ("compare", directories, summaries, last)
                                         the attributes of a `Listing`; the summaries, by directory,
                                         count if the last transition is the same as it was then
"""

import _signal  # type: ignore[import-not-found]  # `signal` makes enums of the numbers: 1 MB
import gc
import marshal
import os
import sqlite3

from daemon.engine.listing import TURN, Listing, summarize

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import IO, Any, TypeAlias

    from daemon.engine.listing import Rows, Summary

    # `Access`, the watch, and its root.
    Task: TypeAlias = "tuple[str, str, str, str, str, bytes]"

BUSY_SECONDS = 0.25


class Comparison:
    """Directories of one tree against their rows."""

    def __init__(self, task: "Task") -> None:
        self._uri, self._known, self._contents, self._last, self._watch, self._root = task
        self._db: sqlite3.Connection | None = None

    def answer(self, what: str, *about: "Any") -> "Any":  # noqa: ANN401 - see the module
        """What is asked for; None if the database cannot be read."""
        try:
            return self.compare(*about) if what == "compare" else self.summarize(*about)
        except sqlite3.Error:
            # Who asks knows what to do about it, and waits until the database is back.
            self._close()
            return None

    def summarize(self, directories: list[bytes]) -> "tuple[int | None, list[Summary | None]]":
        """Before the first read the last transition, so that none can be in one and not known."""
        last = self._last_transition()
        return last, [self._summary(directory) for directory in directories]

    def compare(
        self, directories: list[bytes], summaries: "dict[bytes, Summary]", last: int | None
    ) -> "dict[str, Any]":
        """What differs in some of these directories, and which ones are left."""
        if summaries and last != self._last_transition():
            summaries = {}
        found = Listing()
        found.compare_all(self._root, directories, self._rows, summaries.get)
        return vars(found)

    def _rows(self, directory: bytes) -> "Rows":
        """The rows directly in a directory, by name. No read lasts longer than this."""
        return {row[6]: row for row in self._read(self._known, self._watch, directory)}

    def _summary(self, directory: bytes) -> "Summary | None":
        rows = self._read(self._contents, self._watch, directory, TURN)
        return summarize(rows) if len(rows) < TURN else None

    def _last_transition(self) -> int | None:
        ((last,),) = self._read(self._last)
        return None if last is None else int(last)

    def _read(self, query: str, *values: object) -> "list[Any]":
        if self._db is None:
            self._db = sqlite3.connect(self._uri, uri=True, timeout=BUSY_SECONDS)
        return self._db.execute(query, values).fetchall()

    def _close(self) -> None:
        if self._db is not None:
            self._db.close()
            self._db = None


def main() -> None:
    """Compare until nobody asks any more."""
    for number in (_signal.SIGTERM, _signal.SIGINT, _signal.SIGHUP):
        # They are for the daemon, and reach everybody in its control group or at its terminal.
        _signal.signal(number, _signal.SIG_IGN)
    # Nothing here makes cycles, and to look for them takes a tenth of the time.
    gc.disable()
    with open(0, "rb") as requests, open(1, "wb") as replies:
        try:
            comparison = Comparison(receive(requests))
            while True:
                send(replies, comparison.answer(*receive(requests)))
        except (EOFError, BrokenPipeError):
            # Without good-byes: there may be no reader left to flush to.
            os._exit(0)


def send(pipe: "IO[bytes] | None", value: "Any") -> None:  # noqa: ANN401 - as marshal takes it
    """Write a value: its length in four bytes, little-endian, and itself, marshalled."""
    assert pipe is not None  # noqa: S101 - for mypy
    body = marshal.dumps(value)
    pipe.write(len(body).to_bytes(4, "little") + body)
    pipe.flush()


def receive(pipe: "IO[bytes] | None") -> "Any":  # noqa: ANN401 - whatever was sent
    """Read a value.

    Raises:
        EOFError: there is none any more.
    """
    assert pipe is not None  # noqa: S101 - for mypy
    size = pipe.read(4)
    body = pipe.read(int.from_bytes(size, "little"))
    if not body:
        raise EOFError("the other end is closed")
    return marshal.loads(body)  # noqa: S302 - our own program wrote it
