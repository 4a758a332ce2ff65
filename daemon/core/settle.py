"""Has a file settled? The quiet time, and who has it open for writing. Pure."""

from typing import Literal, NamedTuple

from msgspec import Struct

from daemon.core.model import Fingerprint

PROBE_FIRST_US = 50_000
PROBE_LONGEST_US = 1_000_000
# What a file waits for beside itself (a marker, a manifest, its digest) brings it back when it
# comes. This is for the case that it comes unseen.
BACKSTOP_US = 60_000_000
# States of a file that has settled: another content would be a change.
SETTLED = frozenset({"ready", "processing", "failed", "quarantined", "done"})

# Why a member keeps its set back. `unread`: whether its checksum holds is not known.
Lack = Literal[
    "missing", "irregular", "unseen", "held", "unsettled", "newer", "mismatched", "unread"
]
_NOTHING = frozenset({None, "unread"})


class Inventory(NamedTuple):
    """A manifest's path, and its members in their order, each with what it lacks.

    `settled`: how many of them have settled before, and are what they were then.
    """

    manifest: bytes
    members: dict[bytes, Lack | None]
    settled: int

    @property
    def is_over(self) -> bool:
        """The whole set has settled, and nothing that is known has changed since."""
        return self.settled == len(self.members) and not set(self.members.values()) - _NOTHING


class Condition(NamedTuple):
    """Something that has to be so before a file settles; `satisfied`: None where nobody knows."""

    name: str
    satisfied: bool | None
    sentence: str
    inventory: Inventory | None = None


class Look(Struct, frozen=True, gc=False):
    """What one look at a path found.

    `kind`: `file`, `absent`, `directory`, `other` (a symlink, FIFO, socket or device), `elsewhere`
    (behind a symlink, so not of this tree) or `error` (the kernel would not say: `error` has its
    words; `lasting`: it would say the same in a moment). `closed`: nobody has the file open for
    writing; None where that cannot be known.
    `marked`: its `marker` is there, and was made for this content; None where it needs none. What
    was seen first is the marker: a file that is complete with it was complete when it was made.
    `quiet` and `closed` are judged only when asked for.
    """

    kind: str
    seen: Fingerprint | None = None
    quiet: bool = False
    closed: bool | None = None
    error: str | None = None
    marked: bool | None = None
    marker: Fingerprint | None = None
    lasting: bool = False

    @property
    def settled(self) -> bool:
        """Quiet, not known to be open for writing, and not without a marker that it needs."""
        return self.quiet and self.closed is not False and self.marked is not False

    @property
    def evidence(self) -> str:
        """What the judgement rests on, as the `settle` line names it."""
        lease, marker = "+lease" if self.closed else "", "+marker" if self.marked else ""
        return f"quiet{lease}{marker}"


def is_quiet(
    seen: Fingerprint, now: int, quiet: int, stood: Fingerprint | None, *, own_clock: bool = True
) -> bool:
    """Unchanged for `quiet` microseconds.

    Either `stood`, the fingerprint of at least that long ago, is still what is seen: that needs
    no wall clock. Or the kernel's times lie that far back: a write sets ctime, and no program
    can set it to another time. A time in the future is no evidence, and neither is one that was
    set by another machine's clock (`own_clock` is false on network file systems).
    """
    if stood == seen:
        return True
    return own_clock and max(seen.mtime_ns, seen.ctime_ns) // 1000 <= now - quiet


def look_again_at(look: Look, now: int, quiet: int, *, own_clock: bool = True) -> int:
    """When a file that has not settled is worth another look.

    A file that is quiet but open is probed at an eighth of its age, from 50 ms to 1 s: soon after
    it was opened, rarely when it has been open for an hour. But no later than after the quiet
    time, or 50 ms: no event tells of the last close, and within `quiet` and 100 ms of it the file
    is to be ready. One that lacks its marker is brought back by that.
    """
    if look.marked is False:
        return now + BACKSTOP_US
    if look.seen is None:
        return now + quiet
    last = max(look.seen.mtime_ns, look.seen.ctime_ns) // 1000
    if look.quiet:
        longest = min(PROBE_LONGEST_US, max(PROBE_FIRST_US, quiet))
        return now + min(longest, max(PROBE_FIRST_US, (now - last) // 8))
    # One microsecond more than the rounded-down times say, or the alarm may come just too early.
    known = own_clock and now - quiet < last <= now
    return last + quiet + 1 if known else now + quiet
