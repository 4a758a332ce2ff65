"""The `Store` protocol: what the engine needs from a database. Its kinds are the modules beside it.

A store has one writer, and that is the ledger. Every method raises `StoreUnavailable` when the
database cannot answer now; then nothing was changed, or `apply` finds out on the next try.
"""

from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Literal, NamedTuple, Protocol

from daemon.core.model import Key, Record, Row, Transition


class LastIds(NamedTuple):
    """The highest numbers in use, for the writer that counts on from them."""

    file_id: int
    seq: int


class WatchMark(NamedTuple):
    """When a watch was first seen (microseconds), and whether its early files are adopted."""

    first_seen: int
    adopted: bool


class Known(NamedTuple):
    """What a scan has to know of a row: the content that it shows, and what it waits for.

    `ctime_ns` only where there is a digest as well: what else tells a content does not need it.
    """

    ino: int | None
    size: int | None
    mtime_ns: int | None
    state: str
    plan: str
    ctime_ns: int | None = None


class Access(NamedTuple):
    """How another process reads what `Store.known` gives, from a SQLite database as a URI.

    The queries `known` and `contents` take a watch and a directory, `contents` also the most rows.
    A row of `known` is a `Known`, and then the file's name; one of `contents` is name, inode, size
    and mtime. As long as `last` gives the same number no transition has changed any row.
    """

    uri: str
    known: str
    contents: str
    last: str


class StateCount(NamedTuple):
    """How many files of a watch are in a state."""

    watch: str
    state: str
    files: int


class StepCount(NamedTuple):
    """How many files wait for a step (`ready`), or are in it (`processing`)."""

    watch: str
    step: str
    state: str
    files: int


class Queue(NamedTuple):
    """What waits for a step, and the order in which it is taken.

    `ranked`: urgent files go first. `in_folders`: it is taken by directory.
    """

    watch: str
    step: str
    order: Literal["arrival", "name", "mtime", "size"] = "arrival"
    ranked: bool = False
    in_folders: bool = False

    @property
    def index_name(self) -> str | None:
        """The index that this order needs; None for arrival alone, which has one in any case."""
        if self.in_folders:
            return f"ready_by_folder_and_{self.order}"
        is_plain = self.order == "arrival" and not self.ranked
        return None if is_plain else f"ready_by_{self.order}"


class Store(Protocol):
    """Rows of files, and the transitions that made them."""

    async def last_ids(self) -> LastIds:
        """The highest file id and transition seq."""
        ...

    def compose(
        self, batch: Sequence[tuple[Transition, Record]]
    ) -> Sequence[tuple[Transition, Record]]:
        """The same for `apply`, with all done that can be done before its turn has come."""
        ...

    async def apply(self, batch: Sequence[tuple[Transition, Record]], journaled: int) -> list[bool]:
        """Commit a batch in one durable transaction; True for each one that won its race.

        A transition whose row has another version than `before.version` loses and leaves nothing;
        so does the one after it that gives up the path for which a move was meant that has lost.
        Applying one again that is already committed (same file, version and attempt id) wins:
        a batch of which nobody knows whether it was written is simply applied again.
        `journaled` is the position of the log, stored along.
        """
        ...

    async def rows(self, keys: Sequence[Key]) -> list[Row | None]:
        """The row of each path, in the order asked; None where there is none."""
        ...

    async def known(
        self, watch: str, directories: Sequence[bytes], *, by_content: bool = False
    ) -> list[dict[bytes, Known]]:
        """The rows directly in each of some directories, by name, in the order asked.

        Of the first so many directories that hold 20,000 rows together; of one at least.
        """
        ...

    def access(self, *, by_content: bool = False) -> Access | None:
        """How other processes on this host can read the same; None if they cannot."""
        ...

    async def directories(self, watch: str, first: bytes, end: bytes, limit: int) -> list[bytes]:
        """The first directories with rows, in the order of bytes, from `first` up to `end`."""
        ...

    async def named(
        self, watch: str, directory: bytes, first: bytes, end: bytes, limit: int
    ) -> list[Row]:
        """The rows in a directory whose names are from `first` up to `end`, in that order."""
        ...

    async def by_inode(self, inodes: Sequence[int]) -> list[Row]:
        """The rows that show one of these inodes, of every watch."""
        ...

    async def prepare(self, queues: Sequence[Queue]) -> None:
        """Have the indexes that these queues need, and no others. Before they are read."""
        ...

    async def ready(self, queue: Queue, limit: int) -> list[Row]:
        """The first rows of a queue, in its order."""
        ...

    async def ready_in_folders(
        self,
        queue: Queue,
        rank: int,
        first: bytes,
        folders: int,
        each: int,
        more: Mapping[bytes, int] = MappingProxyType({}),
    ) -> dict[bytes, list[Row]]:
        """The first rows of a rank in each of the next directories, in the order of bytes.

        At most `each` of a directory, and so many `more` of some.
        """
        ...

    async def rank_ready(self, watch: str, ranked_by: str, rank_of: Callable[[bytes], int]) -> None:
        """Give what is ready its rank by path, unless it was given by the same patterns before.

        No transition: every transition sets the rank anyway.
        """
        ...

    async def starts(self, watch: str, step: str, since: int, limit: int) -> list[int]:
        """When handlers of a step were started after `since`, the latest first. Microseconds."""
        ...

    async def step_counts(self) -> list[StepCount]:
        """How many files wait for each step, or are in it; at once."""
        ...

    async def steps(self, watch: str) -> str | None:
        """What `keep_steps` was given last, None if it never was."""
        ...

    async def keep_steps(self, watch: str, steps: str) -> None:
        """Show onlookers how the steps of a known watch stand."""
        ...

    async def in_state(self, state: str, watch: str, after_id: int, limit: int) -> list[Row]:
        """Rows of one watch in one state other than `done`, by id, after `after_id`."""
        ...

    async def stranded(self, watch: str, plan: str, steps: Sequence[str]) -> list[Row]:
        """What waits, ready or failed, for a step of a plan other than these."""
        ...

    async def history(self, file_id: int, limit: int) -> list[Record]:
        """The last transitions of a file, in their order."""
        ...

    async def counts(self) -> list[StateCount]:
        """How many files of each watch there is or was are in each state; at once."""
        ...

    async def any_below(self, keys: Sequence[Key]) -> list[bool]:
        """Whether there are rows below each path, taken as a directory, in the order asked."""
        ...

    async def due(
        self, watches: Sequence[str], before: int, set_after: int | None, limit: int
    ) -> list[Row]:
        """Rows of these watches whose timer ends before `before`, or was set after `set_after`.

        Soonest first. Both in microseconds since the epoch; with `set_after` every timer is read.
        """
        ...

    async def owed(self, after_seq: int, limit: int) -> list[Record]:
        """The transitions after a point of the log, in order."""
        ...

    async def journaled(self) -> int:
        """How far the log has got."""
        ...

    async def mark_journaled(self, seq: int) -> None:
        """The log has got this far."""
        ...

    async def mark_watch(self, name: str, now: int) -> WatchMark:
        """Remember a watch, if it is new; tell when it was first seen."""
        ...

    async def mark_adopted(self, name: str) -> None:
        """The files that were there before the watch are all adopted."""
        ...

    async def live(self, watch: str) -> int:
        """How many files of a watch should be on the disk."""
        ...

    async def root(self, watch: str) -> str | None:
        """What `keep_root` was given last, None if it never was."""
        ...

    async def keep_root(self, watch: str, root: str) -> None:
        """Remember which directory the root of a known watch is."""
        ...

    async def archive(self, base: bytes) -> str | None:
        """What `keep_archive` was given last for a folder, None if it never was."""
        ...

    async def keep_archive(self, base: bytes, mark: str) -> None:
        """Remember which folder it is that files are taken to."""
        ...

    async def keep_detection(self, watch: str, detection: str) -> None:
        """Show onlookers how the changes of a known watch are found."""
        ...

    async def note_ctimes(self, rows: Sequence[Row]) -> None:
        """Files show another ctime than their rows did, and the same content.

        No transition, so nothing happens where a row has another version by now.
        """
        ...

    async def ping(self) -> None:
        """Answer, from the very file that was opened."""
        ...
