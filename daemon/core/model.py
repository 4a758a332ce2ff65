"""The nouns. All frozen: a changed row is another row.

Times are integers: microseconds since the epoch, UTC (`_ns` where the kernel counts nanoseconds).
Paths are bytes, relative to the root of their watch, without a leading or trailing slash.
"""

from typing import Literal, NamedTuple

from msgspec import Struct

State = Literal[
    "untracked",
    "settling",
    "ready",
    "processing",
    "failed",
    "quarantined",
    "done",
    "held",
    "gone",
]
Event = Literal[
    "discover",
    "change",
    "settle",
    "start",
    "succeed",
    "fail",
    "reject",
    "interrupt",
    "retry",
    "vanish",
    "move",
    "hold",
    "release",
    "skip",
    "reset",
]
Plan = Literal["process", "remove"]


class Key(NamedTuple):
    """What names a file: its watch and its path below that watch's root."""

    watch: str
    path: bytes

    @property
    def directory(self) -> bytes:
        """The path of the folder that holds the file; empty for the root itself."""
        return self.path.rpartition(b"/")[0]

    @property
    def name(self) -> bytes:
        """The last component of the path."""
        return self.path.rpartition(b"/")[2]


class Fingerprint(NamedTuple):
    """What one `lstat` of a regular file tells about its content."""

    size: int
    mtime_ns: int
    ctime_ns: int
    ino: int
    dev: int

    @property
    def content(self) -> str:
        """The content's identity as far as `stat` knows it: inode, size and mtime.

        ctime is left out: a handler that sets a mode or makes a hard link would otherwise see
        its own work as a change, for ever. The device is left out: its number is not stable
        across mounts.
        """
        # Half the price of an f-string, and every file passes here.
        return "%x-%x-%x" % (self.ino, self.size, self.mtime_ns)  # noqa: UP031 - see above


class Sight(NamedTuple):
    """What a file has shown. `closed`: nobody had it open for writing, None if nobody knows."""

    seen: Fingerprint
    closed: bool | None


class Row(Struct, frozen=True, gc=False):
    """One file as the ledger knows it. `version` counts its transitions, without gaps.

    `result` is what the last step that succeeded hands on to the next, as JSON. `rank` says how
    urgent the file is where patterns say so: a lower one goes first.
    """

    id: int
    key: Key
    state: State = "untracked"
    version: int = 0
    step: str | None = None
    plan: Plan = "process"
    attempt: int = 0
    failures: int = 0
    interruptions: int = 0
    seen: Fingerprint | None = None
    done: str | None = None
    at: int = 0
    due_at: int | None = None
    error: str | None = None
    digest: str | None = None
    result: str | None = None
    rank: int = 0

    @property
    def content(self) -> str | None:
        """The identity of the content that the row shows: its digest where one was computed."""
        return self.digest or (self.seen.content if self.seen else None)


class Trigger(Struct, frozen=True):
    """A reason to touch a file. `look` compares disk and row; every other event names itself.

    `version`: the row was claimed at this version, and at another there is nothing to start any
    more. `seen` is the fingerprint that stood at least the quiet time ago, for the alarm that
    waited for it. `found` is what a scan has just seen where no row was, `sight` what a watcher has
    of a file that is new to it. `waited`: what could
    explain an absence, or a stranger in the file's place, has had its time to come. `after` and
    `result` are the handler's: seconds to wait for the next attempt, and JSON for the next step.
    `target`: where we took the file.
    """

    key: Key
    event: Event | Literal["look"]
    cause: str
    version: int | None = None
    seen: Fingerprint | None = None
    error: str | None = None
    duration_ms: float | None = None
    found: Fingerprint | None = None
    sight: Sight | None = None
    waited: bool = False
    after: float | None = None
    result: str | None = None
    target: bytes | None = None


class Transition(Struct, frozen=True, gc=False):
    """One committed, or to be committed, step of a life: the row before and the row after.

    `target`: the absolute path to which the file was taken.
    """

    before: Row
    after: Row
    event: Event
    attempt_id: str
    node: str
    guard: str | None = None
    cause: str | None = None
    evidence: str | None = None
    error: str | None = None
    duration_ms: float | None = None
    target: bytes | None = None


class Refused(Struct, frozen=True, gc=False):
    """A trigger that the life cycle does not allow: `guard` is the last one that said no."""

    guard: str
    reason: str


class Record(Struct, frozen=True, gc=False):
    """A transition as it is kept and as it is told: a row of `transitions`, a line of the log.

    `seq` orders the records of one ledger. It may have gaps; a file's `version` has none.
    """

    seq: int
    file_id: int
    watch: str
    path: bytes
    event: str
    from_state: str
    to_state: str
    version: int
    attempt_id: str
    node: str
    at: int
    guard: str | None = None
    cause: str | None = None
    evidence: str | None = None
    step: str | None = None
    attempt: int | None = None
    duration_ms: float | None = None
    size: int | None = None
    due_at: int | None = None
    old_path: bytes | None = None
    error: str | None = None
    target: bytes | None = None
