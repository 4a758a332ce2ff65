"""What the commands answer with, before it is text or JSON."""

from pathlib import Path
from typing import NamedTuple, get_args

from daemon.core.model import State

STATES: tuple[str, ...] = get_args(State)


class WatchStatus(NamedTuple):
    """One watch; `root` is None for one that the configuration no longer has."""

    name: str
    root: bytes | None
    files: dict[str, int]
    oldest_ready: int | None
    next_retry: int | None


class Status(NamedTuple):
    """The daemon, its database, and its watches; `pid` is None when it does not run."""

    pid: int | None
    state_dir: Path
    database: Path
    size: int
    schema: int
    owed: int
    watches: list[WatchStatus]


class Widths(NamedTuple):
    """How wide the columns of `ls` are: it prints its first line before it knows the last."""

    watch: int
    step: int


def seconds_since(at: int, now: int) -> float:
    """Between two times in microseconds; the clock may have been put back in between."""
    return max(0, now - at) / 1_000_000
